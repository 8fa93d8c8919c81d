"""How well a dictionary stands in for the activations it was trained on, inside the model.

    ce_recovered = (ce_mean_ablated - ce_spliced) / (ce_mean_ablated - ce_clean)
    fvu = sum |x - x'|^2 / sum |x - mean(x)|^2,    explained_variance = 1 - fvu

ce: mean cross-entropy of the next token, in nats. Bricken et al. 2023, Towards Monosemanticity; Gao et al. 2024.
Caveat: `ce_recovered` depends on what it is measured against; mean ablation is the stricter of the two usual ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Int
import numpy as np
import optax

from interp_jax.core import capture, intervene
from interp_jax.dictionaries.splicing import splice
from interp_jax.interventions import at, replace, zero


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; plain numbers.

    Attributes:
      ce_clean, ce_spliced, ce_mean_ablated, ce_zero_ablated: mean cross-entropies, in nats.
      ce_recovered: share of what mean ablation loses that the splice keeps.
      fvu: fraction of variance unexplained.
      l0: mean number of active features.
      dead: share of the features that never fire on these tokens.
      n_tokens: how many tokens were used.
    """

    ce_clean: float
    ce_spliced: float
    ce_mean_ablated: float
    ce_zero_ablated: float
    ce_recovered: float
    fvu: float
    l0: float
    dead: float
    n_tokens: int

    @property
    def explained_variance(self) -> float:
        return 1.0 - self.fvu


def evaluate(
    f: Callable[[Any, Array], Array],
    where: str,
    dictionary: Any,
    model: Any,
    tokens: Int[Array | np.ndarray, "batch position"],
    *,
    mask: Bool[Array | np.ndarray, "batch position"] | None = None,
    batch_size: int = 16,
) -> Evaluation:
    """Runs the model clean, with the dictionary spliced in, and with the site ablated.

    Args:
      f: `(model, tokens [batch position]) -> logits [batch position d_vocab]`.
      where: address of the one site the dictionary belongs to, such as `"blocks.2.resid_post"`.
      dictionary: takes the site's values `[batch position d_in]`.
      model: a pytree.
      tokens: `[batch position]`.
      mask: `[batch position]`, False at padding and special tokens: they are neither spliced, ablated, nor scored.
      batch_size: sequences that run at once.

    Returns:
      An `Evaluation`.

    Raises:
      ValueError: the site's values are not `[batch position d_in]`, or the address names no site (near names follow).

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> W = jax.random.normal(jax.random.key(0), (10, 8))
      >>> f = lambda W, tokens: ij.site(W[tokens], "resid", axes=("batch", "position", "d_model")) @ W.T
      >>> dictionary = dictionaries.TopK.create(jax.random.key(1), d_in=8, d_sae=32, k=8)
      >>> tokens = jax.random.randint(jax.random.key(2), (4, 6), 0, 10)
      >>> dictionaries.evaluate(f, "resid", dictionary, W, tokens).n_tokens
      24
    """
    tokens = jnp.asarray(tokens)
    mask = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask)
    sums = _mean_sums(f, where)
    total, count = jnp.zeros(dictionary.d_in), 0
    chunks = [(tokens[i : i + batch_size], mask[i : i + batch_size]) for i in range(0, len(tokens), batch_size)]
    for chunk, real in chunks:
        total, count = total + sums(model, chunk, real), count + int(real.sum())
    mean = total / count

    step = _scores(f, where)
    results = [step(model, dictionary, mean, chunk, real) for chunk, real in chunks]
    scores = {name: jnp.sum(jnp.stack([r[name] for r in results]), axis=0) for name in results[0]}
    ce = {name: float(scores[name] / scores["n_targets"]) for name in ("clean", "spliced", "mean", "zero")}
    return Evaluation(
        ce_clean=ce["clean"],
        ce_spliced=ce["spliced"],
        ce_mean_ablated=ce["mean"],
        ce_zero_ablated=ce["zero"],
        ce_recovered=(ce["mean"] - ce["spliced"]) / (ce["mean"] - ce["clean"]),
        fvu=float(scores["error"] / scores["variance"]),
        l0=float(jnp.sum(scores["fired"]) / count),
        dead=float(jnp.mean((scores["fired"] == 0).astype(jnp.float32))),
        n_tokens=count,
    )


def _mean_sums(f: Callable[..., Array], where: str) -> Callable[..., Array]:
    read = capture(f, where, output=False)

    @jax.jit
    def sums(model: Any, tokens: Array, real: Array) -> Array:
        x = read(model, tokens)[where]
        if x.shape[:-1] != tokens.shape:
            raise ValueError(
                f"evaluate: {where!r} gives {tuple(x.shape)} for tokens {tuple(tokens.shape)}, not one vector for each "
                "token; name one layer of a site whose axes are batch, position and d_model"
            )
        return jnp.sum(jnp.where(real[..., None], x.astype(jnp.float32), 0.0), axis=(0, 1))

    return sums


def _scores(f: Callable[..., Array], where: str) -> Callable[..., dict[str, Array]]:
    @jax.jit
    def scores(model: Any, dictionary: Any, mean: Array, tokens: Array, real: Array) -> dict[str, Array]:
        clean, captured = capture(f, where)(model, tokens)
        x = captured[where]
        edits = {
            "spliced": splice(dictionary, keep_error=False),
            "mean": replace(jnp.broadcast_to(mean.astype(x.dtype), x.shape)),
            "zero": zero(),
        }
        logits = {"clean": clean}
        for name, edit in edits.items():
            logits[name] = intervene(f, {where: at(edit, mask=real)})(model, tokens)
        scored = real[:, 1:] & real[:, :-1]
        out = {}
        for name, value in logits.items():
            ce = optax.softmax_cross_entropy_with_integer_labels(value[:, :-1].astype(jnp.float32), tokens[:, 1:])
            out[name] = jnp.sum(jnp.where(scored, ce, 0.0))
        features = jnp.where(real[..., None], dictionary.encode(x), 0.0)
        exact = x.astype(jnp.float32)
        out["n_targets"] = jnp.sum(scored).astype(jnp.float32)
        out["error"] = jnp.sum(
            jnp.where(real[..., None], dictionary.decode(features).astype(jnp.float32) - exact, 0.0) ** 2
        )
        out["variance"] = jnp.sum(jnp.where(real[..., None], exact - mean, 0.0) ** 2)
        out["fired"] = jnp.sum(features != 0, axis=(0, 1), dtype=jnp.float32)
        return out

    return scores
