"""Geometry stages: solid primitives, triangle meshes and their mass properties, differentiable in every size."""
