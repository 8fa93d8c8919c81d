"""An autoencoder with two latent spaces, of what a value is about and of how truthful it is, and what it is trained by.

    h_sem = SemEnc(x),  h_truth = TruthEnc(x) at unit norm,  x' = MLP(h_sem + Attn(h_sem, h_truth))
    loss = reconstruct + contrast in both spaces + edit (truthful latents of a pair exchanged give each other's x)

Zhang, Yu and Feng 2024, arXiv:2402.17811; `truthx` says where this one departs from theirs.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Key
import numpy as np

SLOTS = 8  # of a truthful latent


@partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=[])
@dataclass(frozen=True)
class Autoencoder:
    """Two encoders and a decoder. It is a pytree; every method takes `[... d_in]` or `[... d_latent]`.

    Attributes:
      weights: float32 arrays by name.
    """

    weights: dict[str, Array]

    @classmethod
    def create(cls, key: Key[Typed, ""], d_in: int, d_hidden: int, d_latent: int) -> "Autoencoder":
        """Weights drawn at random. Raises ValueError where a latent cannot be divided into slots."""
        if d_latent % SLOTS:
            raise ValueError(f"truthx: d_latent={d_latent} is no multiple of the {SLOTS} slots of a truthful latent")
        slot = d_latent // SLOTS
        shapes = {
            f"{of}_{i}": shape
            for of in ("sem", "truth")
            for i, shape in enumerate([(d_in, d_hidden), (d_hidden, d_latent)])
        }
        shapes |= {
            "query": (d_latent, slot),
            "key": (SLOTS, slot, slot),
            "value": (SLOTS, slot, slot),
            "out": (slot, d_latent),
        }
        shapes |= {"dec_0": (d_latent, d_hidden), "dec_1": (d_hidden, d_in)}
        keys = jax.random.split(key, len(shapes))
        weights = {
            name: jax.random.normal(k, shape) / np.sqrt(shape[-2])
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        biases = {f"{name}_b": jnp.zeros(shape[-1]) for name, shape in shapes.items() if name[-1].isdigit()}
        return cls(weights | biases)

    def _layer(self, name: str, x: Array) -> Array:
        return x @ self.weights[name] + self.weights[f"{name}_b"]

    def _encoder(self, of: str, x: Array) -> Array:
        for i in range(2):
            x = jax.nn.leaky_relu(_normed(self._layer(f"{of}_{i}", x)))
        return x

    def semantic(self, x: Array) -> Array:
        """What a value is about, `[... d_latent]`."""
        return self._encoder("sem", x)

    def truthful(self, x: Array) -> Array:
        """How truthful it is, `[... d_latent]` of unit norm."""
        return unit(self._encoder("truth", x))

    def decode(self, semantic: Array, truthful: Array) -> Array:
        """The value `[... d_in]` of two latents: the semantic one asks, the slots of the truthful one answer."""
        w = self.weights
        slots = truthful.reshape(*truthful.shape[:-1], SLOTS, -1)
        keys, values = (jnp.einsum("...sd,sde->...se", slots, w[name]) for name in ("key", "value"))
        scores = jnp.einsum("...e,...se->...s", semantic @ w["query"], keys) / np.sqrt(keys.shape[-1])
        read = jnp.einsum("...s,...se->...e", jax.nn.softmax(scores), values)
        return self._layer("dec_1", jax.nn.leaky_relu(_normed(self._layer("dec_0", semantic + read @ w["out"]))))

    def __call__(self, x: Array) -> Array:
        return self.decode(self.semantic(x), self.truthful(x))


def loss(
    model: Autoencoder, positive: Array, negative: Array, temperature: Any = 0.1
) -> tuple[Array, dict[str, Array]]:
    """What an autoencoder is trained by, and its parts by name.

    Args:
      model: the autoencoder.
      positive, negative: `[pair d_in]`, truthful and untruthful values of the same content in the same row.
      temperature: of the contrasts, whose similarities are cosines.
    """
    sides = positive, negative
    sem, truth = ([encode(x) for x in sides] for encode in (model.semantic, model.truthful))
    parts = {"reconstruct": sum(_mse(model.decode(s, t), x) for s, t, x in zip(sem, truth, sides, strict=True))}
    # in the truthful space a side is alike, whatever it is about
    parts["truthful"] = sum(
        _contrast(_cosines(truth[i], truth[i]), _cosines(truth[i], truth[1 - i]), temperature) for i in range(2)
    )
    # in the semantic space a pair is alike, and other contents differ
    others = jnp.eye(len(positive), dtype=bool)
    parts["semantic"] = sum(
        _contrast(
            jnp.diagonal(_cosines(sem[i], sem[1 - i]))[:, None],
            jnp.where(others, -jnp.inf, _cosines(sem[i], sem[i])),
            temperature,
        )
        for i in range(2)
    )
    parts["edit"] = sum(_mse(model.decode(sem[i], truth[1 - i]), sides[1 - i]) for i in range(2))
    return sum(parts.values()), parts  # type: ignore[return-value]


def _contrast(alike: Array, apart: Array, temperature: Any) -> Array:
    """-log of the share that the similarities `[row n]` to what is alike have of all."""
    near = jax.nn.logsumexp(alike / temperature, axis=-1)
    return (jnp.logaddexp(near, jax.nn.logsumexp(apart / temperature, axis=-1)) - near).mean()


def _mse(a: Array, b: Array) -> Array:
    return jnp.square(a - b).mean()


def _normed(x: Array) -> Array:
    """At mean 0 and variance 1 over the last axis."""
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)


def unit(x: Array) -> Array:
    """At unit norm over the last axis."""
    return x * lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)


def _cosines(a: Array, b: Array) -> Array:
    return unit(a) @ unit(b).T
