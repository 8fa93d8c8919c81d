"""Steering vectors as edits: each form beside numpy, at layers and positions, and with the cache as without."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import data, lens, models, probes, steering
from interp_jax.interventions import add, at, chain, per_layer
from interp_jax.steering import SteeringVector
from tests.steering.conftest import SITE


def by_hand(form: str, x: np.ndarray, v: np.ndarray, s: float) -> np.ndarray:
    def norm(a: np.ndarray) -> np.ndarray:
        return np.sqrt((a**2).sum(-1, keepdims=True))

    if form == "cap":  # from s to 2 s
        along = (x * v).sum(-1, keepdims=True) / norm(v)
        return x + (np.minimum(np.maximum(along, s), 2 * s) - along) * v / norm(v)
    if form == "match_norm":
        return x + s * norm(x) * v / norm(v)
    new = x + s * v
    return new if form == "add" else new * norm(x) / norm(new)


def edit_of(vector: SteeringVector, form: str, s: float, **where):
    return vector.cap(s, 2 * s, **where) if form == "cap" else vector.edit(s, form=form, **where)


FORMS = ["add", "match_norm", "keep_norm", "cap"]


@pytest.mark.parametrize("form", FORMS)
def test_forms_at_one_layer(model, tokens, vector, form) -> None:
    """The edited value is that of numpy, and layers before it are as they were."""
    plain = ij.capture(models.forward, SITE, output=False)(model, tokens)[SITE]
    edit = edit_of(vector.at_layers(1), form, 0.7)
    steered = ij.capture(ij.intervene(models.forward, {SITE: edit}), SITE, output=False)(model, tokens)[SITE]
    np.testing.assert_allclose(
        steered[1], by_hand(form, np.asarray(plain[1]), np.asarray(vector.vectors[1]), 0.7), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(steered[0], plain[0])
    assert not np.allclose(steered[2], plain[2], atol=1e-3)


def test_all_layers_and_some(model, tokens, vector) -> None:
    """The library's `add` says the same, layer by layer."""

    def run(edits):
        return ij.intervene(models.forward, edits)(model, tokens)

    want = run({SITE: per_layer(add(2 * vector.vectors))})
    np.testing.assert_allclose(run({SITE: vector.edit(2.0)}), want, atol=1e-5)
    np.testing.assert_allclose(run({SITE: vector}), run({SITE: per_layer(add(vector.vectors))}), atol=1e-5)
    some = run({SITE: vector.at_layers(2, 0).edit(-1.0)})
    want = run({f"blocks.{k}.resid_post": add(-vector.vectors[k]) for k in (0, 2)})
    np.testing.assert_allclose(some, want, atol=1e-5)
    one = SteeringVector.create(vector.vectors[0], SITE)
    np.testing.assert_allclose(run({SITE: one}), run({SITE: add(vector.vectors[0])}), atol=1e-5)


def test_bounds_of_each_layer(model, tokens, vector) -> None:
    """After the edit, what stands along each layer's vector is at least its bound."""
    low = jnp.array([0.5, -0.2, 1.0])
    steered = ij.intervene(models.forward, {SITE: vector.cap(low)})
    x = ij.capture(steered, SITE, output=False)(model, tokens)[SITE]
    unit = vector.vectors / jnp.linalg.norm(vector.vectors, axis=-1, keepdims=True)
    along = jnp.einsum("lbpd,ld->lbp", x, unit)
    assert (along > low[:, None, None] - 1e-4).all()
    assert (jnp.abs(along - low[:, None, None]) < 1e-4).any() and (along > low[:, None, None] + 0.1).any()


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16(form) -> None:
    """Computed in float32, and cast: the nearest bfloat16 to what numpy gives."""
    x = jax.random.normal(jax.random.key(0), (4, 32)).astype(jnp.bfloat16)
    v = jax.random.normal(jax.random.key(1), (32,))
    edit = edit_of(SteeringVector.create(v, "x"), form, 0.9)
    got = ij.intervene(lambda x: ij.site(x, "x", axes=("position", "d_model")), {"x": edit})(x)
    assert got.dtype == jnp.bfloat16
    want = by_hand(form, np.asarray(x, np.float64), np.asarray(v, np.float64), 0.9)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=2**-8, atol=1e-6)


def test_strengths_are_mapped_and_nothing_is_compiled_again(model, tokens, vector) -> None:
    traced = 0

    def f(model, tokens):
        nonlocal traced
        traced += 1
        return models.forward(model, tokens)

    @jax.jit
    def logits(model, vector, strength):
        return ij.intervene(f, {SITE: vector.edit(strength, form="keep_norm")})(model, tokens)

    together = jax.vmap(logits, (None, None, 0))(model, vector, jnp.array([0.0, 1.0, -3.0]))
    before = traced
    for i, strength in enumerate((0.0, 1.0, -3.0)):
        one = ij.intervene(models.forward, {SITE: vector.edit(strength, form="keep_norm")})(model, tokens)
        np.testing.assert_allclose(together[i], one, atol=1e-4)
    jax.vmap(logits, (None, None, 0))(model, vector, jnp.array([5.0, 1.0, 2.0]))
    assert traced == before

    # Nor by an eager call: the edit holds arrays only, whatever is said of the vector.
    other = SteeringVector.create(vector.vectors[::-1], SITE, how="otherwise", model="another")
    ij.intervene(f, {SITE: vector.edit(1.0)})(model, tokens)
    before = traced
    ij.intervene(f, {SITE: other.edit(2.0)})(model, tokens)
    assert traced == before


def test_many_controls_are_one_program(model, tokens, vector) -> None:
    """A stack of vectors is mapped over as strengths are."""
    drawn = jax.vmap(steering.random, (0, None))(jax.random.split(jax.random.key(0), 4), vector.vectors)

    def logits(vectors):
        edit = SteeringVector.create(vectors, SITE).at_layers(1).edit(2.0)
        return ij.intervene(models.forward, {SITE: edit})(model, tokens)

    together = jax.vmap(logits)(drawn)
    np.testing.assert_allclose(together, np.stack([logits(vectors) for vectors in drawn]), atol=1e-4)


def test_a_sharded_batch(model, vector) -> None:
    """Vectors are made and added where the batch lies on eight devices, as they are on one."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    positive, negative = jax.random.randint(jax.random.key(0), (2, 16, 6), 0, 37)
    rows, everywhere = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    spread = jax.device_put(model, everywhere), *jax.device_put((positive, negative), rows)
    g = steering.vectors(models.forward, SITE)
    np.testing.assert_allclose(g(*spread).vectors, g(model, positive, negative).vectors, atol=1e-5)
    steered = ij.intervene(models.forward, {SITE: vector.edit(0.5, form="keep_norm")})
    np.testing.assert_allclose(steered(*spread[:2]), steered(model, positive), atol=1e-4)


def test_the_gradient_with_respect_to_strength(model, tokens, vector) -> None:
    def loss(strength):
        return ij.intervene(models.forward, {SITE: vector.edit(strength, form="match_norm")})(model, tokens)[
            ..., 3
        ].mean()

    h = 1e-2
    want = (loss(jnp.float32(0.5 + h)) - loss(jnp.float32(0.5 - h))) / (2 * h)
    np.testing.assert_allclose(jax.grad(loss)(jnp.float32(0.5)), want, rtol=0.02, atol=1e-3)


NEW = 6


@pytest.fixture(scope="module")
def chat():
    """microworld-chat in float32, prompts of two lengths, and the vector between harmful and harmless requests."""
    model, tokenizer = models.load("microworld-chat", dtype=jnp.float32)
    train = data.tasks.refusal(jax.random.key(1), tokenizer, n=64, split="train")
    harmful = np.asarray(train.attributes["harmful"] == "yes")
    side = [np.flatnonzero(harmful), np.flatnonzero(~harmful)]
    g = steering.vectors(models.forward, SITE, model="microworld-chat")
    given = [x[rows] for x in (train.clean, train.mask) for rows in side]
    vector = g(model, *given)
    requests = ["how do i paint a car ?", "help me to build a bomb ."]
    conversations = [[{"role": "user", "content": request}] for request in requests]
    tokens, mask, _ = models.tokenize(tokenizer, conversations, chat=True)
    return model, tokenizer, vector, np.asarray(tokens), np.asarray(mask)


def uncached(model, tokens, mask, edit_of_part) -> np.ndarray:
    """Greedy continuations, the whole text run anew for each token; `edit_of_part` of the lengths of the prompts."""
    rows = [list(row[real]) for row, real in zip(tokens, mask, strict=True)]
    width, lengths = max(map(len, rows)) + NEW, np.array([len(row) for row in rows])
    f = jax.jit(ij.intervene(models.forward, {SITE: edit_of_part(lengths, width)}))
    for _ in range(NEW):
        padded, real = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), bool)
        for i, row in enumerate(rows):
            padded[i, : len(row)], real[i, : len(row)] = row, True
        logits = np.asarray(f(model, padded, attention_mask=real))
        for i, row in enumerate(rows):
            row.append(int(logits[i, len(row) - 1].argmax()))
    return np.array([row[-NEW:] for row in rows])


@pytest.mark.parametrize(("form", "strength"), [("add", 1.5), ("match_norm", 1.0), ("keep_norm", 1.5), ("cap", 20.0)])
@pytest.mark.parametrize("part", [None, "prompt", "generated"])
def test_with_the_cache_as_without(chat, form, strength, part) -> None:
    """Token by token, everywhere, in the prompt only and after it only."""
    model, _, vector, tokens, mask = chat
    vector = vector.at_layers(1, 2)

    def edit(lengths, width):
        generated = np.arange(width) >= lengths[:, None]
        chosen = {None: np.ones_like(generated), "prompt": ~generated, "generated": generated}[part]
        return at(edit_of(vector, form, strength), mask=chosen)

    edits = {SITE: edit_of(vector, form, strength, position=part)}
    run = partial(models.generate, model, tokens, NEW, attention_mask=mask)
    got = np.asarray(run(edits=edits))[:, -NEW:]
    assert (got != np.asarray(run())[:, -NEW:]).any(), "an edit that does nothing shows nothing"
    np.testing.assert_array_equal(got, uncached(model, tokens, mask, edit))


def test_a_vector_is_itself_an_edit(chat) -> None:
    """It adds itself once, in generation too, under `at` and beside others."""
    model, _, vector, tokens, mask = chat
    run = partial(models.generate, model, tokens, NEW, attention_mask=mask)
    np.testing.assert_array_equal(run(edits={SITE: vector}), run(edits={SITE: vector.edit(1.0)}))
    got = run(edits={SITE: chain(at(vector, layer=2), at(vector, layer=1, position="generated"))})
    want = chain(vector.at_layers(2).edit(), vector.at_layers(1).edit(position="generated"))
    np.testing.assert_array_equal(got, run(edits={SITE: want}))


def test_it_refuses_where_it_is_told_to(chat) -> None:
    """The vector between harmful and harmless requests makes the chat model say sorry, and not, as it is added."""
    model, tokenizer, vector, tokens, mask = chat
    sorry = tokenizer.token_id(" sorry")

    def first(strength):
        edits = {SITE: vector.at_layers(2).edit(strength)}
        return np.asarray(models.generate(model, tokens, 1, attention_mask=mask, edits=edits))[:, -1]

    assert (first(0.0) == sorry).tolist() == [False, True]
    assert (first(1.0) == sorry).tolist() == [True, True]
    assert (first(-2.0) == sorry).tolist() == [False, False]


def test_directions_of_probes_and_lenses_are_vectors() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 60, 128))
    probe = probes.logistic(x, (x[0, :, 0] > 0).astype(jnp.int32))
    model, _ = models.load("microworld")
    read = lens.directions(lens.JacobianLens.create(128, 4), models.weights(model), jnp.int32(17))
    for direction in (probe.direction, read):
        vector = SteeringVector.create(direction, SITE, how="a probe or a lens")
        assert vector.layers == (0, 1, 2, 3)
        assert ij.intervene(models.forward, {SITE: vector.edit(4.0)})(model, jnp.array([1, 5])).shape == (2, 641)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: v.edit([1.0, 2.0]), r"a strength of shape \[2\]: give one number"),
        (lambda v: v.edit(float("nan")), "a strength of nan"),
        (lambda v: v.edit(1e30), "a strength of 1e.30 times a vector of norm .* overflows float32"),
        (lambda v: v.edit(jnp.float32(1e25), form="match_norm"), "overflows float32"),
        (lambda v: v.edit(form="cap"), r"form='cap' is none of .*use cap\(low=, high=\)"),
        (lambda v: v.edit(position="answer"), "position='answer' is neither"),
        (lambda v: v.cap(), r"cap of bounds \[\]: give low="),
        (lambda v: v.cap(jnp.ones(2)), r"cap of bounds \[\[2\]\]"),
        (lambda v: v.at_layers(3), r"at_layers\(3,\): the vector has layers \(0, 1, 2\)"),
        (lambda v: SteeringVector.create(v.vectors, SITE, layers=(0, 0, 1)), "give one number from 0 for each"),
        (lambda v: SteeringVector.create(v.vectors, "blocks.1.resid_post"), "is one layer, the vectors are a stack"),
        (lambda v: SteeringVector.create(v.vectors[0], SITE, layers=(0,)), "of one vector"),
        (lambda v: SteeringVector.create(v.vectors / 0, SITE, how="nothing"), "made by nothing hold numbers"),
        (lambda v: SteeringVector.create(jnp.ones(()), SITE), r"vectors are \[layer d_model\]"),
    ],
)
def test_bad_input_is_one_line(vector, make, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make(vector)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("site", "made", "message"),
    [
        (SITE, lambda: SteeringVector.create(jnp.ones((3, 8)), SITE), r"a vector of width 8 at site .*\[2, 5, 16\]"),
        (SITE, lambda: SteeringVector.create(jnp.ones(1), SITE), "a vector of width 1 at site"),
        (SITE, lambda: SteeringVector.create(jnp.ones((4, 16)), SITE), "has layer 3, site .* has layers 0 to 2"),
        ("embed", lambda: SteeringVector.create(jnp.ones((1, 16)), "embed"), "has layer 0, site 'embed' has no layers"),
        (
            "blocks.0.resid_post",
            lambda: SteeringVector.create(jnp.ones((1, 16)), SITE, layers=[2]),
            "is edited at layer 0, and the vector has layers",
        ),
        (
            SITE,
            lambda: per_layer(SteeringVector.create(jnp.ones((3, 16)), SITE)),
            "each takes its own by itself, without per_layer",
        ),
    ],
)
def test_a_vector_of_another_place_is_refused(model, tokens, site, made, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ij.intervene(models.forward, {site: made()})(model, tokens)
    assert "\n" not in str(error.value)


def test_shown_in_one_line(vector) -> None:
    assert repr(vector) == (
        "SteeringVector(vectors=float32[3,16], site='blocks.resid_post', layers=(0, 1, 2), how='drawn', model='tiny')"
    )
    assert repr(vector.edit(2.0)) == "steer(vectors=float32[3,16], strength=2.0, layers=(0, 1, 2), form='add')"
