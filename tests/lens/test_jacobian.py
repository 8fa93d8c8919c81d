"""The Jacobian lens: exact on a linear model, beside `jax.jacobian`, resumed, sharded, saved; its directions."""

from dataclasses import replace
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from interp_jax import lens, models, weights
from tests.models.conftest import CONFIGS, random_model

AXES = ("batch", "position", "d_model")
RNG = np.random.default_rng(0)


def linear(parameters: Any, tokens: Any) -> Any:
    """Each layer adds to a token a map of it and a map of the mean of those up to it."""
    h = parameters["E"][tokens]
    n = h.shape[1]
    past = jnp.tril(jnp.ones((n, n))) / jnp.arange(1.0, n + 1)[:, None]
    for layer, (A, B) in enumerate(zip(parameters["A"], parameters["B"], strict=True)):
        h = ij.site(h, "blocks.resid_pre", layer=layer, axes=AXES)
        h = h + h @ A.T + past @ h @ B.T
        h = ij.site(h, "blocks.resid_post", layer=layer, axes=AXES)
    return h @ parameters["U"]


def random_linear(n_layers: int = 3, d: int = 5) -> Any:
    normal = partial(RNG.normal, scale=0.5)
    shapes = {"E": (7, d), "A": (n_layers, d, d), "B": (n_layers, d, d), "U": (d, 7)}
    return {name: jnp.asarray(normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def test_exact_on_a_linear_model() -> None:
    """The map from every position to every later one, by Kronecker products in float64."""
    parameters, n, d = random_linear(), 6, 5
    past = np.tril(np.ones((n, n))) / np.arange(1, n + 1)[:, None]
    whole, wanted = np.eye(n * d), []
    for A, B in zip(np.float64(parameters["A"][::-1]), np.float64(parameters["B"][::-1]), strict=True):
        whole = whole @ (np.eye(n * d) + np.kron(np.eye(n), A) + np.kron(past, B))
        kept = whole.reshape(n, d, n, d)[1:5, :, 1:5]  # to position, to dimension, from position, from dimension
        wanted.append(kept.sum(0).mean(1))
    tokens = jnp.asarray(RNG.integers(0, 7, (2, n)))
    start = lens.JacobianLens.create(d, 3)
    found = lens.fit_jacobian(start, linear, parameters, [tokens], skip_first=1, skip_last=1)
    np.testing.assert_allclose(found.J, wanted[::-1], rtol=1e-5, atol=1e-6)
    assert (int(found.n_texts), int(found.n_positions)) == (2, 8)
    # At the last position, where nothing comes after, the lens is the model.
    found = lens.fit_jacobian(start, linear, parameters, [tokens[:, :1]], skip_first=0, skip_last=0)
    logits, acts = ij.capture(linear, "blocks.resid_pre")(parameters, tokens[:, :1])
    read = found({"W_U": parameters["U"]}, acts["blocks.resid_pre"])
    np.testing.assert_allclose(read, jnp.broadcast_to(logits, read.shape), rtol=1e-4, atol=1e-5)


def brute_force(model: Any, tokens: Any, site: str, counted: Any) -> np.ndarray:
    """J of one text without padding, from the whole Jacobian between every two positions."""
    n_layers = model.config.n_layers

    def last(deltas: Any) -> Any:
        edits = {site.replace("blocks", f"blocks.{i}"): iv.add(deltas[i]) for i in range(n_layers)}
        end = f"blocks.{n_layers - 1}.resid_post"
        return ij.capture(ij.intervene(models.forward, edits), end, output=False)(model, tokens)[end]

    whole = jax.jacobian(last)(jnp.zeros((n_layers, len(tokens), model.config.d_model)))  # [to, d, layer, from, d]
    kept = np.asarray(whole)[counted][:, :, :, counted]
    return np.moveaxis(kept.sum(0).mean(2), 0, 1)


@pytest.mark.parametrize("family", ["gpt2", "llama", pytest.param("gemma", marks=pytest.mark.long)])
@pytest.mark.parametrize("scanned", [False, True])
def test_beside_the_whole_jacobian(family: str, scanned: bool) -> None:
    """Every layer, ragged texts with padding on the right and on the left, chunks that do not divide d_model."""
    looped = random_model(CONFIGS[family])
    model = models.stack_layers(looped) if scanned else looped
    config, (n, short) = model.config, (7, 5)
    tokens = jnp.asarray(RNG.integers(0, config.d_vocab, (2, n)))
    site = "blocks.resid_post" if scanned else "blocks.resid_pre"
    counted = [np.arange(2, size - 1) for size in (n, short)]
    wanted = np.mean([brute_force(looped, tokens[i, : (n, short)[i]], site, counted[i]) for i in range(2)], 0)
    start = lens.JacobianLens.create(config.d_model, config.n_layers)
    fit = partial(lens.fit_jacobian, start, site=site, skip_first=2, skip_last=1)
    right = jnp.arange(n) < jnp.array([[n], [short]])
    found = fit(models.forward, model, [(tokens, right)], chunk=3)
    np.testing.assert_allclose(found.J, wanted, rtol=1e-3, atol=1e-4)
    assert int(found.n_positions) == n + short - 6
    if scanned:  # of the last layer's own output it is the identity
        np.testing.assert_allclose(found.J[-1], np.eye(config.d_model), atol=1e-6)
    left = jnp.arange(n) >= jnp.array([[0], [n - short]])
    shifted = {"tokens": tokens.at[1].set(jnp.roll(tokens[1], n - short)), "mask": left}
    padded = lambda model, x: models.forward(model, x["tokens"], attention_mask=x["mask"])  # noqa: E731
    np.testing.assert_allclose(fit(padded, model, [(shifted, left)]).J, found.J, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def small() -> Any:
    return models.stack_layers(random_model(CONFIGS["llama"]))


@pytest.fixture(scope="module")
def texts() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).integers(0, 37, (3, 8, 10)))


def started(model: Any, **options: Any) -> lens.JacobianLens:
    return lens.JacobianLens.create(model.config.d_model, model.config.n_layers, **options)


FIT: dict[str, Any] = {"skip_first": 2}


def test_resumed_it_is_the_same_bit_for_bit(small, texts, tmp_path) -> None:
    kept = []
    keep = lambda one: (lens.save(tmp_path / "half", one, seen=len(kept)), kept.append(one))  # noqa: E731
    whole = lens.fit_jacobian(started(small), models.forward, small, texts, report=keep, **FIT)
    assert [int(one.n_texts) for one in kept] == [8, 16, 24]
    chex.assert_trees_all_equal(lens.load(tmp_path / "half"), whole)
    lens.save(tmp_path / "half", kept[0])
    resumed = lens.fit_jacobian(lens.load(tmp_path / "half"), models.forward, small, texts[1:], **FIT)
    chex.assert_trees_all_equal(resumed, whole)
    each = [lens.fit_jacobian(started(small), models.forward, small, [t], **FIT).J for t in texts.reshape(24, 1, 10)]
    np.testing.assert_allclose(whole.J, np.mean(each, 0), rtol=1e-4, atol=1e-5)


def test_a_batch_compiles_once(small, texts) -> None:
    count = []

    def f(model: Any, tokens: Any) -> Any:
        count.append(1)
        return models.forward(model, tokens)

    one = lens.fit_jacobian(started(small), f, small, texts[:1], **FIT)
    before = len(count)
    lens.fit_jacobian(one, f, small, texts, **FIT)
    assert len(count) == before


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_sharded_along_the_batch(small, texts, kind, tmp_path) -> None:
    alone = lens.fit_jacobian(started(small), models.forward, small, texts, **FIT)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(getattr(AxisType, kind),))
    lens.save(tmp_path / "lens", lens.fit_jacobian(started(small), models.forward, small, texts[:1], **FIT))
    with jax.set_mesh(mesh):
        everywhere, rows = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("data")))
        model, tokens = jax.device_put(small, everywhere), [jax.device_put(t, rows) for t in texts]
        start = lens.load(tmp_path / "lens")  # on one device
        found = lens.fit_jacobian(start, models.forward, model, tokens[1:], **FIT)
    np.testing.assert_allclose(found.J, alone.J, rtol=1e-4, atol=1e-5)
    assert len(found.J.sharding.device_set) == 8 and int(found.n_texts) == 24


def test_no_activation_is_gathered(small) -> None:
    """What devices exchange is of J's size, not of the texts'."""
    from interp_jax.lens.jacobian import _slopes

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    tokens = jax.device_put(jnp.zeros((8, 30), jnp.int32), rows)
    options = ("blocks.resid_pre", None, 2, 1, 4, (3, 16))
    compiled = jax.jit(partial(_slopes, options, models.forward)).lower(small, tokens, None).compile().as_text()
    assert "all-gather" not in compiled and "all-to-all" not in compiled and "all-reduce" in compiled


def test_bfloat16(small, texts) -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), small)
    found, wanted = (lens.fit_jacobian(started(small), models.forward, m, texts, **FIT).J for m in (half, small))
    assert found.dtype == jnp.float32
    assert float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted)) < 0.05


def test_saved_and_loaded(tmp_path) -> None:
    one = replace(
        lens.JacobianLens.create(3, 2, eps=1e-6, centred=True, capped=True),
        J=jax.random.normal(jax.random.key(0), (2, 3, 3)),
        n_texts=jnp.int32(5),
    )
    lens.save(tmp_path / "lens", one, site="blocks.resid_pre")
    chex.assert_trees_all_equal(lens.load(tmp_path / "lens"), one)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_direction_is_the_slope_of_the_logit_that_is_read(family) -> None:
    """Along it, the lens's logit of the token, its norm's scale held, rises the most: the slope by jax.grad."""
    model = random_model(CONFIGS[family])
    w, d = models.weights(model), model.config.d_model
    J = jnp.asarray(RNG.normal(size=(3, d, d)), jnp.float32)
    one = replace(started(model), J=J)
    tokens = jnp.array([[3, 4, 5]])
    found = lens.directions(one, w, tokens)
    assert found.shape == (3, 1, 3, d)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 1, rtol=1e-5)
    centred = "ln_final_b" in w

    def logit(h: Any, token: Any) -> Any:
        x = J[1] @ h
        return ((x - x.mean() if centred else x) * w["ln_final_w"]) @ w["W_U"][:, token]

    slope = jax.grad(logit)(jnp.zeros(d), 4)
    np.testing.assert_allclose(found[1, 0, 1], slope / jnp.linalg.norm(slope), atol=1e-5)
    folded = lens.directions(replace(one, centred=centred), weights.fold_norms(w), tokens)
    np.testing.assert_allclose(folded, found, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_swap_exchanges_coordinates_by_least_squares(dtype) -> None:
    h, pair = RNG.normal(size=(2, 4, 6)), RNG.normal(size=(3, 2, 6))

    def f(x: Any) -> Any:
        for layer in range(3):
            x = ij.site(x, "h", layer=layer, axes=AXES)
        return x

    wanted = h
    for V in np.swapaxes(pair / np.linalg.norm(pair, axis=-1, keepdims=True), 1, 2):  # [d 2]
        c = wanted @ np.linalg.pinv(V).T
        wanted = wanted + (c[..., ::-1] - c) @ V.T
    edit = lens.swap(*jnp.asarray(np.moveaxis(pair, 1, 0), jnp.float32))
    found = ij.intervene(f, {"h": edit})(jnp.asarray(h, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=1e-5 if dtype == jnp.float32 else 0.05)
    same = ij.intervene(f, {"h": lens.swap(jnp.ones(6), 2 * jnp.ones(6))})(jnp.asarray(h, dtype))
    np.testing.assert_array_equal(same, jnp.asarray(h, dtype))


def test_bad_input(small, texts) -> None:
    start = started(small)
    fit = partial(lens.fit_jacobian, start, models.forward, small)
    refused = [
        (lambda: fit([]), "there is no batch; give tokens"),
        (lambda: fit(texts), "no text has a position that counts beside its first 16 and last 1; give longer texts"),
        (lambda: fit(texts, skip_first=-1), "skip_first=-1 and skip_last=1 must not be negative"),
        (lambda: fit(texts, site="blocks.1.resid_pre"), "is not of every layer: give a residual stream without"),
        (lambda: fit(texts, site="blocks.mlp.post"), "a lens of 3 layers of 16, but 'blocks.mlp.post' has 3 of 24"),
        (lambda: fit(texts, site="blocks.resid*"), r"names \d sites, a lens reads one"),
        (lambda: fit([(texts[0], jnp.ones((8, 3), bool))]), r"a mask of shape \[8, 3\] for \[8, 10\]"),
        (lambda: fit(texts, final="blocks.2.mlp.post"), r"'blocks.2.mlp.post' has shape \[8, 10, 24\], wanted"),
    ]
    for call, message in refused:
        with pytest.raises(ValueError, match=f"^fit_jacobian: .*{message}") as error:
            call()
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="chunk=0"):
        fit(texts, chunk=0)
    broken = jax.tree.map(lambda x: x * jnp.nan, small)
    with pytest.raises(FloatingPointError, match="batch 0: a slope is not finite"):
        lens.fit_jacobian(start, models.forward, broken, texts, **FIT)
    with pytest.raises(ValueError, match="JacobianLens.create: d_model=0"):
        lens.JacobianLens.create(0, 1)
    with pytest.raises(ValueError, match=r"^JacobianLens: a residual stream of shape \[2, 16\], wanted \[3, ..., 16\]"):
        start(models.weights(small), jnp.zeros((2, 16)))
    with pytest.raises(ValueError, match="directions: a lens of d_model 16, but the unembedding reads 2"):
        lens.directions(start, {"W_U": jnp.eye(2)}, jnp.array(1))
    with pytest.raises(ValueError, match="swap: site 'x' has a last axis of 2"):
        ij.intervene(lambda x: ij.site(x, "x"), {"x": lens.swap(jnp.ones(3), jnp.ones(3))})(jnp.ones(2))
