"""A direction taken out of activations and of weights, and chosen among candidates, beside numpy and loops."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import metrics, models, steering
from interp_jax.interventions import at
from tests.models.conftest import CONFIGS, FAMILY, random_model

RNG = np.random.default_rng(0)
DIRECTION = RNG.normal(size=16).astype(np.float32) * 3
UNIT = DIRECTION / np.linalg.norm(DIRECTION)
TOKENS = jnp.asarray(RNG.integers(0, 37, (2, 5)), jnp.int32)
WRITES = ("embed", "blocks.attn_out", "blocks.mlp_out")
WRITERS = {"W_E", "W_pos", "W_O", "W_out", "b_O", "b_out"}
PRE = {"gpt2": CONFIGS["gpt2"], "llama": CONFIGS["llama"], "neox": CONFIGS["neox"]}
PRE["gemma"] = replace(CONFIGS["gemma"], family="gemma", norms="pre", qk_norm="none")  # tied, embeddings scaled


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nothing_is_left_along_the_direction(model, dtype) -> None:
    """Of what is written and of the stream, everywhere; of other directions all is left."""
    model = jax.tree.map(lambda x: x.astype(dtype), model)
    where = {name: lambda x: x.astype(jnp.float32) for name in (*WRITES, "blocks.resid_post")}
    f = ij.intervene(models.forward, steering.ablation(jnp.asarray(DIRECTION)))
    found = ij.capture(f, where, output=False)(model, TOKENS)
    close = 1e-5 if dtype == jnp.float32 else 0.02
    for name, x in found.items():
        assert np.abs(np.asarray(x) @ UNIT).max() < 3 * close * np.abs(x).max(), name
    embed = np.asarray(models.weights(model)["W_E"][TOKENS], np.float32)
    np.testing.assert_allclose(found["embed"], embed - (embed @ UNIT)[..., None] * UNIT, atol=close)


@pytest.mark.parametrize(("name", "scanned"), [*((name, False) for name in PRE), ("llama", True)])
def test_weights_equal_the_edits(name, scanned) -> None:
    """Biases and position embeddings, parallel blocks, tied and scaled embeddings."""
    model = random_model(PRE[name])
    model = models.stack_layers(model) if scanned else model
    weights = models.weights(model)
    new = steering.orthogonalize(weights, jnp.asarray(DIRECTION))
    for key in WRITERS & weights.keys():
        w = np.asarray(weights[key], np.float64)
        np.testing.assert_allclose(new[key], w - (w @ UNIT)[..., None] * UNIT, atol=1e-5)
    assert new.keys() == weights.keys() and all(new[key] is weights[key] for key in weights.keys() - WRITERS)
    edited = models.with_weights(models.untie(model), new)
    want = ij.intervene(models.forward, steering.ablation(jnp.asarray(DIRECTION)))(model, TOKENS)
    np.testing.assert_allclose(models.forward(edited, TOKENS), want, atol=1e-4)
    assert np.abs(want - models.forward(model, TOKENS)).max() > 0.01


def test_tied_embeddings_are_not_altered_silently() -> None:
    """The unembedding is no write: a model that has none of its own is refused, with the remedy."""
    model = random_model(PRE["gpt2"])
    assert model.config.tie_embeddings
    new = steering.orthogonalize(models.weights(model), jnp.asarray(DIRECTION))
    with pytest.raises(ValueError, match=r"W_U is its W_E transposed; .*models.untie"):
        models.with_weights(model, new)


@pytest.mark.parametrize("config", [CONFIGS["gemma"], CONFIGS["gemma2"], CONFIGS["olmo"], CONFIGS["bert"]])
def test_norms_between_are_refused(config) -> None:
    with pytest.raises(ValueError, match="a norm .* stands between .*: use steering.ablation") as error:
        steering.orthogonalize(models.weights(random_model(config)), jnp.asarray(DIRECTION))
    assert "\n" not in str(error.value)


def test_ablation_with_norms_between() -> None:
    """What is written after a norm is edited after it."""
    f = ij.intervene(models.hidden, steering.ablation(jnp.asarray(DIRECTION)))
    found = ij.capture(f, list(WRITES), output=False)(random_model(CONFIGS["gemma"]), TOKENS)
    assert all(np.abs(np.asarray(x) @ UNIT).max() < 1e-4 for x in found.values())


def test_a_zero_direction_and_bfloat16() -> None:
    weights = models.weights(jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_model(PRE["gpt2"])))
    same = steering.orthogonalize(weights, jnp.zeros(16))
    assert all((same[name] == x).all() for name, x in weights.items())
    new = jax.jit(steering.orthogonalize)(weights, jnp.asarray(DIRECTION))
    assert all(new[name].dtype == x.dtype for name, x in weights.items())
    assert np.abs(np.asarray(new["W_out"].astype(jnp.float32)) @ UNIT).max() < 0.01


def last(model, tokens):
    return models.forward(model, tokens)[:, -1]


METRIC = metrics.log_odds(jnp.array([3, 7]))
CANDIDATES = jnp.asarray(RNG.normal(size=(3, 2, 16)), jnp.float32)


def by_hand(model, positive, negative):
    """Bypass, induce and KL `[layer position]`, one run after the other, in numpy."""

    def odds(logits):
        p = np.exp(np.asarray(logits, np.float64))
        p = p[:, [3, 7]].sum(1) / p.sum(1)
        return (np.log(p) - np.log(1 - p)).mean()

    def log_p(logits):
        logits = np.asarray(logits, np.float64)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    @jax.jit
    def edited(model, positive, negative, v, layer):
        unit = v / jnp.linalg.norm(v)
        run = ij.intervene(last, {name: lambda x: x - (x @ unit)[..., None] * unit for name in WRITES})
        added = ij.intervene(last, {"blocks.resid_pre": at(lambda x: x + v, layer=layer)})
        return run(model, positive), added(model, negative), run(model, negative)

    plain = log_p(last(model, negative))
    found = np.zeros((3, 3, 2))
    for layer in range(3):
        for position in range(2):
            out, added, without = edited(model, positive, negative, CANDIDATES[layer, position], jnp.int32(layer))
            kl = (np.exp(plain) * (plain - log_p(without))).sum(-1).mean()
            found[:, layer, position] = odds(out), odds(added), kl
    return found


def test_scores_of_candidates(model) -> None:
    positive, negative = TOKENS, jnp.asarray(np.random.default_rng(1).integers(0, 37, (3, 4)), jnp.int32)
    got = jax.jit(steering.direction_scores(last, METRIC, chunk=4))(model, positive, negative, CANDIDATES)
    assert all(x.dtype == jnp.float32 for x in got)
    np.testing.assert_allclose(np.stack(got), by_hand(model, positive, negative), atol=1e-4)


def test_the_choice() -> None:
    """Brute force: the least bypass of those allowed, whatever the others have."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        bypass, induce = rng.normal(size=(2, 10, 3))
        kl = rng.uniform(0, 0.3, (10, 3))
        allowed = [(b, i, j) for (i, j), b in np.ndenumerate(bypass) if i < 8 and induce[i, j] > 0 and kl[i, j] < 0.1]
        got = steering.best_direction(steering.DirectionScores(*map(jnp.asarray, (bypass, induce, kl))))
        assert got == min(allowed)[1:]
    late = steering.DirectionScores(jnp.zeros((5, 1)), jnp.array([[-1.0]] * 4 + [[1.0]]), jnp.zeros((5, 1)))
    with pytest.raises(ValueError, match="no direction below layer 4 .*the most that one induces is -1"):
        steering.best_direction(late)
    assert steering.best_direction(late, below=1.0) == (4, 0)


W = models.weights(random_model(PRE["gpt2"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: steering.ablation(jnp.ones((3, 16))), r"a direction is \[d_model\], not \[3, 16\]"),
        (lambda: steering.orthogonalize(W, jnp.ones(12)), r"shape \[12\], and the model has d_model 16"),
        (lambda: steering.orthogonalize({"W_E": W["W_E"]}, jnp.ones(16)), "no W_O among the weights: give"),
        (lambda: steering.direction_scores(last, METRIC, chunk=0), "chunk=0: it must be at least 1"),
    ],
)
def test_bad_input_is_one_line(make, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": jnp.ones((3, 16))}, r"candidates \[3, 16\]: give a vector for each layer and position"),
        ({"candidates": jnp.ones((4, 2, 16))}, "candidates of 4 layers and width 16, and .* has 3 layers"),
        ({"candidates": jnp.ones((3, 2, 12))}, "candidates of 3 layers and width 12, .* and width 16"),
        ({"metric": lambda logits: logits.mean()}, r"the metric gave \[\] for \[2\] examples"),
    ],
)
def test_bad_candidates_are_one_line(model, change, message) -> None:
    given = {"metric": METRIC, "candidates": CANDIDATES, **change}
    with pytest.raises(ValueError, match=message) as error:
        steering.direction_scores(last, given["metric"])(model, TOKENS, TOKENS, given["candidates"])
    assert "\n" not in str(error.value)


@pytest.mark.long
def test_a_family_of_every_kind_has_its_answer() -> None:
    """Equal weights or a refusal: no family gets weights that are not those of the edit."""
    told = {}
    for name, config in FAMILY.items():
        model, r = random_model(config), jnp.asarray(DIRECTION[: config.d_model])
        try:
            new = steering.orthogonalize(models.weights(model), r)
        except ValueError:
            told[name] = "refused"
            continue
        edited = ij.intervene(models.forward, steering.ablation(r))(model, TOKENS % config.d_vocab)
        got = models.forward(models.with_weights(models.untie(model), new), TOKENS % config.d_vocab)
        np.testing.assert_allclose(got, edited, atol=1e-4)
        told[name] = "equal"
    assert {name for name, word in told.items() if word == "refused"} == {"gemma2", "gemma3_text", "olmo2", "bert"}
