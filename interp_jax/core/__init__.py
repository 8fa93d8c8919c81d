"""The core: sites and the transforms that read and change what flows through them.

.. include:: README.md
"""

from interp_jax.core.addresses import split_address
from interp_jax.core.backward import skipping
from interp_jax.core.calling import transform, within
from interp_jax.core.context import COUNTED, Context
from interp_jax.core.detail import detail
from interp_jax.core.edits import Function, Intervention, Module, as_intervention, choose, is_leaf, told
from interp_jax.core.explaining import Explanation, explain
from interp_jax.core.fitting import check, check_kind, fill, of_visit, place, shape_text
from interp_jax.core.info import SiteInfo
from interp_jax.core.jaxprs import closed, subjaxprs
from interp_jax.core.paths import layers_text
from interp_jax.core.site import site
from interp_jax.core.transforms import capture, find, freeze, grads, intervene, sites

__all__ = [
    "COUNTED",
    "Context",
    "Explanation",
    "Function",
    "Intervention",
    "Module",
    "SiteInfo",
    "as_intervention",
    "capture",
    "check",
    "check_kind",
    "closed",
    "choose",
    "detail",
    "explain",
    "fill",
    "find",
    "freeze",
    "grads",
    "intervene",
    "is_leaf",
    "layers_text",
    "of_visit",
    "place",
    "shape_text",
    "site",
    "sites",
    "skipping",
    "split_address",
    "subjaxprs",
    "told",
    "transform",
    "within",
]
