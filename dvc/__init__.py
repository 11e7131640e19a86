"""Differentiable visual computing: stages, their composition and their optimisation.

Names are imported on first use, so that `import dvc` costs nothing.
"""

import importlib

_HOME = {
    "Parameter": "dvc.parameter",
    "Pipeline": "dvc.pipeline",
    "Unsupported": "dvc.errors",
    "UserError": "dvc.errors",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'dvc' has no attribute {name!r}; known: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)
