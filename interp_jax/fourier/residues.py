"""Functions of residues modulo p, read by frequency, and the measures that tell two ways of adding apart.

    clock  logit(a, b, c) = cos(w (a + b - c)),                     w = 2 pi k / p
    pizza  logit(a, b, c) = |cos(w (a - b) / 2)| cos(w (a + b - c))
    gradient symmetry      mean over (a, b, c) of the cosine of dQ_abc / dE_a and dQ_abc / dE_b
    distance irrelevance   mean over d of std_i(L[i, i + d]), over std(L), where L[a, b] = Q_ab(a+b)

A clock multiplies rotations: its correct logit does not see the distance a - b (irrelevance near 1). A pizza averages
the two embeddings: it is symmetric in them (near 1), and blind at opposite places (irrelevance near 0). Zhong et al.
2023, "The Clock and the Pizza", arXiv:2306.17844, definitions 4.1 and 4.2; Nanda et al. 2023, arXiv:2301.05217.
Caveat: attention that is held constant makes a model nearly symmetric whatever it learned: read both measures.
"""

from collections.abc import Callable
from typing import Any

from jax import Array
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array as Typed
from jaxtyping import Float, Int
import numpy as np

from interp_jax.core import grads, transform


def fourier_power(x: Float[Typed, "p *axes"]) -> Float[Typed, "frequency *axes"]:
    """The squared norm of each frequency's part of functions on the residues modulo p; their sum is that of `x`.

    Args:
      x: `[p ...]`, such as the embeddings `[p d_model]`.

    Returns:
      float32 `[p // 2 + 1, ...]`: frequency 0 is the mean's.

    Example:
      >>> from interp_jax import fourier
      >>> fourier.fourier_power(fourier.clock_logits(5, frequency=2)[:, 0, 0]).round(3).tolist()
      [0.0, 0.0, 2.5]
    """
    power = jnp.square(jnp.abs(jnp.fft.fft(x.astype(jnp.float32), axis=0, norm="ortho")))
    return jnp.einsum("kr,r...->k...", _folded(len(x)), power)


def pair_power(x: Float[Typed, "a b *axes"]) -> Float[Typed, "frequency *axes"]:
    """The squared norm of each frequency's part of functions of two residues, such as neurons at the answer.

    A frequency's part holds the products of 1, cos(w a), sin(w a) with 1, cos(w b), sin(w b), but for the constant,
    which is frequency 0's. What is left of the squared norm of `x` mixes frequencies.

    Args:
      x: `[a b ...]`.

    Returns:
      float32 `[p // 2 + 1, ...]`.

    Raises:
      ValueError: the first two axes differ.

    Example:
      >>> from interp_jax import fourier
      >>> fourier.pair_power(fourier.clock_logits(4, frequency=1)[:, :, 0]).round(3).tolist()
      [0.0, 8.0, 0.0]
    """
    fold = _folded(_modulus("pair_power", x.shape[:2]))
    power = jnp.square(jnp.abs(jnp.fft.fft2(x.astype(jnp.float32), axes=(0, 1), norm="ortho")))
    power = jnp.einsum("kr,ls,rs...->kl...", fold, fold, power)
    k = np.arange(len(fold))
    return power[k, k].at[1:].add(power[0, 1:] + power[1:, 0])


def key_frequencies(power: Float[Typed, "frequency"]) -> tuple[int, ...]:
    """The frequencies that carry more than an equal share of the power, the mean's left out, the strongest first.

    Random embeddings have such frequencies too, a little above the rest: look at the shares. Not under `jit`.

    Args:
      power: `[frequency]`, such as `fourier_power(W_E).sum(1)`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import fourier
      >>> fourier.key_frequencies(jnp.array([9.0, 0.1, 3.0, 0.2, 4.0]))
      (4, 2)
    """
    varying = np.asarray(power)[1:]
    strongest = np.argsort(-varying, kind="stable")
    return tuple(int(k) + 1 for k in strongest if varying[k] > varying.mean())


def keep_frequencies(x: Float[Typed, "p *axes"], frequencies: Int[Typed | np.ndarray, "kept"]) -> Typed:
    """`x` with nothing but its mean over the residues and the parts of some frequencies: a circle alone, say.

    Args:
      x: `[p ...]`.
      frequencies: int `[kept]`, between 0 and p // 2. They may be traced, and `vmap` makes a sweep of them.

    Returns:
      `[p ...]`, the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import fourier
      >>> x = jnp.array([3.0, 1.0, -1.0, 1.0])
      >>> fourier.keep_frequencies(x, jnp.array([1])).tolist(), fourier.keep_frequencies(x, jnp.array([2])).tolist()
      ([3.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    """
    residues = jnp.arange(len(x))
    folded = jnp.minimum(residues, len(x) - residues)
    kept = (folded == 0) | (folded[:, None] == jnp.asarray(frequencies)).any(1)
    coefficients = jnp.fft.fft(x.astype(jnp.float32), axis=0)
    kept = jnp.where(kept.reshape(-1, *(1,) * (x.ndim - 1)), coefficients, jnp.zeros_like(coefficients))
    return jnp.fft.ifft(kept, axis=0).real.astype(x.dtype)


def clock_logits(p: int, frequency: int) -> Float[Typed, "a b c"]:
    """The logits of a clock of one frequency, float32 `[p p p]`: cos(w (a + b - c)).

    Example:
      >>> from interp_jax import fourier
      >>> fourier.clock_logits(5, frequency=2).argmax(-1)[3].tolist()
      [3, 4, 0, 1, 2]
    """
    a, b, c = np.ogrid[:p, :p, :p]
    return jnp.asarray(np.cos(2 * np.pi * frequency / p * (a + b - c)), jnp.float32)


def pizza_logits(p: int, frequency: int) -> Float[Typed, "a b c"]:
    """The logits of a pizza of one frequency, float32 `[p p p]`: |cos(w (a - b) / 2)| cos(w (a + b - c)).

    Example:
      >>> from interp_jax import fourier
      >>> fourier.pizza_logits(3, frequency=1)[0, :, 0].round(3).tolist()
      [1.0, -0.25, -0.25]
    """
    a, b, _ = np.ogrid[:p, :p, :1]
    return jnp.asarray(np.abs(np.cos(np.pi * frequency / p * (a - b))), jnp.float32) * clock_logits(p, frequency)


def correct_logits(logits: Float[Typed, "a b c"]) -> Float[Typed, "a b"]:
    """The logit of (a + b) mod p for each pair: `[p p]` of logits `[p p p]`.

    Raises:
      ValueError: the three axes differ.

    Example:
      >>> from interp_jax import fourier
      >>> fourier.correct_logits(fourier.clock_logits(3, frequency=1)).tolist()
      [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    p = _modulus("correct_logits", logits.shape)
    a, b = np.ogrid[:p, :p]
    return logits[a, b, (a + b) % p]


def distance_irrelevance(correct: Float[Typed, "a b"]) -> Float[Typed, ""]:
    """How much of the spread of correct logits is left among pairs of one distance (definition 4.2 of Zhong et al.).

    Args:
      correct: `[a b]`, of `correct_logits`.

    Returns:
      float32, mean over d of std_i(L[i, i + d]) over std(L): 0 if the logit depends on the distance alone, 1 if on
      the sum alone (p odd); not a number if it is constant. The paper's pizzas have 0 to 0.4, its clocks 0.4 to 1.

    Raises:
      ValueError: the axes differ.

    Example:
      >>> from interp_jax import fourier
      >>> fourier.distance_irrelevance(fourier.correct_logits(fourier.pizza_logits(59, frequency=3))).round(3).item()
      0.0
    """
    p = _modulus("distance_irrelevance", correct.shape)
    i, d = np.ogrid[:p, :p]
    correct = correct.astype(jnp.float32)
    return correct[i, (i + d) % p].std(0).mean() / correct.std()


def gradient_symmetry(f: Callable[..., Array], where: str = "embed") -> Callable[..., Array]:
    """The cosine between the gradients of a logit with respect to the two embeddings (definition 4.1 of Zhong et al.).

    The paper averages it over 100 random triples: 0.99 for its pizza, 0.33 for its clock.

    Args:
      f: `f(model, tokens [batch 2]) -> logits [batch p]`, with a site that holds `[batch 2 d_model]`.
      where: the address of the site.

    Returns:
      `g(model, triples) -> cosines`: int `[triple 3]`, the tokens a and b and the answer c whose logit is
      differentiated, right or wrong, to float32 `[triple]` between -1 and 1; not a number where a gradient is zero.

    Raises:
      ValueError: (from g) `triples` is not `[triple 3]`; the address matches no site.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import fourier
      >>> table = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> f = lambda table, tokens: ij.site(table[tokens], "embed").prod(1)
      >>> fourier.gradient_symmetry(f)(jnp.ones((2, 2)) + table, jnp.array([[0, 1, 0], [1, 1, 1]])).tolist()
      [1.0, 1.0]
    """
    return transform(_gradient_symmetry, where, (f,))


def _gradient_symmetry(where: str, arrays: Any, model: Any, triples: Array) -> Array:
    (f,) = arrays
    if jnp.ndim(triples) != 2 or jnp.shape(triples)[1] != 3:
        raise ValueError(
            f"gradient_symmetry: triples of shape {jnp.shape(triples)}; give [triple 3], the columns a, b and c"
        )
    triples = jnp.asarray(triples)
    _, _, slopes = grads(f, Partial(_chosen, triples[:, 2]), where)(model, triples[:, :2])
    left, right = jnp.moveaxis(slopes[where].astype(jnp.float32), -2, 0)
    norms = jnp.linalg.norm(left, axis=-1) * jnp.linalg.norm(right, axis=-1)
    return (left * right).sum(-1) / norms


def _chosen(answers: Array, logits: Array) -> Array:
    return jnp.take_along_axis(logits, answers[:, None], axis=-1)[:, 0]


def _modulus(name: str, shape: tuple[int, ...]) -> int:
    if len(set(shape)) != 1:
        raise ValueError(f"{name}: axes of residues of lengths {shape}; each must be the modulus p")
    return shape[0]


def _folded(p: int) -> Array:
    """float32 `[frequency residue]`: 1 where the residue is the frequency or its negative."""
    residues = np.arange(p)
    return jnp.asarray(np.minimum(residues, p - residues) == np.arange(p // 2 + 1)[:, None], jnp.float32)
