"""interp_jax: functional, jitted interpretability of language models in JAX."""

import importlib
from typing import Any

from interp_jax.core import SiteInfo, capture, detail, freeze, grads, intervene, site, sites, transform

__all__ = ["SiteInfo", "capture", "detail", "freeze", "grads", "intervene", "site", "sites", "transform"]

_ROOMS = (
    "circuits",
    "core",
    "data",
    "dictionaries",
    "fourier",
    "heads",
    "interventions",
    "io",
    "lens",
    "metrics",
    "models",
    "patching",
    "report",
    "weights",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:  # imported when first used, so that `import interp_jax` stays quick
        return importlib.import_module(f"interp_jax.{name}")
    raise AttributeError(f"module 'interp_jax' has no attribute {name!r}; its rooms: {', '.join(_ROOMS)}")
