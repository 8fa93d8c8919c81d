"""Relational composition: in what form does a context's memory hold that an attribute belongs to an entity?

Three forms are told apart by what a pair's activations do when they are moved into another context:

- matrix binding: one place holds P e + Q a, a sum with a matrix for each role;
- tensor product: one place holds e a', whose parts are not to be had by themselves;
- multi-token: the two stand in different places, which something else, an ID or nearness, ties together.

The tests at a place, with the rest of the context held as it was, on contexts with the pair (e, a) or (e', a') in one
slot. Does the place by itself bring its whole pair with it: asked for e', is the answer a'? Does it bring its attribute
to the old owner: asked for e, is it a'? Both count over what is guessed: a' after (e, a') has come, asked for e'. And
with v(e, a') + v(e', a) - v(e', a') in the place, asked for e: a sum answers a, a product a'.
Forms as in Wattenberg & Viégas 2024, "Relational Composition in Neural Networks", arXiv:2407.14662; the tests are ours.
Caveat: a verdict is of the place where most moves, by more than half of the way from what is guessed to what the model
answers when left alone; it may use several forms at once, and its norms bend sums, so read the shares as well. Where
the slot's own number is part of a key, none of these tests sees it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jax import Array, lax
import jax.numpy as jnp
import numpy as np

from interp_jax.core import capture, intervene, transform
from interp_jax.geometry.binding import Metric, scores, tokens_mask
from interp_jax.interventions import at, replace


class Composition(NamedTuple):
    """What moves with the activations at a place: float32 `[batch]`, 1 where the answer is the one that is told.

    Attributes:
      intact: nothing is moved; the right answer.
      carries: asked for the entity that has come with the place: its attribute.
      keeps_owner: asked for the entity that stood there: the attribute that has come.
      guessed: the attribute has come, but of (e, a'), and e' is asked for, which is nowhere: a' all the same.
      adds: after v(e, a') + v(e', a) - v(e', a'), asked for e: a, as a sum gives.
      multiplies: a', as a product gives.
    """

    intact: Any
    carries: Any
    keeps_owner: Any
    guessed: Any
    adds: Any
    multiplies: Any


class Verdict(NamedTuple):
    """The form of the memory, and the place where it was found ("" where there is none)."""

    form: str
    place: str


def composition(f: Callable[..., Any], metric: Metric, where: str) -> Callable[..., dict[str, Composition]]:
    """Moves a pair's activations, place by place, from context to context, and asks for both owners.

    Args:
      f: the function, called as `f(model, tokens)`.
      metric: from what f returns to scores `[batch option]` of the possible answers, of which the first is a and the
        second a', such as `option_log_probs`.
      where: an address with the axes batch, position and one more, such as "blocks.resid_pre", which is every layer.

    Returns:
      `g(model, crossed, places, held=None) -> {name: Composition}`, for contexts int `[2 2 2 batch position]`, by the
      entity in the slot (e or e'), the attribute in it (a or a'), and the entity that is asked for (e or e'); and the
      places by name, bool `[position]` or `[batch position]`, True at the tokens that are moved together. held: as in
      `interchange`, the context without the question; None: tokens after a place read what was moved there.

    Raises:
      ValueError: contexts or places of another shape, or a metric without two options.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import data, geometry, models
      >>> model, tokenizer = models.load("microworld-context")
      >>> contexts = data.bindings.owners(jax.random.key(0), tokenizer, n=4, n_pairs=2)
      >>> f = lambda model, tokens: models.forward(model, tokens)[:, -1]
      >>> g = geometry.composition(f, geometry.option_log_probs(contexts.options()), "blocks.resid_pre")
      >>> found = g(model, contexts.crossed(), {"clause": contexts.mask("clause")}, contexts.mask("context"))
      >>> found["clause"].carries.tolist()
      [1.0, 1.0, 1.0, 1.0]
    """
    return transform(_composition, where, (f, metric))


def _composition(
    where: str, arrays: Any, model: Any, crossed: Array, places: Mapping[str, Array], held: Any = None
) -> dict[str, Composition]:
    f, metric = arrays
    if crossed.ndim != 5 or crossed.shape[:3] != (2, 2, 2):
        raise ValueError(f"composition: contexts are [2 2 2 batch position], not {list(crossed.shape)}")
    shape = crossed.shape[3:]
    masks = {name: tokens_mask(f"composition: place {name!r}", mask, shape) for name, mask in places.items()}
    kept = jnp.zeros(shape, bool) if held is None else tokens_mask("composition: held", held, shape)
    read = capture(f, where, output=False)
    own, mixed_a, mixed_e, other = (read(model, crossed[i, j, 0])[where] for i in (0, 1) for j in (0, 1))
    laid = mixed_a.astype(jnp.float32) + mixed_e.astype(jnp.float32) - other.astype(jnp.float32)

    def chosen(tokens: Array, edits: Any) -> Array:
        options = scores(metric, intervene(f, edits)(model, tokens), shape[0])
        if options.ndim != 2 or options.shape[1] < 2:
            raise ValueError(f"composition: the metric gave {list(options.shape)}, wanted scores of a, a' and others")
        return options.argmax(-1)

    def test(mask: Array) -> Composition:
        def after(tokens: Array, base: Array, values: Array) -> Array:
            both = jnp.where(mask[..., None], values.astype(base.dtype), base)
            return chosen(tokens, {where: at(replace(both), mask=mask | kept)})

        new, old = after(crossed[0, 0, 1], own, other), after(crossed[0, 0, 0], own, other)
        guess, sums = after(crossed[0, 0, 1], own, mixed_a), after(crossed[1, 1, 0], other, laid)
        told = (intact == 0, new == 1, old == 1, guess == 1, sums == 0, sums == 1)
        return Composition(*(x.astype(jnp.float32) for x in told))

    intact = chosen(crossed[0, 0, 0], {})
    found = lax.map(test, jnp.stack(list(masks.values())))
    return {name: Composition(*(x[i] for x in found)) for i, name in enumerate(masks)}


def composition_form(found: Mapping[str, Composition], single: Sequence[str]) -> Verdict:
    """Which form of memory the tests tell.

    Args:
      found: what `composition` gives, with single places and some that hold several of them together.
      single: the names of the single places.

    Returns:
      "matrix binding" or "tensor product" and the place that carries most, where a single one carries the pair;
      "multi-token" and the place that brings its attribute to the old owner, where none does but several together do;
      otherwise "one place, neither sum nor product", "undecided" or "does not answer". A share counts from half of the
      way between what is guessed and the intact answers; where these are less than 0.2 apart, nothing does.

    Raises:
      ValueError: a name that is not in `found`, or none.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> at_attribute = geometry.Composition(*map(jnp.array, ([1.0], [1.0], [0.0], [0.0], [0.0], [1.0])))
      >>> geometry.composition_form({"attribute": at_attribute}, ["attribute"])
      Verdict(form='tensor product', place='attribute')
    """
    if not single or set(single) - set(found):
        raise ValueError(f"composition_form: single={list(single)}: name some of {list(found)}")
    share = {name: Composition(*(float(np.mean(x)) for x in one)) for name, one in found.items()}
    carries = {name: _beyond(one.carries, one) for name, one in share.items()}
    brings = {name: _beyond(one.keeps_owner, one) for name, one in share.items()}
    best, tied = (max(single, key=of.__getitem__) for of in (carries, brings))
    if share[best].intact < 0.5:
        return Verdict("does not answer", "")
    if carries[best] >= 0.5:
        if max(share[best].adds, share[best].multiplies) < share[best].intact / 2:
            return Verdict("one place, neither sum nor product", best)
        added = share[best].adds >= share[best].multiplies
        return Verdict("matrix binding" if added else "tensor product", best)
    together = any(carries[name] >= 0.5 for name in found if name not in single)
    if together and brings[tied] >= 0.5:
        return Verdict("multi-token", tied)
    return Verdict("undecided", "")


def _beyond(share: float, of: Composition) -> float:
    """A share on the scale from what is guessed, 0, to the intact answers, 1; 0 where these are too near to tell."""
    room = of.intact - of.guessed
    return (share - of.guessed) / room if room >= 0.2 else 0.0
