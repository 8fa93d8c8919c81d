"""Relational composition: each planted model has its verdict, in every slot, and what is not known is not told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import geometry
from interp_jax.interventions import at, replace

SITE = "blocks.resid_pre"
SINGLE = ("entity", "attribute", "rest")


@pytest.fixture(scope="module")
def planted(experiment):
    return experiment("relational_models")


def places(contexts):
    return {name: contexts.mask(name) for name in (*SINGLE, "clause")}


@pytest.mark.parametrize("slot", [0, 2])
def test_each_planted_model_has_its_verdict(planted, slot: int) -> None:
    contexts = planted.contexts(jax.random.key(0), 32, slot=slot)
    g = geometry.composition(planted.forward, geometry.option_log_probs(contexts.options()), SITE)
    shares = {}
    for kind, form in planted.FORMS.items():
        model = planted.create(jax.random.key(1), kind)
        found = g(model, contexts.crossed(), places(contexts), contexts.mask("context"))
        assert geometry.composition_form(found, SINGLE) == (form, "attribute")
        assert found["clause"].carries.all() and found["clause"].intact.all()
        assert all(found[place].guessed.mean() < 0.5 for place in SINGLE)  # by the planted prior: one in four
        shares[kind] = {name: float(getattr(found["attribute"], name).mean()) for name in found["attribute"]._fields}
    for kind, wanted in {
        "matrix binding": {"carries": 1, "keeps_owner": 0, "adds": 1, "multiplies": 0},
        "tensor product": {"carries": 1, "keeps_owner": 0, "adds": 0, "multiplies": 1},
        "binding ID": {"carries": 0, "keeps_owner": 1},
        "next token": {"carries": 0, "keeps_owner": 1},
    }.items():
        for name, value in wanted.items():  # where nothing is found the prior answers: one in four
            assert shares[kind][name] == 1 if value else shares[kind][name] < 0.5, (kind, name)


def test_beside_edits_by_hand(planted) -> None:
    contexts = planted.contexts(jax.random.key(3), 8)
    model = planted.create(jax.random.key(1), "tensor product")
    options, crossed = contexts.options(), contexts.crossed()
    metric = geometry.option_log_probs(options)
    run = jax.jit(geometry.composition(planted.forward, metric, SITE))
    found = run(model, crossed, places(contexts))["attribute"]
    acts = {
        pair: ij.capture(planted.forward, SITE, output=False)(model, crossed[(*pair, 0)])[SITE]
        for pair in ((0, 1), (1, 0), (1, 1))
    }
    column = int(contexts.columns["attribute"][0])

    def answer(tokens, values):
        edit = at(replace(values), position=column)
        return options[jnp.arange(8), metric(ij.intervene(planted.forward, {SITE: edit})(model, tokens)).argmax(-1)]

    own, spare = contexts.attributes[:, 0], contexts.attributes[:, -1]
    np.testing.assert_array_equal(found.carries, answer(crossed[0, 0, 1], acts[1, 1]) == spare)
    np.testing.assert_array_equal(found.keeps_owner, answer(crossed[0, 0, 0], acts[1, 1]) == spare)
    np.testing.assert_array_equal(found.guessed, answer(crossed[0, 0, 1], acts[0, 1]) == spare)
    laid = acts[0, 1] + acts[1, 0] - acts[1, 1]
    np.testing.assert_array_equal(found.adds, answer(crossed[1, 1, 0], laid) == own)
    np.testing.assert_array_equal(found.multiplies, answer(crossed[1, 1, 0], laid) == spare)


def shares(intact=1.0, carries=0.0, keeps_owner=0.0, guessed=0.0, adds=0.0, multiplies=0.0):
    return geometry.Composition(*(jnp.array([x]) for x in (intact, carries, keeps_owner, guessed, adds, multiplies)))


def test_what_is_not_known_is_not_told() -> None:
    form = geometry.composition_form
    assert form({"a": shares(intact=0.2, carries=1.0, adds=1.0)}, ["a"]) == ("does not answer", "")
    assert form({"a": shares(), "all": shares(carries=1.0)}, ["a"]) == ("undecided", "")
    assert form({"a": shares(keeps_owner=1.0), "all": shares()}, ["a"]) == ("undecided", "")
    assert form({"a": shares(carries=1.0)}, ["a"]) == ("one place, neither sum nor product", "a")
    for guessed, told in ((0.7, "matrix binding"), (0.79, "matrix binding"), (0.81, "undecided")):
        guess = {"a": shares(carries=0.9, guessed=guessed, adds=1.0), "all": shares(carries=1.0)}
        assert form(guess, ["a"])[0] == told
    weak = shares(intact=0.7, carries=0.35, keeps_owner=0.6, guessed=0.3)  # half of the way is 0.5
    assert form({"a": weak, "all": shares(intact=0.7, carries=0.6, guessed=0.3)}, ["a"]) == ("multi-token", "a")
    mixed = {"a": shares(carries=0.6, multiplies=0.9), "b": shares(carries=0.9, adds=0.8), "all": shares(carries=1.0)}
    assert form(mixed, ["a", "b"]) == ("matrix binding", "b")


def test_bad_input(planted) -> None:
    contexts = planted.contexts(jax.random.key(0), 4)
    model = planted.create(jax.random.key(1), "binding ID")
    g = geometry.composition(planted.forward, geometry.option_log_probs(contexts.options()), SITE)
    with pytest.raises(ValueError, match=r"composition: contexts are \[2 2 2 batch position\], not \[4, 10\]"):
        g(model, contexts.tokens, places(contexts))
    with pytest.raises(ValueError, match=r"place 'entity': is \[3\], wanted \[10\] or \[4, 10\]"):
        g(model, contexts.crossed(), {"entity": jnp.ones(3, bool)})
    with pytest.raises(ValueError, match=r"the metric gave \[4, 1\], wanted scores of a, a' and others"):
        one = geometry.option_log_probs(contexts.options()[:, :1])
        geometry.composition(planted.forward, one, SITE)(model, contexts.crossed(), places(contexts))
    with pytest.raises(ValueError, match=r"composition_form: single=\['b'\]: name some of \['a'\]"):
        geometry.composition_form({"a": shares()}, ["b"])
    with pytest.raises(
        ValueError, match="no place 'middle'; there are entity, attribute, rest, clause, context, later"
    ):
        contexts.mask("middle")
