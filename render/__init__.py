"""Rendering stages: cameras, spheres and meshes over a background plate, motion blur and readout skew."""
