"""interp_jax: functional, jitted interpretability of language models in JAX."""

from interp_jax.core import detail, site

__all__ = ["detail", "site"]
