"""Experiments: one module and one YAML of the same name each. See README.md here for claims, commands and results."""
