"""The library's interventions: what may be done to the value at a site.

Each is a pytree, so that it is an argument of `jit` (another vector is no other compilation), can be stacked and mapped
by `vmap`, differentiated and saved. A plain callable `value -> value` is an intervention too, and may stand wherever
one is expected. Values are computed in float32 where they reduce or combine, and cast to the dtype of the site.
"""

from interp_jax.core import Context, Intervention
from interp_jax.interventions.combining import chain, per_layer, via
from interp_jax.interventions.selection import at
from interp_jax.interventions.values import add, clamp, mean_ablate, noise, project_out, replace, scale, zero

__all__ = [
    "Context",
    "Intervention",
    "add",
    "at",
    "chain",
    "clamp",
    "mean_ablate",
    "noise",
    "per_layer",
    "project_out",
    "replace",
    "scale",
    "via",
    "zero",
]
