"""The core: sites and the transforms that read and change what flows through them."""

from interp_jax.core.calling import transform, within
from interp_jax.core.catalog import SiteInfo, Sites
from interp_jax.core.edits import (
    COUNTED,
    Context,
    Intervention,
    as_intervention,
    check,
    check_kind,
    check_uniform,
    choose,
    fill,
    is_leaf,
    of_visit,
    place,
)
from interp_jax.core.site import detail, site
from interp_jax.core.transforms import capture, freeze, grads, intervene, sites

__all__ = [
    "COUNTED",
    "Context",
    "Intervention",
    "SiteInfo",
    "Sites",
    "as_intervention",
    "capture",
    "check",
    "check_kind",
    "check_uniform",
    "choose",
    "detail",
    "fill",
    "freeze",
    "grads",
    "intervene",
    "is_leaf",
    "of_visit",
    "place",
    "site",
    "sites",
    "transform",
    "within",
]
