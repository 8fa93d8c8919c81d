"""TruthX: an autoencoder that keeps what is said apart from whether it is true, and edits in the space of the truth.

    s = SemEnc(x), t = TruthEnc(x) / |TruthEnc(x)|,  x' = Dec(s, t) = MLP(s + attention(s, t))
    loss = mse(x', x) + contrast of t + contrast of s + mse(Dec(s+, t-), x-) + mse(Dec(s-, t+), x+)
    delta = mean(t+) - mean(t-),  D = Dec(s, t + delta) - Dec(s, t - delta),  x <- x + alpha D

Zhang et al. 2024, "TruthX: alleviating hallucinations by editing large language models in truthful space",
arXiv:2402.17811. One autoencoder is of all layers and sites; the means are each layer's own. A contrast pulls together
truths, and falsehoods, apart from each other; and the two sides of a pair, apart from all other pairs. There is one key
to attend to, t, so that attention is a linear map of it. As in the released code, t + delta has unit norm again, layers
are Linear, LayerNorm, LeakyReLU, and "match_norm" gives D the norm of x. Ours: an example is no positive of its own;
places are brought to one size, since else the largest one's reconstruction is all that is learnt.
Caveat: it finds whatever tells the sides of its pairs apart; compare with `shuffled` pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
import itertools
import math
from typing import Any, cast

import jax
from jax import lax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Key
import numpy as np
import optax

from interp_jax.core import Context, Intervention, of_visit
from interp_jax.interventions import at
from interp_jax.interventions.registration import pytree

Array = jax.Array
Activations = Mapping[str, Any]  # site -> `[layer example d_model]`, as `capture` with a reducer gives them
Layers = tuple[tuple[Array, Array], ...]  # weights `[d_in d_out]` and biases
FORMS = ("add", "match_norm")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Autoencoder:
    """The networks. It is a pytree; all arrays are float32.

    Attributes:
      semantic, truthful: the layers of the encoders, weights `[d_in d_out]` and biases each.
      attention: `[d_latent d_latent]`, from the truthful space into the semantic one.
      decoder: the layers of the decoder.
    """

    semantic: Any  # of any type: jax rebuilds pytrees with other things than arrays in them
    truthful: Any
    attention: Any
    decoder: Any

    @classmethod
    def create(cls, key: Key[Typed, ""], d_model: int, widths: Sequence[int]) -> "Autoencoder":
        """Draws one: encoders of these widths, of which the last is that of the latent spaces, and a decoder back."""
        keys = jax.random.split(key, 4)
        semantic, truthful = (_layers(key, (d_model, *widths)) for key in keys[:2])
        attention = _weights(keys[2], widths[-1], widths[-1])
        return cls(semantic, truthful, attention, _layers(keys[3], (*reversed(widths), d_model)))

    def encode(self, x: Array) -> tuple[Array, Array]:
        """The semantic and the truthful latents `[... d_latent]` of `[... d_model]`."""
        return _run(self.semantic, x), _unit(_run(self.truthful, x))

    def decode(self, semantic: Array, truthful: Array) -> Array:
        """`[... d_model]` of both latents."""
        *hidden, (W, b) = self.decoder
        return _run(tuple(hidden), semantic + truthful @ self.attention) @ W + b


@pytree(data=("autoencoder", "delta", "scale", "strength"), static=("form",))
class _Edit(Intervention):
    autoencoder: Any
    delta: Any  # [layer d_latent], 0 where nothing is edited
    scale: Any  # [layer]
    strength: Any
    form: str

    def __call__(self, value: Array, ctx: Context) -> Array:
        width = self.autoencoder.decoder[-1][1].shape[0]
        if value.shape[-1:] != (width,) or not ctx.stack or ctx.stack[-1] != len(self.delta):
            raise ValueError(
                f"truthx: trained on {len(self.delta)} layers of width {width}, site {ctx.name!r} has "
                f"{ctx.stack[-1] if ctx.stack else 'none'} of shape {list(value.shape)}: it is of another model or site"
            )
        x, delta, scale = value.astype(jnp.float32), of_visit(self.delta, ctx), of_visit(self.scale, ctx)
        semantic, truthful = self.autoencoder.encode(x / scale)
        moved = [self.autoencoder.decode(semantic, _unit(truthful + sign * delta)) for sign in (1, -1)]
        change = scale * (moved[0] - moved[1])
        if self.form == "match_norm":
            change = _unit(change) * jnp.linalg.norm(x, axis=-1, keepdims=True)
        return (x + jnp.asarray(self.strength, jnp.float32) * change).astype(value.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TruthX:
    """An autoencoder with the means of both sides, which edits and tells. It is a pytree.

    Attributes:
      autoencoder: the networks.
      positive, negative: site -> `[layer d_latent]`, means of the truthful latents of each side.
      scale: site -> `[layer]`, the root mean square of the activations, by which they are divided before and after.
    """

    autoencoder: Any
    positive: dict[str, Any]
    negative: dict[str, Any]
    scale: dict[str, Any]

    @property
    def delta(self) -> dict[str, Array]:
        """From the negative side to the positive one, site -> `[layer d_latent]`."""
        return {site: self.positive[site] - self.negative[site] for site in self.positive}

    def tell(self, acts: Activations) -> dict[str, Array]:
        """How much nearer to the positive mean than to the negative one each example is, site -> `[layer example]`."""
        found = {}
        for site, delta in self.delta.items():
            x = jnp.asarray(acts[site], jnp.float32) / self.scale[site][:, None, None]
            truthful = self.autoencoder.encode(x)[1]
            middle = (self.positive[site] + self.negative[site]) / 2
            found[site] = jnp.einsum("lnd,ld->ln", truthful - middle[:, None], delta, precision="highest")
        return found

    def edits(
        self, strength: Any = 1.0, *, where: Mapping[str, Any] | None = None, form: str = "add", position: Any = None
    ) -> dict[str, Intervention]:
        """The edits by address: truthful at a positive strength, untruthful at a negative one.

        Args:
          strength: alpha, one number, which may be traced.
          where: site -> bool `[layer]`, the layers that are edited; None: all.
          form: "add", the paper's x + alpha D, or "match_norm": D has the norm of x at each position.
          position: as in `interventions.at`. None: everywhere.

        Raises:
          ValueError: an unknown form, several strengths or one that is not finite, other sites or layers in `where`;
            (when applied) a site of another width or of another number of layers.
        """
        if form not in FORMS:
            raise ValueError(f"truthx: form={form!r} is none of {', '.join(FORMS)}")
        if np.ndim(strength) or not (isinstance(strength, jax.core.Tracer) or math.isfinite(float(strength))):
            raise ValueError(f"truthx: strength={strength!s:.40}: give one finite number")
        chosen = where or {site: np.ones(len(delta), bool) for site, delta in self.delta.items()}
        shapes = {site: np.shape(rows) for site, rows in chosen.items()}
        if shapes != {site: delta.shape[:1] for site, delta in self.delta.items()}:
            raise ValueError(f"truthx: where= of {shapes}: give [layer] for each site of {', '.join(self.delta)}")
        edits = {}
        for site, delta in self.delta.items():
            here = jnp.where(jnp.asarray(chosen[site], bool)[:, None], delta, 0)
            edit = _Edit(self.autoencoder, here, self.scale[site], jnp.asarray(strength, jnp.float32), form)
            edits[site] = edit if position is None else at(edit, position=position)
        return edits


def truthx_loss(
    autoencoder: Autoencoder, positive: Array, negative: Array, temperature: Any = 0.1
) -> tuple[Array, dict[str, Array]]:
    """The loss of pairs of one layer, and its four parts.

    Args:
      autoencoder: of any width.
      positive, negative: float32 `[pair d_model]`, the two of a pair in the same place; two pairs at least.
      temperature: of the contrasts.

    Returns:
      float32 `[]`, and "reconstruction", "truth", "meaning" and "editing", which add up to it.
    """
    sides = positive, negative
    (s_pos, t_pos), (s_neg, t_neg) = (autoencoder.encode(x) for x in sides)
    same = jnp.eye(len(positive), dtype=bool)
    truth = _contrast(t_pos, t_neg, ~same, jnp.zeros_like(same), temperature)
    # The one positive is the other side of the pair, and the example itself counts on neither side.
    meaning = _contrast(s_pos, s_neg, jnp.zeros_like(same), same, temperature)
    parts = {
        "reconstruction": _mse(autoencoder.decode(s_pos, t_pos), positive)
        + _mse(autoencoder.decode(s_neg, t_neg), negative),
        "truth": truth,
        "meaning": meaning,
        "editing": _mse(autoencoder.decode(s_pos, t_neg), negative) + _mse(autoencoder.decode(s_neg, t_pos), positive),
    }
    return sum(parts.values(), jnp.zeros(())), parts


def train_truthx(
    key: Key[Typed, ""],
    positive: Activations,
    negative: Activations,
    *,
    widths: Sequence[int],
    n_steps: int = 1000,
    n_pairs: int = 64,
    learning_rate: float = 1e-3,
    temperature: float = 0.1,
) -> tuple[TruthX, dict[str, Array]]:
    """Trains an autoencoder on pairs of activations, by Adam, in one compiled call.

    Args:
      key: a `jax.random.key`.
      positive, negative: site -> `[layer pair d_model]` of any float dtype, two of each pair in the same place.
      widths: of the encoders' layers, the last that of the latent spaces; 2048 and 1024 in the paper, of
        a d_model of 4096.
      n_steps, n_pairs: steps, and the pairs of each, which are the same at every layer.
      learning_rate: of Adam.
      temperature: of the contrasts.

    Returns:
      It, and the four parts of the loss by step, `[step]` each.

    Raises:
      ValueError: sides of other sites or shapes, sites of different widths, fewer than two pairs.

    Example:
      >>> import jax
      >>> from interp_jax import steering
      >>> x = jax.random.normal(jax.random.key(0), (1, 32, 4))
      >>> sides = ({"blocks.attn_out": x + sign} for sign in (1, -1))
      >>> truthx, losses = steering.train_truthx(jax.random.key(1), *sides, widths=(8, 4), n_steps=60, n_pairs=16)
      >>> bool((truthx.tell({"blocks.attn_out": x + 1})["blocks.attn_out"] > 0).mean() > 0.9)
      True
    """
    sides = [{site: jnp.asarray(x, jnp.float32) for site, x in side.items()} for side in (positive, negative)]
    shapes = [{site: x.shape for site, x in side.items()} for side in sides]
    alike = {(len(shape), *shape[1:]) for shape in shapes[0].values()}
    if shapes[0] != shapes[1] or len(alike) != 1 or len(next(iter(alike))) != 3 or next(iter(alike))[1] < 2:
        raise ValueError(
            f"train_truthx: positive {shapes[0]}, negative {shapes[1]}: give [layer pair d_model] of the same sites, "
            "with two pairs or more"
        )
    scale = {site: jnp.sqrt(sum(jnp.square(side[site]).mean((1, 2)) for side in sides) / 2) for site in sides[0]}
    scale = {site: jnp.where(size == 0, 1, size) for site, size in scale.items()}
    sides = [{site: x / scale[site][:, None, None] for site, x in side.items()} for side in sides]
    stacks = [jnp.concatenate(list(side.values())) for side in sides]
    begun, drawn = jax.random.split(key)
    autoencoder = Autoencoder.create(begun, stacks[0].shape[-1], widths)
    trained, losses = _train(
        autoencoder, jax.random.split(drawn, n_steps), *stacks, learning_rate, temperature, n_pairs=n_pairs
    )
    positive, negative = ({site: trained.encode(x)[1].mean(1) for site, x in side.items()} for side in sides)
    return TruthX(trained, positive, negative, scale), losses


@partial(jax.jit, static_argnames="n_pairs")
def _train(
    autoencoder: Autoencoder,
    keys: Array,
    positive: Array,
    negative: Array,
    rate: Any,
    temperature: Any,
    *,
    n_pairs: int,
) -> tuple[Autoencoder, dict[str, Array]]:
    optimizer = optax.adam(rate)

    def loss(autoencoder: Autoencoder, rows: Array) -> tuple[Array, dict[str, Array]]:
        each = jax.vmap(lambda a, b: truthx_loss(autoencoder, a[rows], b[rows], temperature))
        total, parts = each(positive, negative)
        return total.mean(), {name: part.mean() for name, part in parts.items()}

    def step(carry: Any, key: Array) -> Any:
        params, state = carry
        rows = jax.random.permutation(key, positive.shape[1])[:n_pairs]
        grads, parts = jax.grad(loss, has_aux=True)(params, rows)
        with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
            updates, state = optimizer.update(grads, state, None)
            moved = optax.apply_updates(cast(Any, params), updates)
            return (moved, state), parts

    (autoencoder, _), losses = lax.scan(step, (autoencoder, optimizer.init(autoencoder)), keys)
    return autoencoder, losses


def _contrast(a: Array, b: Array, within: Array, across: Array, temperature: Any) -> Array:
    """-log of the share of exp(cosine / temperature) that goes to the positives, bool `[row row]` of one's own side and
    of the other, of all but the example itself; the mean over both sides, added up."""
    a, b, total = _unit(a), _unit(b), jnp.zeros(())
    itself = jnp.eye(len(a), dtype=bool)
    for mine, other in ((a, b), (b, a)):
        own, others = mine @ mine.T / temperature, mine @ other.T / temperature
        scores = jnp.concatenate([jnp.where(itself, -jnp.inf, own), others], axis=1)
        wanted = jnp.concatenate([within, across], axis=1)
        right = jax.nn.logsumexp(scores, axis=1, where=wanted)
        total = total + (jax.nn.logsumexp(scores, axis=1) - right).mean()
    return total


def _run(layers: Layers, x: Array) -> Array:
    for W, b in layers:
        x = x @ W + b
        x = x - x.mean(-1, keepdims=True)
        x = jax.nn.leaky_relu(x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5))
    return x


def _layers(key: Array, sizes: Sequence[int]) -> Layers:
    ends = list(itertools.pairwise(sizes))
    keys = jax.random.split(key, len(ends))
    return tuple((_weights(key, *both), jnp.zeros(both[1])) for key, both in zip(keys, ends, strict=True))


def _weights(key: Array, d_in: int, d_out: int) -> Array:
    return jax.random.normal(key, (d_in, d_out)) / jnp.sqrt(jnp.float32(d_in))


def _mse(a: Array, b: Array) -> Array:
    return jnp.square(a - b).mean()


def _unit(x: Array) -> Array:
    """At unit norm, with a derivative at 0 too, where it stays 0."""
    square = (x * x).sum(-1, keepdims=True)
    return x * lax.rsqrt(jnp.where(square == 0, 1, square))
