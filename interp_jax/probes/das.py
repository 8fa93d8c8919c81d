"""Distributed alignment search: the subspace of a site that carries one variable, found by swapping it between runs.

    swap: x' = x + R R^T (s - x),   R [d_in k] with orthonormal columns, s the value of the source run
    R minimises the mean loss of the swapped run: the source's answer where the variable is asked for, else the base's

Geiger et al. 2024, "Finding alignments between interpretable causal variables and distributed neural representations",
arXiv:2303.02536; Huang et al. 2024, "RAVEL", arXiv:2402.17700 (cause and isolate, trained together). R is the Q of a QR
factorisation of free parameters, so that every step of the optimiser stays orthonormal.
Caveat: a search over swaps may find a direction that the model does not use by itself, but answers to (Makelov et al.
2023, arXiv:2311.17030); judge a subspace on entities that the search has not seen.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Key
import numpy as np
import optax

from interp_jax.core import Context, Intervention, intervene, place, transform
from interp_jax.interventions import at
from interp_jax.probes.examples import examples

Basis = Float[Typed, "d_in k"]


@partial(jax.tree_util.register_dataclass, data_fields=["basis", "source"], meta_fields=[])
@dataclass(frozen=True)
class Swap(Intervention):
    """An edit that takes what a subspace holds from another run: `x + R R^T (source - x)`. It is a pytree."""

    basis: Any
    source: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        x = value.astype(jnp.float32)
        change = place(jnp.asarray(self.source), value, ctx).astype(jnp.float32) - x
        return (x + change @ self.basis @ self.basis.T).astype(value.dtype)


def swap(basis: Basis, source: Any) -> Intervention:
    """An interchange intervention in a subspace.

    Args:
      basis: `[d_in k]`, orthonormal columns, as from `train_das`, `class_subspace` or `probe.direction[:, None]`.
      source: the other run's value of the site, or what broadcasts to it, such as `[batch 1 d_in]`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import probes
      >>> edit = probes.swap(jnp.array([[1.0], [0.0]]), jnp.array([5.0, 5.0]))
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": edit})(jnp.ones(2)).tolist()
      [5.0, 1.0]
    """
    return Swap(basis, source)


@partial(
    jax.tree_util.register_dataclass, data_fields=["tokens", "position", "source", "target", "kwargs"], meta_fields=[]
)
@dataclass(frozen=True)
class Interchange:
    """Base prompts, what is swapped into them, and what should come out.

    Attributes:
      tokens: int32 `[batch position]`, the base prompts.
      position: int32 `[batch]`, where the swap takes place, counted in real tokens as in `at(edit, position=)`.
      source: `[batch d_in]`, the value of the site in the source runs.
      target: what the loss compares with, `[batch ...]`.
      kwargs: arrays for keywords of `f`, such as `attention_mask` and `logits_at`.
    """

    tokens: Any
    position: Any
    source: Any
    target: Any
    kwargs: Mapping[str, Any]


def swapped(f: Callable[..., Any], where: str) -> Callable[[Any, Basis, Interchange], Any]:
    """Runs `f` on base prompts with a subspace of the site taken from the source runs.

    Args:
      f: `(model, tokens, **kwargs) -> output`, with sites.
      where: address of one site of one layer, `[batch position d_in]`, such as `"blocks.2.resid_post"`.

    Returns:
      `g(model, basis, interchange) -> output`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import probes
      >>> f = lambda W, x: ij.site(x, "x", axes=("batch", "position", "d_model"))[:, -1] @ W
      >>> data = probes.Interchange(jnp.zeros((1, 2, 2)), jnp.array([1]), jnp.array([[3.0, 4.0]]), None, {})
      >>> probes.swapped(f, "x")(jnp.eye(2), jnp.array([[0.0], [1.0]]), data).tolist()
      [[0.0, 4.0]]
    """

    def g(model: Any, basis: Basis, one: Interchange) -> Any:
        edit = at(swap(basis, one.source[:, None]), position=one.position)
        return intervene(f, {where: edit})(model, one.tokens, **one.kwargs)

    return g


def train_das(
    key: Key[Typed, ""],
    f: Callable[..., Any],
    loss: Callable[[Any, Any], Array],
    where: str,
    model: Any,
    batches: Iterable[Interchange],
    *,
    n_directions: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    start: Basis | None = None,
) -> tuple[Basis, Float[Typed, "step"]]:
    """Searches for the subspace whose swap makes outputs what they should be, one step for each batch, in one program.

    Args:
      key: a `jax.random.key`, for the first subspace.
      f, where: as in `swapped`.
      loss: `(output, target) -> [batch]`, such as the cross-entropy of the answer's token.
      model: a pytree, which stays as it is.
      batches: of one shape. To isolate a variable as well, mix into them swaps whose target is the base's own answer.
      n_directions: the dimension of the subspace.
      optimizer: any of optax's, by default `adam(1e-2)`.
      start: the first subspace in place of a random one.

    Returns:
      `(basis [d_in k], losses [step])`.

    Raises:
      ValueError: no batch; `n_directions` is not between 1 and the width of the site.
      FloatingPointError: a loss is not finite.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import probes
      >>> f = lambda W, x: ij.site(x, "x", axes=("batch", "position", "d_model"))[:, -1] @ W
      >>> loss = lambda y, target: (y - target) ** 2
      >>> def batch(key):
      ...     base, source = jax.random.normal(key, (2, 32, 3))
      ...     return probes.Interchange(base[:, None], jnp.zeros(32, int), source, source[:, 1], {})
      >>> batches = map(batch, jax.random.split(jax.random.key(0), 300))
      >>> basis, _ = probes.train_das(jax.random.key(1), f, loss, "x", jnp.array([0.0, 1.0, 0.0]), batches)
      >>> round(float(abs(basis[1, 0])), 2)
      1.0
    """
    stacked, _ = stack("train_das", batches)
    d_in = stacked.source.shape[-1]
    if start is None and not 1 <= n_directions <= d_in:
        raise ValueError(f"train_das: n_directions={n_directions} of a site of {d_in}: give 1 to {d_in}")
    free: Any = jax.random.normal(key, (d_in, n_directions)) / d_in**0.5 if start is None else start
    optimizer = optax.adam(1e-2) if optimizer is None else optimizer
    free, losses = transform(descend, where, (f, loss, optimizer, _rotated))(model, free, stacked)
    check_finite("train_das", losses)
    return orthonormal(free), losses


def _rotated(free: Array) -> tuple[Basis, float]:
    return orthonormal(free), 0.0


def stack(name: str, batches: Iterable[Interchange]) -> tuple[Interchange, int]:
    """All batches as one, with steps as the first axis, and their number. Raises ValueError where there is none."""
    batches = list(batches)
    if not batches:
        raise ValueError(f"{name}: there is no batch; give interchanges")
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *batches), len(batches)


def check_finite(name: str, losses: Float[Typed, "step"]) -> None:
    """Raises FloatingPointError where a loss is not finite."""
    if not bool(jnp.isfinite(losses).all()):
        bad = int(jnp.argmin(jnp.isfinite(losses)))
        raise FloatingPointError(f"{name}: step {bad}: the loss is not finite; look at the values to swap in")


def descend(where: str, arrays: Any, model: Any, free: Array, batches: Interchange, *more: Array) -> Any:
    """Descends the mean loss of swaps by what a subspace is made of, for `transform`.

    Args:
      where: as in `swapped`.
      arrays: `(f, loss, optimizer, subspace)`, the last a function `(free, *more) -> (basis, penalty)`.
      model: the model.
      free: the parameters at first.
      batches: with steps as the first axis.
      more: what `subspace` takes besides, with steps as the first axis.

    Returns:
      The parameters in the end, and the losses `[step]`, without the penalty.
    """
    f, loss, optimizer, subspace = arrays
    run = swapped(f, where)

    def step(carry: Any, given: Any) -> Any:
        (free, state), (batch, more) = carry, given

        def total(free: Array) -> tuple[Array, Array]:
            basis, penalty = subspace(free, *more)
            value = loss(run(model, basis, batch), batch.target).astype(jnp.float32).mean()
            return value + penalty, value

        gradient, value = jax.grad(total, has_aux=True)(free)
        with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
            updates, state = optimizer.update(gradient, state, free)
            return (optax.apply_updates(free, updates), state), value

    (free, _), losses = lax.scan(step, (free, optimizer.init(free)), (batches, more))
    return free, losses


def orthonormal(columns: Float[Typed, "d_in k"]) -> Basis:
    """An orthonormal basis of what the columns span, whose first vector is along the first column."""
    q, r = jnp.linalg.qr(columns)
    return q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)


def class_subspace(x: Float[Typed, "example d_in"] | Any, y: Any, *, n_directions: int | None = None) -> Basis:
    """Where the means of classes lie: the difference of means of two, the main directions between those of more.

    Args:
      x: activations `[example d_in]`.
      y: labels `[example]`, whole numbers from 0.
      n_directions: by default the number of classes less 1, and at most `d_in`.

    Raises:
      ValueError: as `logistic`; `n_directions` is not between 1 and its default.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import probes
      >>> x = jnp.array([[0.0, 1.0], [0.0, 3.0], [4.0, 1.0], [4.0, 3.0]])
      >>> abs(probes.class_subspace(x, jnp.array([0, 0, 1, 1]))).tolist()
      [[1.0], [0.0]]
    """
    here = examples("probes.class_subspace", jnp.asarray(x), y)
    most = min(here.n_classes - 1, here.x.shape[-1])
    n_directions = most if n_directions is None else n_directions
    if not 1 <= n_directions <= most:
        raise ValueError(f"probes.class_subspace: n_directions={n_directions}: give 1 to {most}")
    member = jax.nn.one_hot(here.y[0], here.n_classes)
    sizes = member.sum(0)
    means = member.T @ here.x[0].astype(jnp.float32) / jnp.maximum(sizes, 1)[:, None]
    apart = jnp.where(sizes[:, None] > 0, means - (sizes @ means) / sizes.sum(), 0)
    return jnp.linalg.svd(jnp.sqrt(sizes)[:, None] * apart, full_matrices=False)[2][:n_directions].T
