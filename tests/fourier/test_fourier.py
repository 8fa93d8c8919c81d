"""Frequencies against least squares, and the measures of clocks and pizzas on planted ones, where they are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import fourier


def waves(p: int, k: int) -> np.ndarray:
    """[residue 2]: the cosine and the sine of a frequency, or what there is of them."""
    angles = 2 * np.pi * k * np.arange(p) / p
    columns = np.stack([np.cos(angles), np.sin(angles)], 1)
    return columns[:, np.abs(columns).max(0) > 1e-9]


def squares_explained(columns: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((columns @ np.linalg.lstsq(columns, y, rcond=None)[0]) ** 2).sum(0)


@pytest.mark.parametrize("p", [7, 8])
def test_power_is_what_least_squares_explains(p: int) -> None:
    x = np.random.default_rng(0).normal(size=(p, 3))
    want = [squares_explained(waves(p, k), x) for k in range(p // 2 + 1)]
    got = fourier.fourier_power(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-4)
    np.testing.assert_allclose(got.sum(0), (x**2).sum(0), rtol=1e-5)


@pytest.mark.parametrize("p", [7, 8])
def test_pair_power_is_what_least_squares_explains(p: int) -> None:
    x = np.random.default_rng(0).normal(size=(p, p, 3))
    flat, want = x.reshape(p * p, 3), [x.mean((0, 1)) ** 2 * p * p]
    for k in range(1, p // 2 + 1):
        one = np.concatenate([np.ones((p, 1)), waves(p, k)], 1)
        products = np.einsum("ai,bj->abij", one, one).reshape(p * p, -1)
        want.append(squares_explained(products[:, 1:], flat))
    got = fourier.pair_power(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert bool((got.sum(0) < (x**2).sum((0, 1))).all())


def test_planted_key_frequencies_of_embeddings_and_neurons() -> None:
    p, rng = 59, np.random.default_rng(0)
    table = np.concatenate([3 * waves(p, 5), 2 * waves(p, 21)], 1)
    embeddings = table @ rng.normal(size=(4, 64)) + 0.1 * rng.normal(size=(p, 64))
    power = fourier.fourier_power(jnp.asarray(embeddings, jnp.float32)).sum(1)
    assert fourier.key_frequencies(power) == (5, 21)
    sums = (table[:, None] + table).astype(np.float32)  # [a b 4]
    neurons = np.maximum(np.concatenate([sums, -sums], 2), 0)
    assert fourier.pair_power(jnp.asarray(neurons))[1:].argmax(0).tolist() == [4, 4, 20, 20] * 2


@pytest.mark.parametrize("p", [9, 10])
def test_keep_frequencies_parts_add_up_and_hold_their_own_power(p: int) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(p, 2)), jnp.float32)
    circles = jax.vmap(fourier.keep_frequencies, (None, 0))(x, jnp.arange(1, p // 2 + 1)[:, None])
    np.testing.assert_allclose((circles - x.mean(0)).sum(0) + x.mean(0), x, atol=1e-5)
    for k, circle in enumerate(circles, 1):
        power, want = fourier.fourier_power(circle), fourier.fourier_power(x)
        np.testing.assert_allclose(power[jnp.array([0, k])], want[jnp.array([0, k])], rtol=1e-4)
        assert float(power.sum() - power[0].sum() - power[k].sum()) < 1e-5
    assert fourier.keep_frequencies(x.astype(jnp.bfloat16), jnp.array([1, 2])).dtype == jnp.bfloat16


def test_patterns_by_hand() -> None:
    p, k = 7, 3
    clock, pizza = np.zeros((p, p, p)), np.zeros((p, p, p))
    for a, b, c in itertools.product(range(p), repeat=3):
        w = 2 * np.pi * k / p
        clock[a, b, c] = np.cos(w * (a + b - c))
        pizza[a, b, c] = abs(np.cos(w * (a - b) / 2)) * clock[a, b, c]
    np.testing.assert_allclose(fourier.clock_logits(p, k), clock, atol=1e-5)
    np.testing.assert_allclose(fourier.pizza_logits(p, k), pizza, atol=1e-5)
    correct = [[pizza[a, b, (a + b) % p] for b in range(p)] for a in range(p)]
    np.testing.assert_allclose(fourier.correct_logits(jnp.asarray(pizza, jnp.float32)), correct, rtol=1e-6)


def test_distance_irrelevance_of_planted_logits() -> None:
    p, rng = 11, np.random.default_rng(0)
    a, b = np.ogrid[:p, :p]
    of_sum, of_distance = (rng.normal(size=p).astype(np.float32) for _ in range(2))
    for scale in (0.0, 0.5, 2.0):
        correct = scale * of_sum[(a + b) % p] + of_distance[(a - b) % p]
        want = scale * of_sum.std() / np.hypot(scale * of_sum.std(), of_distance.std())
        np.testing.assert_allclose(fourier.distance_irrelevance(jnp.asarray(correct)), want, atol=1e-5)
    np.testing.assert_allclose(fourier.distance_irrelevance(jnp.asarray(of_sum[(a + b) % p])), 1, rtol=1e-5)
    noise = rng.normal(size=(p, p))
    rows = [np.std([noise[i, (i + d) % p] for i in range(p)]) for d in range(p)]
    got = jax.jit(fourier.distance_irrelevance)(jnp.asarray(noise, jnp.float32))
    np.testing.assert_allclose(got, np.mean(rows) / noise.std(), rtol=1e-5)


def embedded(name: str):
    """A clock, or a pizza as the paper builds it, as a function of two points of a circle of frequency 2."""

    def f(table: jax.Array, tokens: jax.Array) -> jax.Array:
        x, y = jnp.moveaxis(ij.site(table[tokens], "embed", axes=("position", "d_model")), -2, 0)
        turn = lambda z: jnp.stack([-z[..., 1], z[..., 0]], -1)  # noqa: E731
        if name == "clock":  # the product of complex numbers, against each answer
            product = x[..., :1] * y + x[..., 1:] * turn(y)
            return product @ table.T
        half = jnp.asarray(waves(P, 1), x.dtype)  # angle of frequency 2, halved
        total = x + y
        return jnp.abs(total @ half.T) - jnp.abs(total @ turn(half).T)

    return f


P = 13
TABLE = jnp.asarray(waves(P, 2), jnp.float32)


def test_the_planted_functions_are_what_they_are_named_for() -> None:
    pairs = jnp.asarray(list(itertools.product(range(P), repeat=2)))
    clock, pizza = (embedded(name)(TABLE, pairs).reshape(P, P, P) for name in ("clock", "pizza"))
    np.testing.assert_allclose(clock, fourier.clock_logits(P, 2), atol=1e-5)
    formulas = fourier.pizza_logits, fourier.clock_logits
    alike = [np.corrcoef(pizza.ravel(), make(P, 2).ravel())[0, 1] for make in formulas]
    assert alike[0] > 0.99 and alike[1] < 0.95


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_symmetry_of_planted_functions(dtype: str) -> None:
    triples = np.asarray(list(itertools.product(range(P), repeat=3)))
    table, tolerance = TABLE.astype(dtype), 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(fourier.gradient_symmetry(embedded("pizza"))(table, triples), 1, atol=1e-5)
    got = fourier.gradient_symmetry(embedded("clock"))(table, triples)
    want = np.cos(2 * np.pi * 2 / P * (triples[:, 0] - triples[:, 1]))  # by hand: the gradients are turned by a and b
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=tolerance)


def test_gradient_symmetry_is_that_of_jax_grad_under_jit_and_vmap() -> None:
    rng = np.random.default_rng(0)
    W, U = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 4, 8), (8, 5)))

    def g(params, x):
        return jnp.tanh(jnp.einsum("...pd,pdm->...m", x, params["W"])) @ params["U"]

    def f(params, tokens):
        return g(params, ij.site(params["E"][tokens], "blocks.0.resid_pre"))

    params = {"E": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32), "W": W, "U": U}
    triples = jnp.asarray(rng.integers(0, 5, (6, 3)))
    want = []
    for a, b, c in triples.tolist():
        u, v = jax.grad(lambda x: g(params, x)[c])(params["E"][jnp.array([a, b])])  # noqa: B023
        want.append(u @ v / jnp.linalg.norm(u) / jnp.linalg.norm(v))
    where = "blocks.0.resid_pre"
    measure = jax.jit(lambda params, triples: fourier.gradient_symmetry(f, where)(params, triples))
    np.testing.assert_allclose(measure(params, triples), jnp.stack(want), rtol=1e-4)
    two = jax.vmap(measure, (None, 0))(params, triples.reshape(2, 3, 3))
    np.testing.assert_allclose(two.ravel(), jnp.stack(want), rtol=1e-4)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"pair_power: axes of residues of lengths \(3, 4\)"):
        fourier.pair_power(jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match="correct_logits: axes"):
        fourier.correct_logits(jnp.zeros((3, 3, 4)))
    with pytest.raises(ValueError, match="distance_irrelevance: axes"):
        fourier.distance_irrelevance(jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"give \[triple 3\]"):
        fourier.gradient_symmetry(embedded("clock"))(TABLE, jnp.zeros((4, 2), int))
    with pytest.raises(ValueError, match="embeds"):
        fourier.gradient_symmetry(embedded("clock"), "embeds")(TABLE, jnp.zeros((4, 3), int))
