"""Interchange interventions and the search for their subspace, on a model whose variables are known directions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import interp_jax as ij
from interp_jax import models, probes
from interp_jax.interventions import at, replace


def test_a_swap_of_everything_is_a_patch_and_of_a_part_is_that_part() -> None:
    model, _ = models.load("microworld", dtype="float32")
    base, source = jax.random.randint(jax.random.key(0), (2, 3, 7), 5, 600)
    site, where = "blocks.resid_post", "blocks.1.resid_post"
    values = ij.capture(models.forward, where, output=False)(model, source)[where][:, 4]
    position = jnp.array([4, 2, 3])
    one = probes.Interchange(base, position, values, None, {})
    patched = ij.intervene(models.forward, {where: at(replace(values[:, None]), position=position)})(model, base)
    whole = probes.swapped(models.forward, where)(model, jnp.eye(128), one)
    np.testing.assert_allclose(whole, patched, atol=1e-4)
    basis = probes.orthonormal(jax.random.normal(jax.random.key(1), (128, 3)))
    np.testing.assert_allclose(basis.T @ basis, jnp.eye(3), atol=1e-5)
    read = ij.capture(probes.swapped(models.forward, where), site, output=False)(model, basis, one)[site][1]
    before = ij.capture(models.forward, where, output=False)(model, base)[where]
    rows = jnp.arange(3)
    there, was = read[rows, position], before[rows, position]
    np.testing.assert_allclose(there @ basis, values @ basis, atol=1e-3)
    rest = jnp.eye(128) - basis @ basis.T
    np.testing.assert_allclose(there @ rest, was @ rest, atol=1e-3)
    others = np.ones((3, 7), bool)
    others[np.arange(3), np.asarray(position)] = False
    np.testing.assert_allclose(np.asarray(read)[others], np.asarray(before)[others], atol=1e-4)


D, N = 6, 64


class Known:
    """Two variables along known directions; a question asks for one. Only the first is to come from the source."""

    def __init__(self, basis: jax.Array):
        self.first, self.second = basis.T
        self.reads, self.traces = basis.T, 0
        self.test = self.batch(jax.random.key(9))

    def f(self, reads, x, *, asked):
        self.traces += 1
        x = ij.site(x, "x", axes=("batch", "position", "d_model"))[:, -1]
        return 4 * jnp.where(asked, x @ reads[0], x @ reads[1])

    def batch(self, key):
        k_values, k_noise, k_asked = jax.random.split(key, 3)
        a, b = jax.random.rademacher(k_values, (2, 2, N), jnp.float32)  # of base and source
        x = a[..., None] * self.first + b[..., None] * self.second + 0.3 * jax.random.normal(k_noise, (2, N, D))
        asked = jax.random.bernoulli(k_asked, 0.5, (N,))
        target = jnp.where(asked, a[1], b[0])
        return probes.Interchange(x[0][:, None], jnp.zeros(N, jnp.int32), x[1], target, {"asked": asked})

    def batches(self, n):
        return [self.batch(key) for key in jax.random.split(jax.random.key(0), n)]

    def right(self, basis):
        logits = probes.swapped(self.f, "x")(self.reads, basis, self.test)
        found, asked = np.asarray((logits > 0) == (self.test.target > 0)), np.asarray(self.test.kwargs["asked"])
        return found[asked].mean(), found[~asked].mean()


def loss(logit, target):
    return optax.sigmoid_binary_cross_entropy(logit, (target + 1) / 2)


def test_the_search_finds_what_carries_a_variable_and_nothing_else() -> None:
    known = Known(probes.orthonormal(jax.random.normal(jax.random.key(5), (D, 2))))
    basis, losses = probes.train_das(jax.random.key(1), known.f, loss, "x", known.reads, known.batches(400))
    assert losses[-20:].mean() < losses[:20].mean() / 2
    assert abs(float(known.first @ basis[:, 0])) > 0.97 and abs(float(known.second @ basis[:, 0])) < 0.1
    cause, isolate = known.right(basis)
    assert cause > 0.95 and isolate > 0.95
    assert known.right(known.second[:, None])[0] < 0.75 and known.right(jnp.eye(D))[1] < 0.75  # another, and all
    traces = known.traces
    again, _ = probes.train_das(jax.random.key(2), known.f, loss, "x", known.reads, known.batches(400)[::-1])
    assert again.shape == (D, 1) and known.traces == traces  # another search is no other compilation


def test_a_mask_finds_the_features_that_carry_a_variable() -> None:
    known = Known(jnp.eye(D)[:, jnp.array([3, 1])])  # along neurons
    kept, losses = probes.train_dbm(known.f, loss, "x", known.reads, known.batches(200), jnp.eye(D), sparsity=0.01)
    assert kept.tolist() == [False, False, False, True, False, False] and losses[-1] < losses[0] / 2
    assert min(known.right(jnp.eye(D)[:, kept])) > 0.95
    turned = probes.orthonormal(jax.random.normal(jax.random.key(5), (D, D)))
    known = Known(turned[:, jnp.array([0, 4])])  # no neuron carries it, the first of these directions does
    kept, _ = probes.train_dbm(known.f, loss, "x", known.reads, known.batches(200), turned, sparsity=0.01)
    assert kept.tolist() == [True] + [False] * 5


def test_the_difference_of_means_is_a_subspace() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    x = (np.eye(3, 8)[y] * 3 + rng.normal(size=(300, 8))).astype(np.float32)
    basis = probes.class_subspace(x, y)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-5)
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    for other in (1, 2):  # differences between means lie in it
        apart = means[0] - means[other]
        np.testing.assert_allclose(basis @ (basis.T @ apart), apart, atol=1e-4)
    two = probes.class_subspace(x[y < 2], y[y < 2])
    np.testing.assert_allclose(np.abs(two[:, 0] @ probes.mass_mean(x[y < 2], y[y < 2]).direction), 1, atol=1e-5)


def test_what_cannot_be_searched_is_told() -> None:
    def f(model, x):
        return ij.site(x, "x", axes=("batch", "position", "d_model"))[:, -1]

    def loss(y, target):
        return y.sum(-1)

    key, one = jax.random.key(0), probes.Interchange(jnp.ones((1, 1, 3)), jnp.array([0]), jnp.ones((1, 3)), None, {})
    with pytest.raises(ValueError, match=r"train_das: n_directions=4 of a site of 3: give 1 to 3"):
        probes.train_das(key, f, loss, "x", 0.0, [one], n_directions=4)
    with pytest.raises(ValueError, match=r"train_das: there is no batch; give interchanges"):
        probes.train_das(key, f, loss, "x", 0.0, [])
    with pytest.raises(FloatingPointError, match=r"train_das: step 1: the loss is not finite"):
        bad = probes.Interchange(one.tokens, one.position, jnp.full((1, 3), jnp.nan), None, {})
        probes.train_das(key, f, loss, "x", 0.0, [one, bad])
    with pytest.raises(ValueError, match=r"class_subspace: n_directions=2: give 1 to 1"):
        probes.class_subspace(np.eye(4, dtype=np.float32), np.arange(4) % 2, n_directions=2)
    with pytest.raises(ValueError, match=r"train_dbm: there is no batch; give interchanges"):
        probes.train_dbm(f, loss, "x", 0.0, [], jnp.eye(3))
    with pytest.raises(ValueError, match=r"train_dbm: basis is \[4, 4\], the site has 3 dimensions: give \[3 k\]"):
        probes.train_dbm(f, loss, "x", 0.0, [one], jnp.eye(4))
    with pytest.raises(ValueError, match=r"train_dbm: sparsity=-1.0 is negative"):
        probes.train_dbm(f, loss, "x", 0.0, [one], jnp.eye(3), sparsity=-1.0)
    with pytest.raises(FloatingPointError, match=r"train_dbm: step 1: the loss is not finite"):
        probes.train_dbm(f, loss, "x", 0.0, [one, bad], jnp.eye(3))
