"""The baselines against scikit-learn, scipy and what defines them; the rest is in test_architectures."""

from dataclasses import replace
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn import decomposition
from sklearn.exceptions import ConvergenceWarning

import interp_jax as ij
from interp_jax import dictionaries
from interp_jax.dictionaries.kinds.baselines.nmf import nonnegative_least_squares
from interp_jax.interventions import at, scale

D_IN, D_SAE, N = 10, 6, 400
KEY = jax.random.key(0)
rng = np.random.default_rng(3)
SOURCES = rng.laplace(size=(N, D_SAE)) * np.linspace(3, 1, D_SAE)
X = np.float32(SOURCES @ rng.normal(size=(D_SAE, D_IN)) + 0.05 * rng.normal(size=(N, D_IN)) + 2)
POSITIVE = np.float32(
    rng.gamma(0.5, size=(N, D_SAE)) @ rng.gamma(0.5, size=(D_SAE, D_IN)) + rng.gamma(1, 0.1, (N, D_IN))
)
TOKENS = jax.random.randint(jax.random.key(2), (4, 7), 0, 30)
NAMES = ["NeuronBasis", "RandomDirections", "PCA", "ICA", "NMF"]
names = pytest.mark.parametrize("name", NAMES)


@functools.cache
def create(name, k=None, seed=0):
    kind, key = getattr(dictionaries, name), jax.random.key(seed)
    if name in ("PCA", "ICA", "NMF"):
        return kind.create(key, D_IN, D_SAE, x=POSITIVE if name == "NMF" else X, k=k)
    return kind.create(key, D_IN, D_IN if name == "NeuronBasis" else 2 * D_IN, k=k)


def f(model, tokens):
    embed, unembed = model
    return ij.site(embed[tokens], "resid", axes=("batch", "position", "d_model")) @ unembed


MODEL = jnp.asarray(X[:30]), jax.random.normal(jax.random.key(4), (D_IN, 30))


def test_pca_is_scikit_learns():
    d, fit = create("PCA"), decomposition.PCA(D_SAE, svd_solver="full").fit(np.float64(X))
    signs = np.sign((d.W_dec * fit.components_).sum(-1))  # each component's is arbitrary
    features = d.encode(X)
    np.testing.assert_allclose(features * signs, fit.transform(X), atol=1e-4)
    np.testing.assert_allclose(d(X), fit.inverse_transform(fit.transform(X)), atol=1e-4)
    np.testing.assert_allclose(d.W_dec @ d.W_dec.T, np.eye(D_SAE), atol=1e-5)
    variances = np.asarray(features).var(0, ddof=1)
    np.testing.assert_allclose(variances, fit.explained_variance_, rtol=1e-4)
    assert (np.diff(variances) < 0).all()


def test_ica_is_scikit_learns_up_to_the_scale_of_its_features():
    d = create("ICA")
    start = int(jax.random.bits(KEY))
    fit = decomposition.FastICA(D_SAE, whiten="unit-variance", random_state=start).fit(np.float64(X))
    features, theirs = np.asarray(d.encode(X)), fit.transform(np.float64(X))
    np.testing.assert_allclose(features / features.std(0), theirs, atol=1e-3)
    np.testing.assert_allclose(d(X), fit.inverse_transform(theirs), atol=1e-3)
    np.testing.assert_allclose(jnp.linalg.norm(d.W_dec, axis=-1), 1, rtol=1e-5)


def test_ica_finds_independent_sources_where_pca_does_not():
    def worst_match(name):  # of a source with the feature that is most like it
        both = np.corrcoef(SOURCES.T, np.asarray(create(name).encode(X)).T)
        return np.abs(both[:D_SAE, D_SAE:]).max(-1).min()

    assert worst_match("ICA") > 0.95 > worst_match("PCA")


def test_nmf_encodes_as_scipy_and_scikit_learn_do():
    d = create("NMF")
    features, least = np.asarray(d.encode(POSITIVE)), np.asarray(d.b_dec)
    rows, targets = np.asarray(d.W_dec, np.float64), np.float64(POSITIVE) - least
    np.testing.assert_array_equal(least, POSITIVE.min(0))
    assert rows.min() >= 0 == features.min()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, rtol=1e-5)
    exact = np.stack([nnls(rows.T, target)[0] for target in targets])
    np.testing.assert_allclose(features, exact, atol=1e-4)

    fit = decomposition.NMF(D_SAE, max_iter=1000, random_state=0).fit(targets)
    fit.set_params(tol=1e-12, max_iter=20_000)  # what follows is convex
    norms = np.linalg.norm(fit.components_, axis=-1)
    other = replace(d, W_dec=jnp.asarray(fit.components_ / norms[:, None], jnp.float32))
    np.testing.assert_allclose(other.encode(POSITIVE), fit.transform(targets) * norms, atol=1e-3)


def test_nmf_fits_as_well_as_scikit_learns():
    targets = np.float64(POSITIVE) - POSITIVE.min(0)
    fit = decomposition.NMF(D_SAE, max_iter=1000, random_state=int(jax.random.bits(KEY))).fit(targets)
    error = np.linalg.norm(np.asarray(create("NMF")(POSITIVE)) - POSITIVE)
    assert error <= fit.reconstruction_err_ * (1 + 1e-4)  # its own coefficients may not be the best for its rows


def test_the_encoder_of_nmf_meets_the_conditions_of_optimality_where_the_solution_is_not_unique():
    rows = jnp.asarray(rng.gamma(1, size=(25, D_IN)), jnp.float32)
    targets = jnp.asarray(rng.normal(size=(40, D_IN)), jnp.float32)
    weights = nonnegative_least_squares(targets, rows, 3000)
    slope = (weights @ rows - targets) @ rows.T
    assert float(weights.min()) == 0
    assert float(slope.min()) > -1e-3
    np.testing.assert_allclose(weights * slope, 0, atol=1e-3)


def test_the_gradient_of_nmfs_features_is_that_of_least_squares_on_the_active_rows():
    d, x = create("NMF"), jnp.asarray(POSITIVE[0])
    active = np.flatnonzero(np.asarray(d.encode(x)) > 1e-3)
    assert 0 < len(active) < D_SAE
    expected = np.zeros((D_SAE, D_IN))
    expected[active] = np.linalg.pinv(np.asarray(d.W_dec, np.float64)[active].T)
    np.testing.assert_allclose(jax.jit(jax.jacrev(d.encode))(x), expected, atol=1e-4)


def test_random_directions_and_their_dual_frame():
    square = dictionaries.RandomDirections.create(jax.random.key(1), D_IN, D_IN, b_dec=X.mean(0))
    for d in (square, create("RandomDirections")):
        np.testing.assert_allclose(jnp.linalg.norm(d.W_enc, axis=0), 1, rtol=1e-5)
        np.testing.assert_allclose(d.encode(X), (X - np.asarray(d.b_dec)) @ np.asarray(d.W_enc), atol=1e-4)
        np.testing.assert_allclose(d(X), X, atol=1e-4)
    np.testing.assert_allclose(square.W_enc.T @ square.W_enc, np.eye(D_IN), atol=1e-5)
    few = dictionaries.RandomDirections.create(jax.random.key(1), D_IN, 4)
    projected = np.asarray(few.W_enc) @ np.linalg.lstsq(np.asarray(few.W_enc), X.T)[0]
    np.testing.assert_allclose(few(X), projected.T, atol=1e-4)
    one, other = (np.asarray(create("RandomDirections", seed=seed).W_enc) for seed in (0, 1))
    assert np.abs(one - other).max() > 0.1
    keys = jax.random.split(KEY, 2000)
    many = np.asarray(jax.vmap(lambda key: dictionaries.RandomDirections.create(key, 3, 4).W_enc)(keys))
    for direction in np.moveaxis(many, -1, 0):  # uniform on the sphere: any two moments are known
        np.testing.assert_allclose(direction.mean(0), 0, atol=5 / (3 * 2000) ** 0.5)
        np.testing.assert_allclose(direction.T @ direction / 2000, np.eye(3) / 3, atol=5 * (4 / 45 / 2000) ** 0.5)


def test_the_neuron_basis_is_the_identity():
    d = create("NeuronBasis")
    np.testing.assert_array_equal(d.encode(X), X)
    np.testing.assert_array_equal(d(X), X)
    two = jax.tree.map(lambda *leaves: jnp.stack(leaves), d, replace(d, b_dec=d.b_dec + 1))
    np.testing.assert_array_equal(two.W_dec, np.stack([np.eye(D_IN)] * 2))
    np.testing.assert_array_equal(jax.vmap(lambda d: d.encode(X))(two)[1], X - 1)


@names
def test_k_keeps_the_features_of_largest_magnitude(name):
    x = POSITIVE if name == "NMF" else X
    full, kept = np.asarray(create(name).encode(x)), np.asarray(create(name, 2).encode(x))
    np.testing.assert_allclose(create(name, 2).pre_activations(x), full, atol=1e-6)
    threshold = np.sort(np.abs(full))[:, -2:-1]
    np.testing.assert_allclose(kept, np.where(np.abs(full) >= threshold, full, 0), atol=1e-6)
    assert (np.count_nonzero(kept, axis=-1) <= 2).all()
    assert (kept.min() < 0) == (name != "NMF")


@names
def test_spliced_scored_and_saved(name, tmp_path):
    d = create(name, 2)
    scores = dictionaries.evaluate(f, "resid", d, MODEL, TOKENS)
    x = np.asarray(MODEL[0][TOKENS]).reshape(-1, D_IN)
    features = np.asarray(d.encode(x))
    assert scores.l0 == pytest.approx((features != 0).sum(-1).mean())
    assert scores.dead == pytest.approx((features == 0).all(0).mean())
    np.testing.assert_allclose(scores.fvu, ((d(x) - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(), rtol=1e-3)

    edit = dictionaries.splice(d, edit=at(scale(0.0), feature=1))
    change = ij.capture(ij.intervene(f, {"resid": edit}), "resid", output=False)(MODEL, TOKENS)["resid"]
    change = np.asarray(change).reshape(-1, D_IN) - x
    np.testing.assert_allclose(change, -features[:, 1:2] * np.asarray(d.W_dec[1]), atol=1e-3)

    dictionaries.save(tmp_path / "all", create(name))
    assert dictionaries.load(tmp_path / "all").k is None
    with pytest.raises(ValueError, match=f"SAELens has no form of a {name} dictionary"):
        dictionaries.save(tmp_path / "d", d, format="sae_lens")


@names
def test_heads_are_flattened_and_a_stack_is_mapped(name):
    one, other, x = create(name, 2), create(name, 2, seed=1), jnp.asarray(POSITIVE[:12])
    heads = x.reshape(12, 2, D_IN // 2)
    np.testing.assert_allclose(one(heads), one(x).reshape(heads.shape), atol=1e-5)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)
    mapped = jax.jit(jax.vmap(lambda d, x: d(x), (0, None)))(both, x)
    np.testing.assert_allclose(mapped[1], other(x), atol=1e-4)
    np.testing.assert_allclose(jax.vmap(one)(x), one(x), atol=1e-4)


@pytest.mark.parametrize("name", ["PCA", "ICA", "NMF"])
def test_a_fit_takes_bfloat16_and_is_the_same_for_the_same_key(name):
    kind, x = getattr(dictionaries, name), jnp.asarray(POSITIVE if name == "NMF" else X, jnp.bfloat16)
    one = kind.create(KEY, D_IN, D_SAE, x=x)
    for same in (x, np.asarray(x), np.asarray(x, np.float32)):
        jax.tree.map(np.testing.assert_array_equal, kind.create(KEY, D_IN, D_SAE, x=same), one)
    assert {leaf.dtype for leaf in jax.tree.leaves(one)} == {jnp.dtype("float32")}


def test_training_lowers_the_loss():
    d = create("PCA")
    d = replace(d, W_dec=d.W_dec + 0.1 * jax.random.normal(KEY, d.W_dec.shape))
    state = dictionaries.TrainState.create(d, 200, learning_rate=1e-2)
    end, info = jax.lax.scan(lambda state, _: dictionaries.train_step(state, jnp.asarray(X)), state, length=200)
    best = ((create("PCA")(X) - X) ** 2).sum(-1).mean()  # of all linear dictionaries of this width
    assert float(best) * (1 - 1e-3) < float(info.loss[-1]) < 0.1 * float(info.loss[0])
    assert int(end.step) == 200


def test_a_fit_that_has_not_converged_says_so():
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        dictionaries.ICA.create(KEY, D_IN, D_SAE, x=X, max_iter=1)


FLAT = np.concatenate([X[:, :4], X[:, :4], X[:, :2]], axis=1)


@pytest.mark.parametrize(
    ("name", "d_sae", "keywords", "message"),
    [
        ("NeuronBasis", 12, {}, "NeuronBasis: d_sae=12 must be d_in=10"),
        ("RandomDirections", 12, {"k": 13}, "k=13 is larger than d_sae=12"),
        ("PCA", 11, {"x": X}, r"PCA: d_sae=11 for x of shape \(400, 10\)"),
        ("PCA", 4, {"x": X[:3]}, r"PCA: d_sae=4 for x of shape \(3, 10\)"),
        ("PCA", 4, {"x": X, "k": 5}, "k=5 is larger than d_sae=4"),
        ("ICA", 4, {"x": X, "k": 0}, "k=0 must be at least 1"),
        ("ICA", 11, {"x": X}, "ICA: d_sae=11 for x that varies in 10 dimensions"),
        ("ICA", 5, {"x": FLAT}, "ICA: d_sae=5 for x that varies in 4 dimensions"),
        ("NMF", 4, {"x": X[:, 1:]}, r"NMF: x of shape \(400, 9\) must be \[n 10\]"),
        ("NMF", 4, {"x": np.where(X > 5, np.float32(np.nan), X)}, "NMF: x has NaN or inf"),
        ("NMF", 4, {"x": X, "n_steps": 0}, "n_steps=0 must be at least 1"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(name, d_sae, keywords, message):
    with pytest.raises(ValueError, match=message) as caught:
        getattr(dictionaries, name).create(KEY, D_IN, d_sae, **keywords)
    assert "\n" not in str(caught.value)
