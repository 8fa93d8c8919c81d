"""Training of an edit by the language model's loss on texts, as LoReFT and ReFT-r1 are.

    loss = mean of -log p(token | the text before it, edited at a site) over the predicted tokens + penalty

The penalty's weight rises from 0 to 1 over training, as AxBench has it. Wu et al. 2024, arXiv:2404.03592; Wu et al.
2025, arXiv:2501.17148. Caveat: what comes before the site is run once for all texts, and its values are held, so texts
that are many and long want memory: n_texts * n_positions * d_model numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
from jax import Array, lax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float
import optax

from interp_jax.core import capture, intervene, transform
from interp_jax.interventions import at, chain, replace
from interp_jax.runs import check_counts, in_chunks


@runtime_checkable
class Trainable(Protocol):
    """An edit that `train` trains: a pytree of float32 arrays that is an intervention at its site."""

    site: str

    def constrained(self) -> Any: ...

    def penalty(self, x: Array, mask: Array) -> Array: ...


T = TypeVar("T", bound=Trainable)


class Losses(NamedTuple):
    """What training reports of each step, before it: float32 `[step]` each.

    Attributes:
      language: the mean loss of the predicted tokens under the edit, in nats.
      penalty: what the edit adds, before its weight of the step.
    """

    language: Float[Typed, "step"]
    penalty: Float[Typed, "step"]


class _Options(NamedTuple):
    n_steps: int
    batch_size: int


CHUNK = 16  # texts that are read at once


def train(
    f: Callable[..., Any],
    *,
    n_steps: int = 200,
    batch_size: int = 16,
    optimizer: optax.GradientTransformation | None = None,
) -> Callable[..., tuple[Any, Losses]]:
    """Trains an edit so that texts of a concept are what the model would say.

    Args:
      f: `(model, tokens, attention_mask=) -> logits [batch position d_vocab]`, with sites.
      n_steps, batch_size: how many steps, of how many texts each. Texts come in a new order each time all were seen.
      optimizer: any of optax's, by default AdamW of AxBench, `adamw(linear_schedule(5e-3, 0.0, n_steps),
        weight_decay=0.0)`.

    Returns:
      `g(key, model, edit, tokens, mask=None, predicted=None, edited=None) -> (edit, losses)`, one compiled scan, which
      can be mapped over keys:

      - `key`: a `jax.random.key`, for the order of texts.
      - `edit`: from `LoReFT.create`, `ReFTr1.create`, or a `Trainable` of one's own.
      - `tokens`: int32 `[text position]`.
      - `mask`: bool `[text position]`, False at padding, which may stand on either side.
      - `predicted`: bool `[text position]`, tokens whose loss counts, such as those of the answer; by default all.
      - `edited`: bool `[text position]`, where the edit applies, by default everywhere.

    Raises:
      ValueError: a count below 1, more texts in a batch than there are, a site whose values are not `[batch position
        d_model]` of one layer.
      FloatingPointError: a loss is not finite, where that can be seen: not under `jit` or `vmap`.

    Example:
      >>> import jax
      >>> from interp_jax import models, steering
      >>> model, _ = models.load("microworld")
      >>> texts = jax.random.randint(jax.random.key(0), (8, 12), 0, 641)
      >>> start = steering.ReFTr1.create(jax.random.key(1), "blocks.2.resid_post", 128)
      >>> g = steering.train(models.forward, n_steps=20, batch_size=4)
      >>> reft, losses = g(jax.random.key(2), model, start, texts)
      >>> bool(losses.language[-5:].mean() < losses.language[:5].mean())
      True
    """
    check_counts(n_steps=n_steps, batch_size=batch_size)
    if optimizer is None:
        optimizer = optax.adamw(optax.linear_schedule(5e-3, 0.0, n_steps), weight_decay=0.0)
    run = transform(_train, _Options(n_steps, batch_size), (f, optimizer))

    def g(
        key: Array, model: Any, edit: T, tokens: Any, mask: Any = None, predicted: Any = None, edited: Any = None
    ) -> tuple[T, Losses]:
        trained, losses = run(key, model, edit, tokens, mask, predicted, edited)
        _check_finite(losses)
        return trained, losses

    return g


def loss(
    f: Callable[..., Any], model: Any, edit: Any, tokens: Any, mask: Any, predicted: Any, edited: Any, x: Any = None
) -> Float[Typed, ""]:
    """The mean loss of the predicted tokens under an edit, in nats; `x` is what the site holds, where that is known."""
    change = at(edit, mask=edited)
    change = change if x is None else chain(replace(x), change)  # what comes before the site is then not run
    logits = intervene(f, {edit.site: change})(model, tokens, attention_mask=mask)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1].astype(jnp.float32), tokens[:, 1:])
    counts = (predicted & mask)[:, 1:] & mask[:, :-1]
    return jnp.where(counts, nats, 0).sum() / jnp.maximum(counts.sum(), 1).astype(jnp.float32)


def _train(
    options: _Options,
    arrays: Any,
    key: Array,
    model: Any,
    edit: Any,
    tokens: Any,
    mask: Any,
    predicted: Any,
    edited: Any,
) -> tuple[Any, Losses]:
    f, optimizer = arrays
    tokens = jnp.asarray(tokens)
    everywhere = jnp.ones(tokens.shape, bool)
    mask, predicted, edited = (
        everywhere if given is None else jnp.asarray(given).astype(bool) for given in (mask, predicted, edited)
    )
    n_steps, size = options
    if size > len(tokens):
        raise ValueError(f"steering.train: batch_size={size} of {len(tokens)} texts: give fewer, or more texts")
    x = _read(f, model, edit.site, tokens, mask)
    epochs = -(-n_steps * size // len(tokens))
    orders = jax.vmap(lambda one: jax.random.permutation(one, len(tokens)))(jax.random.split(key, epochs))

    def step(carry: Any, given: Any) -> Any:
        edit, state = carry
        rows, weight = given

        def total(edit: Any) -> Any:
            edit = edit.constrained()
            language = loss(f, model, edit, tokens[rows], mask[rows], predicted[rows], edited[rows], x[rows])
            penalty = edit.penalty(x[rows], mask[rows])
            return language + weight * penalty, Losses(language, penalty)

        gradient, losses = jax.grad(total, has_aux=True)(edit)
        with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
            updates, state = optimizer.update(gradient, state, edit)
            moved: Any = optax.apply_updates(edit, updates)
        return (moved.constrained(), state), losses

    rows = orders.reshape(-1)[: n_steps * size].reshape(n_steps, size)
    weights = jnp.arange(n_steps, dtype=jnp.float32) / n_steps
    (edit, _), losses = lax.scan(step, (edit, optimizer.init(edit)), (rows, weights))
    return edit, losses


def _read(f: Callable[..., Any], model: Any, site: str, tokens: Array, mask: Array) -> Array:
    """What the site holds on each text, `[text position d_model]`."""
    read = capture(f, site, output=False)

    def one(given: tuple[Array, Array]) -> Array:
        row, real = given
        return read(model, row[None], attention_mask=real[None])[site][0]

    x = in_chunks(one, (tokens, mask), CHUNK)
    if x.ndim != 3 or x.shape[:2] != tokens.shape:
        raise ValueError(
            f"steering.train: the edit's site {site!r} holds {list(x.shape)} on texts {list(tokens.shape)}: give one "
            "of [batch position d_model], of one layer, such as 'blocks.2.resid_post'"
        )
    return lax.stop_gradient(x)


def _check_finite(losses: Losses) -> None:
    total = losses.language + losses.penalty
    if not isinstance(total, jax.core.Tracer) and not bool(jnp.isfinite(total).all()):
        bad = int(jnp.argmin(jnp.isfinite(total)))
        raise FloatingPointError(f"steering.train: step {bad}: the loss is not finite; lower the learning rate")
