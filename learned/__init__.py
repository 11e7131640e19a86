"""Learned parts: networks as stages, injected into stages, or inside kernels."""
