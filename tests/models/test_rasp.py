"""Compiled programs say what plain Python says, and their circuits are all that is needed, and no more."""

from collections import Counter
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import circuits, metrics, models
from interp_jax.models import rasp
from interp_jax.nodes import nodes

LENGTH = 4
ANY = [inputs for n in range(1, LENGTH + 1) for inputs in itertools.product("abc", repeat=n)]
UNIQUE = [inputs for n in range(1, LENGTH + 1) for inputs in itertools.permutations("abcde", n)]
ONE_BACK = [inputs for inputs in ANY if max(Counter(inputs[:-1]).values(), default=0) < 2]


def _shares(inputs, *signs):
    """The sum of signs of the tokens up to each, over how many there are."""
    weights = [dict(signs).get(token, 0) for token in inputs]
    return [round(sum(weights[: i + 1]) / (i + 1), 6) for i in range(len(inputs))]


def _after(inputs):
    """What follows the earlier occurrence of each token, or None."""
    before = [[j for j in range(1, i + 1) if inputs[j - 1] == token] for i, token in enumerate(inputs)]
    return [inputs[js[0]] if js else None for js in before]


def _counts(inputs):
    return [Counter(inputs)[token] for token in inputs]


# program, inputs, whether it is causal, and what it says, written without the language
PROGRAMS = {
    "length": (rasp.length(), ANY, False, lambda x: [len(x)] * len(x)),
    "reverse": (rasp.reverse(), ANY, False, lambda x: list(reversed(x))),
    "histogram": (rasp.histogram(), ANY, False, _counts),
    "double histogram": (rasp.double_histogram(), ANY, False, lambda x: _counts(_counts(x))),
    "sort": (rasp.sort_unique(), UNIQUE, False, sorted),
    "shares": (rasp.frac_prevs("b"), ANY, False, lambda x: [x[: i + 1].count("b") / (i + 1) for i in range(len(x))]),
    "balance": (rasp.pair_balance("a", "b"), ANY, True, lambda x: _shares(x, ("a", 1), ("b", -1))),
    "induction": (rasp.induction(), ONE_BACK, True, _after),
    "tokens": (rasp.tokens, ANY, True, list),
}


def _compiled(name, **options):
    program, inputs, causal, _ = PROGRAMS[name]
    return rasp.compile(program, sorted(set().union(*inputs)), LENGTH, causal=causal, **options)


def _batch(compiled, inputs):
    """Token ids and mask, padded on the right."""
    rows = [compiled.encode(x) for x in inputs]
    width = max(map(len, rows))
    tokens = jnp.array([row + [0] * (width - len(row)) for row in rows])
    return tokens, jnp.array([[i < len(row) for i in range(width)] for row in rows])


def _said(compiled, model, inputs):
    tokens, mask = _batch(compiled, inputs)
    logits = models.forward(model, tokens, attention_mask=mask)
    return [compiled.decode(some[: 1 + len(x)]) for some, x in zip(np.asarray(logits), inputs, strict=True)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_input(name) -> None:
    """All inputs up to a length at once: the model, plain Python and the language agree."""
    program, inputs, causal, wanted = PROGRAMS[name]
    compiled = _compiled(name)
    expected = [wanted(x) for x in inputs]
    assert [rasp.evaluate(program, x, causal=causal) for x in inputs] == expected
    assert _said(compiled, compiled.model, inputs) == expected


@pytest.mark.parametrize("layout", ["looped", "scanned", "bfloat16"])
def test_beside_others_and_decoys(layout) -> None:
    """Two programs and random heads and neurons in one model, some of which leak, change nothing of what it says."""
    program, inputs, causal, wanted = PROGRAMS["sort"]
    exact = layout == "bfloat16"
    compiled = rasp.compile(
        program,
        "abcde",
        LENGTH,
        beside=(rasp.double_histogram(), rasp.reverse()),
        decoys=2,
        leak=0.0 if exact else 1e-3,
        key=jax.random.key(3),
        causal=causal,
        dtype=jnp.bfloat16 if exact else jnp.float32,
    )
    model = models.stack_layers(compiled.model) if layout == "scanned" else compiled.model
    assert _said(compiled, model, inputs) == [wanted(x) for x in inputs]
    assert (models.weights(model)["W_O"] != 0).any((-2, -1)).all()  # no head is empty


@pytest.mark.parametrize(
    "name", ["induction", *(pytest.param(n, marks=pytest.mark.long) for n in ("sort", "double histogram", "balance"))]
)
def test_circuit_is_sufficient_and_necessary(name) -> None:
    """With all other edges from another input the logits are the model's; without any one edge they are not."""
    _, inputs, _, _ = PROGRAMS[name]
    compiled = _compiled(name, beside=(rasp.histogram(),), decoys=1, key=jax.random.key(0))
    inputs = [x for x in inputs if len(x) == LENGTH]
    chosen = np.random.default_rng(0).choice(len(inputs), (2, 24))
    clean, corrupted = (jnp.array([compiled.encode(inputs[i]) for i in some]) for some in chosen)
    logits = models.forward(compiled.model, clean)

    def distance(out):
        return jnp.abs(out - logits).max((-2, -1))

    senders, receivers = nodes(ij.sites(models.forward, compiled.model, clean))
    within = np.array([[(s, r) in compiled.varying for r in receivers] for s in senders])
    assert within.sum() == len(compiled.varying)
    without = np.stack([within, *(within & ~one for one in _single(within))])
    circuit = circuits.EdgeCircuit(jnp.asarray(without), senders, receivers)
    far = circuits.faithfulness(models.forward, distance)(compiled.model, clean, corrupted, circuit).circuit
    assert far[0] < 1e-4 and (far[1:] > 0.1).all()


def _single(mask):
    for place in np.argwhere(mask):
        one = np.zeros_like(mask)
        one[tuple(place)] = True
        yield one


def test_circuit_of_induction() -> None:
    compiled = _compiled("induction")
    assert set(compiled.varying) == {
        ("embed", "v 0.0"),
        ("head 0.0", "k 1.0"),
        ("embed", "q 1.0"),
        ("embed", "v 1.0"),
        ("head 1.0", "logits"),
    }
    assert set(compiled.edges) - set(compiled.varying) == {("embed", "q 0.0"), ("embed", "k 0.0")}
    assert compiled.nodes == ("head 0.0", "head 1.0")
    assert _compiled("length").varying == () and ("head 0.0", "mlp 0") in _compiled("length").edges


def test_a_compiled_model_is_a_model() -> None:
    """It is saved within a pytree, differentiated and mapped like any other."""
    compiled = _compiled("histogram")
    tokens = jnp.array(compiled.encode("aabc"))
    answers, others = jnp.array(compiled.vocabulary.index(2)), jnp.array(compiled.vocabulary.index(1))
    metric = metrics.logit_diff(answers, others)
    slope = jax.grad(lambda model: metric(models.forward(model, tokens, logits_at=jnp.array(1))))(compiled.model)
    assert jnp.isfinite(models.weights(slope)["W_U"]).all() and (models.weights(slope)["W_U"] != 0).any()
    assert models.weights(compiled.model)["W_Q"].shape[:2] == (1, 1)


def test_bad_programs() -> None:
    select = rasp.Select(rasp.indices, rasp.indices, lambda key, query: True)
    for wrong, said in {
        "an expression": lambda: rasp.Map(len, "abc"),
        "at least one": lambda: rasp.Map(len),
        "fn must be a function": lambda: rasp.Map(1, rasp.tokens),
        "values of a Fraction must be 0 or 1": lambda: rasp.compile(rasp.Fraction(select, rasp.indices), "ab", 3),
        "must be 0 or 1, not 2": lambda: rasp.evaluate(rasp.Fraction(select, rasp.indices), "abc"),
        "are selected at once": lambda: rasp.evaluate(rasp.Aggregate(select, rasp.tokens), "ab"),
        "fails at None": lambda: rasp.compile(rasp.Map(lambda x: x + "", rasp.induction()), "ab", 3),
        "alphabet must be tokens that differ": lambda: rasp.compile(rasp.tokens, "aa", 3),
        "length=0": lambda: rasp.compile(rasp.tokens, "ab", 0),
        "decoys want a key": lambda: rasp.compile(rasp.tokens, "ab", 2, decoys=1),
        "a leak wants decoys": lambda: rasp.compile(rasp.tokens, "ab", 2, leak=0.1),
        "none of 'a', 'b'": lambda: rasp.compile(rasp.length(), "ab", 2).encode("ac"),
        "at most 2; compile it with a greater length": lambda: rasp.compile(rasp.tokens, "ab", 2).encode("aba"),
    }.items():
        with pytest.raises(ValueError, match=wrong) as caught:
            said()
        assert "\n" not in str(caught.value)
