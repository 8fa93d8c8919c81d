"""The Jacobian lens: what a residual stream adds, on average, to all that the model is going to say.

    J_l = E over texts [ mean over t of  sum over t' >= t of  d h_final,t' / d h_l,t ]
    lens_l(h) = unembed(norm(J_l h))

Gurnee et al. 2026, "Verbalizable representations form a global workspace in language models",
https://transformer-circuits.pub/2026/workspace. As there, the first 16 positions of a text, where attention sinks
stand, and the last one, which predicts nothing, count neither as t nor as t'. A model is causal, so the sum over t' is
one backward pass from a basis vector at every position, and gives one row of J_l of all layers: d_model passes a text.
Caveat: an average over texts of a slope, which is no more than the first order of what the model does in one of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
import math
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float

from interp_jax.core import Context, Intervention, capture, find, intervene, of_visit, transform
from interp_jax.lens.reading import Lens, check_sizes
from interp_jax.runs import check_counts, in_chunks

TOKENS = 2048  # that a backward pass has at once where the caller says nothing


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["J", "n_texts", "n_positions"],
    meta_fields=["eps", "centred", "capped"],
)
@dataclass(frozen=True)
class JacobianLens(Lens):
    """A Jacobian lens: for each layer the mean slope of the last residual stream. It is a pytree.

    Attributes:
      J: float32 `[layer d_model d_model]`; a column is what a unit of the layer's stream makes of the last one.
      n_texts: int32 `[]`, of how many texts J is the mean.
      n_positions: int32 `[]`, at how many positions of them slopes were taken.
      eps, centred: of the model's final norm, as in `logit_lens`.
      capped: whether logits are those after the model's cap, if it has one, as in `logit_lens`.

    Example:
      >>> import jax, interp_jax as ij
      >>> from interp_jax import lens, models
      >>> model, _ = models.load("microworld")
      >>> texts = jax.random.randint(jax.random.key(0), (2, 1, 20), 0, 641)
      >>> start = lens.JacobianLens.create(model.config.d_model, model.config.n_layers, eps=model.config.norm_eps)
      >>> jacobian = lens.fit_jacobian(start, models.forward, model, texts)
      >>> acts = ij.capture(models.forward, "blocks.resid_pre", output=False)(model, texts[0])
      >>> jacobian(models.weights(model), acts["blocks.resid_pre"]).shape, int(jacobian.n_positions)
      ((4, 1, 20, 641), 6)
    """

    J: Any
    n_texts: Any
    n_positions: Any
    eps: float
    centred: bool | None
    capped: bool = False

    @classmethod
    def create(
        cls, d_model: int, n_layers: int, *, eps: float = 1e-5, centred: bool | None = None, capped: bool = False
    ) -> "JacobianLens":
        """The lens of no text, from which `fit_jacobian` starts. Its J is the identity: the logit lens.

        Args:
          d_model, n_layers: sizes of the model.
          eps: of its final norm, `model.config.norm_eps`.
          centred: whether that norm subtracts the mean; None: if it has a bias.
          capped: take logits after the model's cap, if it has one, as the model gives them.

        Raises:
          ValueError: a size below 1.
        """
        check_sizes("JacobianLens", d_model, n_layers)
        J = jnp.broadcast_to(jnp.eye(d_model), (n_layers, d_model, d_model))
        return cls(J, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), eps, centred, capped)

    @property
    def sizes(self) -> tuple[int, int]:
        """Its numbers of layers and of d_model."""
        n_layers, d_model, _ = self.J.shape
        return n_layers, d_model

    def translate(self, resid: Float[Typed, "layer *axes d_model"]) -> Float[Typed, "layer *axes d_model"]:
        """Carries the residual stream of each layer to the last one, in float32: `J h`.

        Raises:
          ValueError: `resid` is not `[layer ... d_model]` of this lens, such as a capture of one layer.
        """
        self.check(resid)
        return jnp.einsum("lnm,l...m->l...n", self.J, resid.astype(jnp.float32))


def fit_jacobian(
    lens: JacobianLens,
    f: Callable[..., Any],
    model: Any,
    batches: Iterable[Any],
    *,
    site: str = "blocks.resid_pre",
    final: str | None = None,
    skip_first: int = 16,
    skip_last: int = 1,
    chunk: int | None = None,
    report: Callable[[JacobianLens], None] | None = None,
) -> JacobianLens:
    """Takes texts into the mean of a Jacobian lens, until there are no more.

    A batch is one forward pass and d_model backward ones, of all layers at once, in one program that is compiled once
    for each shape. On a mesh, tokens that are sharded along their batch stay so: what devices add up is J.

    Args:
      lens: from `JacobianLens.create`, or one that has seen texts, which then goes on: the rest of the texts gives the
        lens of all of them, bit for bit, also after `save` and `load`.
      f: `(model, tokens) -> anything`, a causal model with sites.
      model: a pytree, scanned or not.
      batches: int32 tokens `[batch position]`, or pairs of them and a mask, False at what does not count, such as
        padding on the right. A dictionary that `f` takes in the place of tokens is as good, for padding on the left.
      site: residual stream that the lens reads, of every layer.
      final: the residual stream `[batch position d_model]` whose slope is taken; None: `blocks.resid_post` of the last
        layer.
      skip_first, skip_last: how many positions of each text do not count at its beginning and its end, masked ones
        left out. A text that has no others is not one of `n_texts`.
      chunk: rows of J that are computed at once; None: so many that a pass has 2,048 tokens.
      report: called with the lens after each batch, to save it.

    Returns:
      The lens of all texts that it has seen.

    Raises:
      ValueError: no batch, or no position that counts in any text; an address that names no site, or one without
        layers; a lens or a mask of other sizes; a negative number of positions, or a chunk below 1.
      FloatingPointError: a slope is not finite; names the batch.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import lens
      >>> axes = ("batch", "position", "d_model")
      >>> def f(W, tokens):
      ...     h = ij.site(jnp.eye(2)[tokens], "blocks.resid_pre", layer=0, axes=axes)
      ...     return ij.site(h @ W.T, "blocks.resid_post", layer=0, axes=axes)
      >>> start, W = lens.JacobianLens.create(2, 1), jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> lens.fit_jacobian(start, f, W, jnp.ones((1, 1, 20), int)).J.tolist()
      [[[1.0, 2.0], [3.0, 4.0]]]
    """
    check_counts(chunk=chunk)
    if min(skip_first, skip_last) < 0:
        raise ValueError(f"fit_jacobian: skip_first={skip_first} and skip_last={skip_last} must not be negative")
    slopes = transform(_slopes, (site, final, skip_first, skip_last, chunk, lens.sizes), f)
    n_batches = 0
    for tokens in batches:
        tokens, mask = tokens if isinstance(tokens, tuple) else (tokens, None)
        found = slopes(model, tokens, mask)
        before = jax.device_put((lens.J, lens.n_texts, lens.n_positions), jax.tree.map(lambda x: x.sharding, found))
        (J, n_texts, n_positions), finite = _mean(before, found)  # where the texts are: a loaded lens is on one device
        lens = replace(lens, J=J, n_texts=n_texts, n_positions=n_positions)
        if not finite:
            raise FloatingPointError(
                f"fit_jacobian: batch {n_batches}: a slope is not finite; the residual stream has NaN or inf"
            )
        n_batches += 1
        if report is not None:
            report(lens)
    if not n_batches:
        raise ValueError("fit_jacobian: there is no batch; give tokens")
    if not int(lens.n_texts):
        raise ValueError(
            f"fit_jacobian: no text has a position that counts beside its first {skip_first} and last {skip_last}; "
            "give longer texts, or other skip_first= and skip_last="
        )
    return lens


Mean = tuple[Array, Array, Array]  # J, or a sum of them, [layer d_model d_model]; of how many texts and positions


@jax.jit
def _mean(before: Mean, more: Mean) -> tuple[Mean, Array]:
    """The mean with more texts in it, of which the sum is given; and whether their slopes are finite."""
    (J, n_texts, n_positions), (total, more_texts, more_positions) = before, more
    n_all = n_texts + more_texts
    share = 1 / jnp.maximum(n_all, 1).astype(jnp.float32)
    new = J * (n_texts.astype(jnp.float32) * share) + total * share
    new = jnp.where(more_texts > 0, new, J)
    return (new, n_all, n_positions + more_positions), jnp.isfinite(total).all()


def _slopes(options: Any, f: Any, model: Any, tokens: Any, mask: Any) -> Mean:
    """The sum over texts of their J `[layer d_model d_model]`, and how many texts and positions these are."""
    site, final, skip_first, skip_last, chunk, sizes = options
    _check_site(f, site, sizes, model, tokens)
    if final is None:
        (info,) = find(f, "blocks.resid_post", model, tokens).values()
        final = f"blocks.{max(info.layers or (0,))}.resid_post"
    end = capture(f, final, output=False)

    def last(nudges: Array, share: Array) -> Array:
        return intervene(end, {site: Nudge(nudges, share)})(model, tokens)[final]

    like = end(model, tokens)[final]  # of which only the shape, and the place on a mesh, is used
    if like.shape[-1:] != sizes[1:] or like.ndim < 2:
        raise ValueError(f"fit_jacobian: {final!r} has shape {list(like.shape)}, wanted [..., position, {sizes[1]}]")
    if mask is None:
        mask = jnp.ones_like(like[..., 0], bool)
    if mask.shape != like.shape[:-1]:
        raise ValueError(
            f"fit_jacobian: a mask of shape {list(mask.shape)} for {list(like.shape[:-1])}: give [batch position]"
        )
    n = mask.sum(-1, keepdims=True)
    number = jnp.cumsum(mask, axis=-1) - 1
    counted = mask & (number >= skip_first) & (number < n - skip_last)
    n = counted.sum(-1, keepdims=True)
    share = counted.astype(jnp.float32) / jnp.maximum(n, 1).astype(jnp.float32)
    out, back = jax.vjp(partial(last, share=share), jnp.zeros(sizes, jnp.float32))

    def row(basis: Array) -> Array:
        (slope,) = back(jnp.where(counted[..., None], basis, 0).astype(out.dtype))
        return slope

    at_once = chunk or max(1, TOKENS // math.prod(mask.shape))
    rows = in_chunks(row, jnp.eye(sizes[1]), at_once)  # [d_model layer d_model]
    return jnp.moveaxis(rows, 0, 1), (n > 0).sum(), n.sum()


@partial(jax.tree_util.register_dataclass, data_fields=["nudges", "share"], meta_fields=[])
@dataclass(frozen=True)
class Nudge(Intervention):
    """Adds one vector a layer `[layer d_model]` at every position, in its share `[batch position]`.

    Its slope is the mean over positions that a lens needs: slopes at every position are never held together.
    """

    nudges: Any
    share: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        nudge = of_visit(self.nudges, ctx)
        return (value.astype(jnp.float32) + self.share[..., None] * nudge).astype(value.dtype)


def _check_site(f: Any, site: str, sizes: tuple[int, int], model: Any, tokens: Any) -> None:
    """Raises ValueError where the lens does not fit the site."""
    found = find(f, site, model, tokens)
    if len(found) > 1:
        raise ValueError(f"fit_jacobian: site={site!r} names {len(found)} sites, a lens reads one")
    (info,) = found.values()
    if info.layers is None:
        raise ValueError(f"fit_jacobian: site={site!r} is not of every layer: give a residual stream without a number")
    if (len(info.layers), info.shape[-1]) != sizes:
        raise ValueError(
            f"fit_jacobian: a lens of {sizes[0]} layers of {sizes[1]}, but {site!r} has {len(info.layers)} of "
            f"{info.shape[-1]}: JacobianLens.create(d_model, n_layers)"
        )
