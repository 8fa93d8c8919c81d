"""interp_jax: functional, jitted interpretability of language models in JAX."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from interp_jax.core import SiteInfo, capture, detail, freeze, grads, intervene, site, transform
from interp_jax.listing import sites

if TYPE_CHECKING:  # rooms are imported when they are first used, so that `import interp_jax` stays quick
    from interp_jax import (
        circuits,
        core,
        data,
        dictionaries,
        explain,
        fourier,
        geometry,
        graphs,
        heads,
        interventions,
        io,
        lens,
        metrics,
        models,
        patching,
        probes,
        report,
        steering,
        weights,
    )

__all__ = [
    "SiteInfo",
    "capture",
    "detail",
    "explain",
    "freeze",
    "grads",
    "intervene",
    "site",
    "sites",
    "transform",
    "circuits",
    "core",
    "data",
    "dictionaries",
    "fourier",
    "geometry",
    "graphs",
    "heads",
    "interventions",
    "io",
    "lens",
    "metrics",
    "models",
    "patching",
    "probes",
    "report",
    "steering",
    "weights",
]
_ROOMS = tuple(name for name in __all__ if name not in globals())


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"interp_jax.{name}")
    raise AttributeError(f"module 'interp_jax' has no attribute {name!r}; its rooms: {', '.join(_ROOMS)}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
