"""Evidence from records: what explains does not test, what is quiet is silent, and what is hard could have fired."""

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import explain

N, POSITIONS, VOCABULARY = 200, 24, 30
STRINGS = [f" w{i}" for i in range(VOCABULARY)]
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, VOCABULARY, (N, POSITIONS)).astype(np.int32)


def f(model, tokens):
    """Neuron 0 fires on token 3 after 5, neuron 1 on 3 and 4, neuron 2 on 29 that stands first, neuron 3 never."""
    after = jnp.concatenate([jnp.zeros_like(tokens[:, :1]), tokens[:, :-1]], axis=1)
    first = jnp.arange(tokens.shape[1]) == 0
    sizes = 1 + (tokens * 7 + after) % 5
    fires = [(tokens == 3) & (after < 12), (tokens == 3) | (tokens == 4), (tokens == 29) & first, first & False]
    x = jnp.stack([jnp.where(one, sizes, 0) for one in fires], axis=-1).astype(jnp.float32)
    return ij.site(x, "x", axes=("batch", "position", "d")) @ model


@pytest.fixture(scope="module")
def records():
    record = explain.record(f, {"x": None}, n_held=10**5)
    return record(jnp.ones((4, 2)), TOKENS)["x"]


def test_what_explains_does_not_test(records) -> None:
    some = explain.gather(records, 1, STRINGS, least=50, width=8)
    assert (len(some.quiet), len(some.random), len(some.background)) == (50, 50, 50)
    assert len(some.train) > 20 and len(some.test) == pytest.approx(len(some.train) * 5 / 4, abs=2)
    assert not {one.tokens for one in some.train} & {one.tokens for one in some.test}
    assert not {one.tokens for one in some.random} & {one.tokens for one in some.background}
    assert all(max(one.values) > 0 for one in some.train + some.test)
    assert not any(any(one.values) for one in some.quiet + some.hard)
    assert abs(np.mean([max(one.values) for one in some.train]) - np.mean([max(one.values) for one in some.test])) < 0.5
    assert some.maximum == 5 and all(len(one.tokens) <= 8 for one in some.train + some.quiet)


def test_what_is_hard_could_have_fired(records) -> None:
    """The token stands there without what has to come before it, or a unit fires there that fires alike."""
    assert records.correlated["x"][0][0][0] == 1
    hard = explain.gather(records, 0, STRINGS, least=30, width=8).hard
    assert len(hard) == 10 and any(" w4" in one.tokens and " w3" not in one.tokens for one in hard)
    assert all({" w3", " w4"} & {one.tokens[one.focus]} for one in hard)
    assert len({one.tokens for one in hard}) == 10


def test_too_few(records) -> None:
    with pytest.raises(explain.TooFew, match="unit 3 never fires"):
        explain.gather(records, 3, STRINGS)
    with pytest.raises(explain.TooFew, match=r"unit 2 fires on \d+ tokens, fewer than 200"):
        explain.gather(records, 2, STRINGS)
    with pytest.raises(ValueError, match="unit 4 of 4"):
        explain.gather(records, 4, STRINGS)
    few = explain.gather(records, 2, STRINGS, least=1, width=8)
    assert few.train and few.test  # what there is is split


def test_statistics_from_records(records) -> None:
    found = explain.explain_units(
        explain.offline(), "x", range(4), lambda unit: explain.gather(records, unit, STRINGS, least=30), shown=False
    )
    one = next(one for one in found.explanations if one.unit == 1)
    assert one.text.startswith("on: w") and "w3" in one.text and "w4" in one.text
    assert one.scores["detection"].value > 0.95 and one.scores["simulation"].value > 0.7
    assert set(found.skipped) == {2, 3}
