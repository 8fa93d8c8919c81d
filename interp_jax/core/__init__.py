"""The core: sites and the transforms that read and change what flows through them."""

from interp_jax.core.site import detail, site

__all__ = ["detail", "site"]
