"""`interp-jax sites MODEL`: the catalogue of a model's sites."""

from typing import Annotated

import tyro


def sites(model: Annotated[str, tyro.conf.Positional]) -> None:
    """List every site of a model: its layers, shape, axes and dtype.

    Args:
        model: A shipped model (microworld), a local Hugging Face folder, or a hub id.
    """
    from interp_jax import models

    loaded, _ = models.load(model)
    print(catalogue(loaded))


def catalogue(model: object) -> object:
    """The catalogue of a model's sites on one sequence of 8 tokens, which prints as a table. Runs nothing."""
    import jax
    import jax.numpy as jnp

    import interp_jax as ij
    from interp_jax import models

    return ij.sites(models.forward, model, jax.ShapeDtypeStruct((1, 8), jnp.int32))
