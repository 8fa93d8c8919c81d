"""The core: sites and the transforms that read and change what flows through them."""

from interp_jax.core.calling import transform
from interp_jax.core.catalog import SiteInfo, Sites
from interp_jax.core.edits import Context, Intervention, as_intervention, check, fill, is_leaf, place, resolve
from interp_jax.core.site import detail, site
from interp_jax.core.transforms import capture, freeze, grads, intervene, sites

__all__ = [
    "Context",
    "Intervention",
    "SiteInfo",
    "Sites",
    "as_intervention",
    "capture",
    "check",
    "detail",
    "fill",
    "freeze",
    "grads",
    "intervene",
    "is_leaf",
    "place",
    "resolve",
    "site",
    "sites",
    "transform",
]
