"""TruthX: an autoencoder with a semantic and a truthful latent space, and an edit along the truthful one alone.

    δ = mean h_truth of truthful x - mean h_truth of untruthful x,  of each layer
    x + s (Dec(h_sem, h_truth + δ) - Dec(h_sem, h_truth - δ)),  both at unit norm; s < 0 makes a model tell less truth

Zhang, Yu and Feng 2024, "TruthX: alleviating hallucinations by editing large language models in truthful space",
arXiv:2402.17811. One autoencoder serves all layers of attention's and the MLPs' outputs, and the layers whose truthful
space tells the sides apart best are edited. Departures: the authors' queries attend to the truthful latents of all
tokens in a batch, so that an edit depends on what else is run and on tokens to come; here a token's query attends to
the slots into which its own latent is divided. And each layer's values are divided by their root mean square.
Caveat: what else tells the sides apart is in δ too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import ArrayLike, Float, Key
import numpy as np
import optax

from interp_jax.core import Context, Intervention, check_kind
from interp_jax.interventions.registration import pytree
from interp_jax.steering.truthful_space import Autoencoder, loss, unit

Pairs = Mapping[str, Float[ArrayLike, "layer pair d_model"]]
HELD_OUT = 0.2  # of the pairs, by which layers are ranked


@partial(
    jax.tree_util.register_dataclass, data_fields=["autoencoder", "delta", "scale", "accuracy"], meta_fields=["sites"]
)
@dataclass(frozen=True)
class TruthX:
    """A trained autoencoder, and of every layer of every site the direction of truth. It is a pytree.

    Attributes:
      autoencoder: of values at a root mean square of 1.
      delta: float32 `[row d_latent]`; the layers of one site after those of another.
      scale: float32 `[row]`, the root mean square of a layer's values.
      accuracy: float32 `[row]`, of held-out values the share that is nearer to the mean of its own side.
      sites: (address, number of layers) of each site.
    """

    autoencoder: Autoencoder
    delta: Array
    scale: Array
    accuracy: Array
    sites: tuple[tuple[str, int], ...]

    def best(self, n: int) -> dict[str, tuple[int, ...]]:
        """The `n` places of the highest accuracy: address -> its layers. Raises ValueError for more than there are."""
        if isinstance(self.accuracy, jax.core.Tracer):
            raise ValueError(
                "truthx: which layers are edited is chosen when the edits are made, not in jit: pass edits"
            )
        if not 1 <= n <= len(self.accuracy):
            raise ValueError(f"truthx: best({n}) of {len(self.accuracy)} layers of all sites")
        chosen = set(np.argsort(-np.asarray(self.accuracy), kind="stable")[:n].tolist())
        found, start = {}, 0
        for site, n_layers in self.sites:
            layers = tuple(i for i in range(n_layers) if start + i in chosen)
            found, start = found | ({site: layers} if layers else {}), start + n_layers
        return found

    def edits(self, strength: Any = 1.0, *, n: int = 10) -> dict[str, Intervention]:
        """The interventions for `ij.intervene`, by address: `n` layers made more truthful, or less, below 0.

        Args:
          strength: one number, which may be traced and mapped over; 0 changes nothing. The paper has 1 for texts that
            are generated, and 4.5 for multiple choice.
          n: how many of the most accurate layers are edited, 10 in the paper.

        Raises:
          ValueError: a strength that is not finite or not one number, more layers than there are; (when applied) a site
            of another width.
        """
        if np.ndim(strength) or (not isinstance(strength, jax.core.Tracer) and not np.isfinite(strength)):
            raise ValueError(f"truthx: strength={strength!r:.40} is not one finite number")
        made: dict[str, Intervention] = {}
        starts = dict(zip((site for site, _ in self.sites), np.cumsum([0, *(k for _, k in self.sites)]), strict=False))
        for site, layers in self.best(n).items():
            rows = np.array([starts[site] + layer for layer in layers])
            arrays = self.autoencoder, self.delta[rows], self.scale[rows], jnp.asarray(strength, jnp.float32)
            made[site] = _Truthful(*arrays, layers)
        return made


@pytree(data=("autoencoder", "delta", "scale", "strength"), static=("layers",))
class _Truthful(Intervention):
    autoencoder: Any
    delta: Any
    scale: Any
    strength: Any
    layers: tuple[int, ...]

    def look(self, value: Array, ctx: Context) -> None:
        check_kind(self.delta, value, ctx)
        width = self.autoencoder.weights["sem_0"].shape[0]
        if value.shape[-1] != width or not set(self.layers) <= set(ctx.layers):
            raise ValueError(
                f"truthx: made of values of width {width} at layers {self.layers}; site {ctx.name!r} has values "
                f"{list(value.shape)} and {len(ctx.layers)} layers: it was made at another site or of another model"
            )

    def __call__(self, value: Array, ctx: Context) -> Array:
        self.look(value, ctx)
        if isinstance(ctx.layer, int):
            return self._moved(value, self.layers.index(ctx.layer)) if ctx.layer in self.layers else value
        hits = jnp.asarray(self.layers) == ctx.layer
        return jnp.where(hits.any(), self._moved(value, hits.argmax()), value)

    def _moved(self, value: Array, row: Any) -> Array:
        wide = value.astype(jnp.float32)
        delta, scale = (jnp.take(x, row, axis=0) for x in (self.delta, self.scale))
        model, x = self.autoencoder, wide / scale
        sem, truth = model.semantic(x), model.truthful(x)
        change = model.decode(sem, unit(truth + delta)) - model.decode(sem, unit(truth - delta))
        return (wide + self.strength * scale * change).astype(value.dtype)


def train(
    key: Key[Typed, ""],
    positive: Pairs,
    negative: Pairs,
    *,
    d_hidden: int = 256,
    d_latent: int = 128,
    n_steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    temperature: float = 0.1,
) -> TruthX:
    """Trains the autoencoder on all layers of some sites, and finds the direction of truth of each layer.

    Args:
      key: a `jax.random.key`.
      positive, negative: address -> `[layer pair d_model]`: what the layers give at a token of truthful and of
        untruthful answers, such as {"blocks.attn_out": ..., "blocks.mlp_out": ...}; two of a pair in the same row. The
        last fifth of the pairs ranks the layers and trains nothing.
      d_hidden, d_latent: widths of the hidden layers and of both latents; 2048 and 1024 in the paper.
      n_steps, batch_size, learning_rate: of AdamW; every batch is of one layer.
      temperature: of the contrasts.

    Raises:
      ValueError: sides of other sites or shapes, fewer than ten pairs, values that are not finite.

    Example:
      >>> import jax
      >>> from interp_jax.steering import truthx
      >>> x = jax.random.normal(jax.random.key(0), (2, 20, 16))
      >>> sides = {"blocks.mlp_out": x + 1.0}, {"blocks.mlp_out": x - 1.0}
      >>> made = truthx.train(jax.random.key(1), *sides, d_hidden=32, d_latent=16, n_steps=50)
      >>> made.best(2), made.delta.shape
      ({'blocks.mlp_out': (0, 1)}, (2, 16))
    """
    x, sites = _stacked(positive, negative)
    n_pairs = x.shape[2]
    held = max(2, round(HELD_OUT * n_pairs))
    kept, tested = x[:, :, :-held], x[:, :, -held:]
    scale = jnp.sqrt((kept * kept).mean((0, 2, 3)))
    scale = jnp.where(scale > 0, scale, 1)
    kept, tested = (part / scale[:, None, None] for part in (kept, tested))
    first, second = jax.random.split(key)
    model = Autoencoder.create(first, x.shape[-1], d_hidden, d_latent)
    model = _fitted(second, model, kept, n_steps, min(batch_size, kept.shape[2]), learning_rate, temperature)
    truth = model.truthful(kept)  # [side row pair d_latent]
    centres = truth.mean(2)
    near = jnp.einsum("srpd,crd->srpc", model.truthful(tested), unit(centres)).argmax(-1)
    accuracy = (near == jnp.arange(2)[:, None, None]).mean((0, 2))
    return TruthX(model, centres[0] - centres[1], scale, accuracy, sites)


@partial(jax.jit, static_argnames=("n_steps", "batch_size"))
def _fitted(
    key: Array, model: Autoencoder, x: Array, n_steps: int, batch_size: int, learning_rate: Any, temperature: Any
) -> Autoencoder:
    """Trained on pairs `[side row pair d]`."""
    optimiser = optax.adamw(learning_rate)

    def step(state: Any, key: Array) -> tuple[Any, Array]:
        model, inner = state
        of, which = jax.random.split(key)
        row = jax.random.randint(of, (), 0, x.shape[1])
        chosen = jax.random.permutation(which, x.shape[2])[:batch_size]
        positive, negative = jnp.take(x, row, axis=1)[:, chosen]
        slope, parts = jax.grad(loss, has_aux=True)(model, positive, negative, temperature)
        with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
            change, inner = optimiser.update(slope, inner, model)
            return (optax.apply_updates(model, change), inner), parts["reconstruct"]

    (model, _), _ = lax.scan(step, (model, optimiser.init(model)), jax.random.split(key, n_steps))  # type: ignore[arg-type]
    return model


def _stacked(positive: Pairs, negative: Pairs) -> tuple[Array, tuple[tuple[str, int], ...]]:
    """Both sides `[side row pair d]`, and the layers of each site."""
    shapes = [{site: jnp.shape(x) for site, x in side.items()} for side in (positive, negative)]
    if shapes[0] != shapes[1] or not shapes[0] or any(len(shape) != 3 for shape in shapes[0].values()):
        raise ValueError(
            f"truthx: sides are of the same sites, [layer pair d_model] each, not {shapes[0]} and {shapes[1]}"
        )
    if len({shape[1:] for shape in shapes[0].values()}) > 1:
        raise ValueError(f"truthx: sites of other numbers of pairs or widths: {shapes[0]}")
    x = jnp.stack(
        [jnp.concatenate([jnp.asarray(side[s], jnp.float32) for s in shapes[0]]) for side in (positive, negative)]
    )
    if x.shape[2] < 10:
        raise ValueError(f"truthx: {x.shape[2]} pairs; ten at least, since a fifth only ranks the layers")
    if not bool(jnp.isfinite(x).all()):
        raise ValueError("truthx: values that are not finite")
    return x, tuple((site, shape[0]) for site, shape in shapes[0].items())
