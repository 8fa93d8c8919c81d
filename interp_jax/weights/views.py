"""What functions of weights ask of them. They are `models.weights(model)`, or any dictionary with its names."""

from collections.abc import Mapping

from jax import Array
import jax.numpy as jnp

Weights = Mapping[str, Array]
CAP = "logit_softcap"


def float32(weights: Weights) -> dict[str, Array]:
    """The same weights in float32, as a new dictionary. The cap of the logits stays the very value it is."""
    return {name: value if name == CAP else value.astype(jnp.float32) for name, value in weights.items()}


def check_decoder(name: str, weights: Weights) -> None:
    """Raises ValueError where weights are an encoder's: its norms stand after the sums and its head is no matrix."""
    if "ln_embed_w" in weights:
        raise ValueError(
            f"{name}: these are an encoder's weights (ln_embed_w), whose residual stream is normalized as it is "
            "written and unembedded by a head with an activation; give a decoder's"
        )


def unembedding(name: str, weights: Weights) -> Array:
    """The unembedding `W_U` in float32. Raises ValueError where there is none."""
    if "W_U" not in weights:
        raise ValueError(f"{name}: these weights have no W_U: a headless model has no logits to read")
    return weights["W_U"].astype(jnp.float32)


def per_head(weights: Weights, name: str) -> Array:
    """Weights `[layer head ...]` in float32, one for each query head, repeated where heads share keys and values."""
    x = weights[name].astype(jnp.float32)
    n_heads = weights["W_Q" if "W_Q" in weights else "W_O"].shape[1]
    return x if x.shape[1] == n_heads else jnp.repeat(x, n_heads // x.shape[1], axis=1)
