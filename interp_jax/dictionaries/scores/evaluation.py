"""How well a dictionary stands in for the activations it was trained on, inside the model.

    ce_recovered = (ce_mean_ablated - ce_spliced) / (ce_mean_ablated - ce_clean),    kl = KL(clean || run)
    fvu = sum |x - x'|^2 / sum |x - mean(x)|^2,    explained_variance = 1 - fvu

Bricken et al. 2023, Towards Monosemanticity; Gao et al. 2024, https://arxiv.org/abs/2406.04093; the report of
SAEBench, Karvonen et al. 2025, https://arxiv.org/abs/2503.09532, is `Evaluation.saebench`.
Caveat: `ce_recovered` depends on what it is measured against; mean ablation is the stricter of the two usual ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
import math
from typing import Any
import warnings

from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np
import optax

from interp_jax import metrics
from interp_jax.core import capture, intervene, transform
from interp_jax.dictionaries.activations import check_numbers
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.scores import saebench
from interp_jax.dictionaries.scores.comparison import nearest
from interp_jax.dictionaries.scores.saebench import ratio
from interp_jax.dictionaries.splicing import splice
from interp_jax.interventions import at, replace, zero
from interp_jax.masking import attending, counted, sequences, skipped


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found; plain numbers but for `density`. x is what is reconstructed, x' the reconstruction.

    Attributes:
      ce_clean, ce_spliced, ce_mean_ablated, ce_zero_ablated: mean cross-entropies of the next token, in nats.
      ce_recovered, ce_recovered_zero: share of what mean (zero) ablation loses that the splice keeps; NaN where that
        is nothing.
      kl_spliced, kl_mean_ablated, kl_zero_ablated: mean KL(clean || run) of the predictions at every token, in nats.
      fvu: fraction of variance unexplained.
      explained_variance_legacy: mean over tokens of 1 - |x - x'|^2 / |x - mean(x)|^2.
      mse: mean of |x - x'|^2, summed over the axes of x.
      cosine: mean cosine of x and x', 0 where either is zero.
      l2_norm_in, l2_norm_out, l2_ratio: means of |x|, of |x'| and of |x'| / |x|.
      relative_reconstruction_bias: mean |x'|^2 / mean x.x', below 1 where features shrink (Rajamanoharan et al. 2024,
        https://arxiv.org/abs/2404.16014, equation 10).
      l0: mean number of active features.
      l1: mean sum of the features' magnitudes.
      dead: share of the features that never fire on these tokens.
      density: `[d_sae]`, share of the tokens at which each feature fires.
      max_cosine_encoder, max_cosine_decoder: mean over features of the largest cosine of their encoder column
        (decoder row) with another's.
      n_tokens: how many tokens were used.
    """

    ce_clean: float
    ce_spliced: float
    ce_mean_ablated: float
    ce_zero_ablated: float
    ce_recovered: float
    ce_recovered_zero: float
    kl_spliced: float
    kl_mean_ablated: float
    kl_zero_ablated: float
    fvu: float
    explained_variance_legacy: float
    mse: float
    cosine: float
    l2_norm_in: float
    l2_norm_out: float
    l2_ratio: float
    relative_reconstruction_bias: float
    l0: float
    l1: float
    dead: float
    density: np.ndarray
    max_cosine_encoder: float
    max_cosine_decoder: float
    n_tokens: int

    @property
    def explained_variance(self) -> float:
        return 1.0 - self.fvu

    def numbers(self) -> dict[str, float | int]:
        """Every field but `density`, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "density"}

    def histogram(self, n_bins: int = 40) -> tuple[Int[np.ndarray, " n_bins"], Float[np.ndarray, " edges"]]:
        """How many features fire how often: counts, and the n_bins + 1 edges of the bins of log10(density).

        The bins reach from the power of ten below one token in all to 0; dead features are in none of them.
        """
        lowest = -float(max(1, math.ceil(math.log10(self.n_tokens))))
        return np.histogram(np.log10(self.density[self.density > 0]), n_bins, (lowest, 0.0))

    def saebench(self) -> dict[str, dict[str, float | int]]:
        """The numbers under the names of SAEBench's core evaluation, see `dictionaries.saebench`."""
        return saebench.core(self)


def evaluate(
    f: Callable[..., Array],
    where: str | tuple[str, str] | None,
    dictionary: Dictionary,
    model: Any,
    tokens: Any,
    *,
    mask: Any = None,
    skip: Any = (),
    batch_size: int = 16,
) -> Evaluation:
    """Runs the model clean, with the dictionary spliced in, and with the site ablated.

    Args:
      f: `(model, tokens [batch position]) -> logits [batch position d_vocab]`; it sees `batch_size` sequences at once,
        the last of them made up where they do not divide. Where there is padding, it is also given the `mask`, as the
        keyword `attention_mask`, if it takes one, as `models.forward` does.
      where: address of the one site the dictionary belongs to, such as `"blocks.2.resid_post"`; a head axis is
        flattened. For a transcoder the two sites that it reads and replaces: the second is spliced, ablated and x.
        None: where the dictionary was trained, its `sites`.
      dictionary: takes the site's values `[batch position d_in]`; not of several sites at once.
      model: a pytree.
      tokens: int `[batch position]`.
      mask: bool `[batch position]`, False at padding, as `models.tokenize` gives it: the model does not attend to it.
      skip: token ids that the model attends to and that are, as padding, neither spliced, ablated, nor scored, such as
        the bos token's.
      batch_size: sequences that run at once.

    Returns:
      An `Evaluation`. A UserWarning says where the inputs are far larger or smaller than those of training: those were
      scaled, and the dictionary was not folded (`Scaling.fold`).

    Raises:
      ValueError: other sites than the dictionary's, a dictionary of several sites, one site of a pair's or a pair of
        one; the site has not one vector of the dictionary's width for each token, the address names no site (near names
        follow), a transcoder's first site comes after its second, the mask leaves nothing to predict, or has padding
        before a token and `f` takes no mask or the dictionary reads sequences, or is bound to `f` and not given here.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> W = jax.random.normal(jax.random.key(0), (10, 8))
      >>> f = lambda W, tokens: ij.site(W[tokens], "resid", axes=("batch", "position", "d_model")) @ W.T
      >>> dictionary = dictionaries.TopK.create(jax.random.key(1), d_in=8, d_sae=32, k=8)
      >>> tokens = jax.random.randint(jax.random.key(2), (4, 6), 0, 10)
      >>> scores = dictionaries.evaluate(f, "resid", dictionary, W, tokens)
      >>> scores.n_tokens, scores.density.shape, sorted(scores.saebench()["sparsity"])
      (24, (32,), ['l0', 'l1'])
    """
    sites = _sites(dictionary, where)
    check_numbers("evaluate", 1, batch_size=batch_size)
    whole: Any = sequences("evaluate", tokens, mask)
    if whole is None:
        raise ValueError("evaluate: tokens are one array, integers [batch position]")
    wanted = counted(whole[0], whole[1], skipped("evaluate", skip))
    if not (wanted[:, 1:] & wanted[:, :-1]).any():
        raise ValueError(f"evaluate: no two real tokens in a row of {whole[0].shape}; a mask is True at real tokens")
    if dictionary.reads_sequence and (whole[1][:, 1:] & ~whole[1][:, :-1]).any():
        raise ValueError("evaluate: padding before tokens, which heads would look at; pad on the right")
    options = attending("evaluate", f, whole[1])
    n, batch_size = len(wanted), min(batch_size, len(wanted))
    chunks = []
    for start in range(0, n, batch_size):
        # A whole last batch, so that one program does for all: of sequences that do not count.
        rows = np.minimum(np.arange(start, start + batch_size), n - 1)
        some, real, count_here = (part[rows] for part in (*whole, wanted))
        count_here[n - start :] = False
        chunks.append((jnp.asarray(some), options(real), jnp.asarray(count_here)))

    count = int(wanted.sum())
    # By transform, so that the dictionaries of a sweep are scored by one compiled program.
    sums = transform(_mean_sums, sites[1], f)
    mean = jnp.asarray(_total([sums(model, dictionary, *chunk) for chunk in chunks]) / count, jnp.float32)
    step = transform(_scores, sites, f)
    results = [step(model, dictionary, mean, *chunk) for chunk in chunks]
    found = {name: _total([result[name] for result in results]) for name in results[0]}
    _check_norm(dictionary, float(found["norm_read"] / count))

    ce = {name: float(found[f"ce_{name}"] / found["n_targets"]) for name in ("clean", "spliced", "mean", "zero")}
    each = {name: float(found[name] / count) for name in _MEANS}
    density = found["fired"] / count
    return Evaluation(
        ce_clean=ce["clean"],
        ce_spliced=ce["spliced"],
        ce_mean_ablated=ce["mean"],
        ce_zero_ablated=ce["zero"],
        ce_recovered=ratio(ce["mean"] - ce["spliced"], ce["mean"] - ce["clean"]),
        ce_recovered_zero=ratio(ce["zero"] - ce["spliced"], ce["zero"] - ce["clean"]),
        kl_mean_ablated=each.pop("kl_mean"),
        kl_zero_ablated=each.pop("kl_zero"),
        fvu=ratio(float(found["mse"]), float(found["variance"])),
        relative_reconstruction_bias=ratio(float(found["square_out"]), float(found["dot"])),
        l0=float(found["fired"].sum() / count),
        dead=float((density == 0).mean()),
        density=density,
        max_cosine_encoder=float(nearest(dictionary.W_enc.T, dictionary.W_enc.T, itself=False)[0].mean()),
        max_cosine_decoder=float(nearest(dictionary.W_dec, dictionary.W_dec, itself=False)[0].mean()),
        n_tokens=count,
        **each,
    )


def _sites(dictionary: Dictionary, where: Any) -> tuple[str, str]:
    """The sites that a dictionary reads and writes, checked against those that it was trained at."""
    kind, known = type(dictionary).__name__, dictionary.sites
    if dictionary.is_stacked:
        raise ValueError(
            f"evaluate: a {kind} is of several sites at once, which are not spliced together; compare dictionary(x) "
            "with x, as from harvest, or splice it"
        )
    where = known if where is None else tuple(where) if isinstance(where, list) else where
    if where is None:
        raise ValueError(f"evaluate: a {kind} of unknown sites; give where=")
    if known not in (None, where):
        raise ValueError(f"evaluate: a {kind} trained at {known!r} does not belong to {where!r}; give where=None")
    if isinstance(where, tuple) != dictionary.reads_pair or (dictionary.reads_pair and len(where) != 2):
        wanted = "the two sites that it reads and writes" if dictionary.reads_pair else "one site"
        raise ValueError(f"evaluate: where={where!r} for a {kind}; it wants {wanted}")
    return where if isinstance(where, tuple) else (where, where)


def _check_norm(dictionary: Dictionary, norm: float) -> None:
    trained = 0.0 if dictionary.mean_norm is None else float(dictionary.mean_norm)
    if trained and not 1 / FAR < norm / trained < FAR:
        told = f"inputs of mean norm {norm:.3g} for a dictionary trained on {trained:.3g}"
        warnings.warn(f"evaluate: {told}: fold the scale of training, Scaling.fold, or choose its site", stacklevel=3)


FAR = 2.0  # a ratio of norms from which on inputs are not what was trained on
_MEANS = (
    *("kl_spliced", "kl_mean", "kl_zero", "explained_variance_legacy", "mse", "cosine"),
    *("l2_norm_in", "l2_norm_out", "l2_ratio", "l1"),
)


def _total(parts: list[Array]) -> np.ndarray:
    """The sum over batches, in float64 on the host."""
    return np.asarray(np.sum([np.asarray(part, np.float64) for part in parts], axis=0))


def _vectors(captured: dict[str, Array], where: str, tokens: Array, width: int) -> Array:
    """The values of a site in float32, `[batch position width]`."""
    x = captured[where]
    if x.shape[:2] != tokens.shape or math.prod(x.shape[2:]) != width:
        raise ValueError(
            f"evaluate: {where!r} gives {tuple(x.shape)} for tokens {tuple(tokens.shape)}, not one vector of width "
            f"{width} for each token; name one layer of a site whose axes are batch, position and d_model"
        )
    return x.reshape(*tokens.shape, width).astype(jnp.float32)


def _mean_sums(
    where: str, f: Callable[..., Array], model: Any, dictionary: Dictionary, tokens: Array, options: Any, real: Array
) -> Array:
    """The sum over a batch's real tokens of the values of a site, `[width]`."""
    read = capture(f, where, output=False)(model, tokens, **options)
    x = _vectors(read, where, tokens, dictionary.W_dec.shape[-1])
    return jnp.sum(jnp.where(real[..., None], x, 0.0), axis=(0, 1))


def _scores(
    where: tuple[str, str],
    f: Callable[..., Array],
    model: Any,
    dictionary: Dictionary,
    mean: Array,
    tokens: Array,
    options: dict[str, Array],
    real: Array,
) -> dict[str, Array]:
    """The sums over a batch's real tokens of what is averaged, under the names of the fields."""
    read, written = where
    clean, captured = capture(f, list(dict.fromkeys((read, written))))(model, tokens, **options)
    site = captured[written]
    sites = (read, written) if dictionary.reads_pair else written
    edits = {
        "spliced": splice(dictionary, keep_error=False, sites=sites),
        "mean": replace(jnp.broadcast_to(mean.reshape(site.shape[2:]).astype(site.dtype), site.shape)),
        "zero": zero(),
    }
    logits = {"clean": clean}
    for name, edit in edits.items():
        logits[name] = intervene(f, {written: at(edit, mask=real)})(model, tokens, **options)

    def total(values: Array) -> Array:
        return jnp.sum(jnp.where(real, values, 0.0))

    scored = real[:, 1:] & real[:, :-1]
    out = {"n_targets": jnp.sum(scored).astype(jnp.float32)}
    for name, value in logits.items():
        ce = optax.softmax_cross_entropy_with_integer_labels(value[:, :-1].astype(jnp.float32), tokens[:, 1:])
        out[f"ce_{name}"] = jnp.sum(jnp.where(scored, ce, 0.0))
        if name != "clean":
            out[f"kl_{name}"] = total(metrics.kl(clean)(value))

    inputs = _vectors(captured, read, tokens, dictionary.d_in)
    x = _vectors(captured, written, tokens, dictionary.W_dec.shape[-1])
    features, y = dictionary.encode(inputs).astype(jnp.float32), dictionary(inputs)
    norm_in, norm_out, dot = jnp.linalg.norm(x, axis=-1), jnp.linalg.norm(y, axis=-1), jnp.sum(x * y, axis=-1)
    square, spread = jnp.sum((x - y) ** 2, axis=-1), jnp.sum((x - mean) ** 2, axis=-1)
    return out | {
        "mse": total(square),
        "variance": total(spread),
        "explained_variance_legacy": total(1.0 - square / spread),
        "cosine": total(dot / jnp.maximum(norm_in * norm_out, 1e-12)),
        "norm_read": total(jnp.linalg.norm(inputs, axis=-1)),
        "l2_norm_in": total(norm_in),
        "l2_norm_out": total(norm_out),
        "l2_ratio": total(norm_out / jnp.where(norm_in < 1e-4, 1.0, norm_in)),  # as SAEBench has it
        "square_out": total(norm_out**2),
        "dot": total(dot),
        "l1": total(jnp.sum(jnp.abs(features), axis=-1)),
        "fired": jnp.sum((features != 0) & real[..., None], axis=(0, 1), dtype=jnp.float32),
    }
