"""Graphs in context: energies beside a plain loop, embeddings beside scipy and sklearn, means beside numpy, nulls."""

from functools import partial
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse.csgraph import laplacian
from sklearn.decomposition import PCA
from sklearn.manifold import spectral_embedding

import interp_jax as ij
from interp_jax import data, geometry, models
from tests.models.conftest import CONFIGS, random_model

TREE = np.zeros((7, 7), np.float32)  # two branches at each of three nodes
for node in range(1, 7):
    TREE[node, (node - 1) // 2] = TREE[(node - 1) // 2, node] = 1
GRAPHS = {"grid": data.graphs.grid(3, 4), "ring": data.graphs.ring(7), "tree": TREE}


def vectors(seed: int, *shape: int) -> jnp.ndarray:
    return jax.random.normal(jax.random.key(seed), shape) + 3


@pytest.mark.parametrize("name", GRAPHS)
def test_energy_beside_a_loop(name: str) -> None:
    A = GRAPHS[name]
    H = vectors(0, 2, len(A), 5)
    x = np.asarray(H, np.float64)
    wanted = [sum(A[i, j] * ((h[i] - h[j]) ** 2).sum() for i in range(len(A)) for j in range(len(A))) for h in x]
    np.testing.assert_allclose(geometry.dirichlet_energy(H, A, normalized=False), wanted, rtol=1e-5)
    scaled = geometry.dirichlet_energy(7 * H + 2, A)
    np.testing.assert_allclose(geometry.dirichlet_energy(H, A), scaled, rtol=1e-4)


def test_the_normalised_energy_is_1_on_average_over_all_ways_to_lay_the_nodes() -> None:
    A, H = data.graphs.ring(5), vectors(1, 5, 3)
    every = [geometry.dirichlet_energy(H[jnp.array(order)], A) for order in itertools.permutations(range(5))]
    assert np.mean(every) == pytest.approx(1, abs=1e-5) and np.std(every) > 0.05
    null = geometry.shuffled_energies(jax.random.key(0), H, A, n=400)
    assert {round(float(e), 4) for e in null} <= {round(float(e), 4) for e in every}
    assert abs(float(null.mean()) - 1) < 5 * np.std(every) / 20
    both = geometry.shuffled_energies(jax.random.key(0), jnp.stack([H, 2 * H]), A, n=3)
    np.testing.assert_allclose(both[:, 0], both[:, 1], rtol=1e-5)


@pytest.mark.parametrize("name", ["grid", "ring"])
def test_embedding_beside_scipy_and_sklearn(name: str) -> None:
    A = GRAPHS[name]
    ours, values = geometry.spectral_embedding(A)
    spectrum = np.linalg.eigvalsh(laplacian(A))
    np.testing.assert_allclose(values, spectrum[1:3], atol=1e-5)
    np.testing.assert_allclose(laplacian(A) @ ours, ours * values, atol=1e-5)
    theirs = spectral_embedding(A, n_components=2, norm_laplacian=False, random_state=0)
    if name == "grid":  # eigenvalues that differ: each column is the same up to its sign and length
        theirs = theirs / np.linalg.norm(theirs, axis=0)
        np.testing.assert_allclose(np.abs((ours * theirs).sum(0)), 1, atol=1e-3)
    else:  # the same plane
        q, _ = np.linalg.qr(theirs)
        np.testing.assert_allclose(np.linalg.svd(q.T @ np.asarray(ours))[1], 1, atol=1e-3)


def test_components_beside_sklearn() -> None:
    H = vectors(2, 3, 9, 6)
    scores, share = geometry.principal_components(H, 3)
    for h, s, r in zip(H, scores, share, strict=True):
        pca = PCA(3).fit(np.asarray(h))
        np.testing.assert_allclose(np.abs(s), np.abs(pca.transform(np.asarray(h))), atol=1e-4)
        np.testing.assert_allclose(r, pca.explained_variance_ratio_, atol=1e-5)


def test_the_lowest_energy_is_the_spectral_embedding() -> None:
    """What scipy finds by descent, over all vectors with two given singular values, is what the theorem says."""
    A = data.graphs.grid(2, 3)
    sizes = np.array([2.0, 1.0])

    def laid(flat: np.ndarray) -> np.ndarray:
        free = flat.reshape(6, 2)
        q, r = np.linalg.qr(free - free.mean(0))
        return q * np.sign(np.diag(r)) * sizes

    L = laplacian(A)
    starts = np.random.default_rng(0).normal(size=(5, 12))
    found = min((minimize(lambda x: 2 * np.trace(laid(x).T @ L @ laid(x)), x0) for x0 in starts), key=lambda r: r.fun)
    H = jnp.asarray(laid(found.x), jnp.float32)
    assert float(geometry.least_energy(H, A, normalized=False)) == pytest.approx(found.fun, rel=1e-3)
    assert float(geometry.spectral_agreement(H, A)) == pytest.approx(1, abs=1e-3)
    other = jnp.asarray(laid(starts[0]), jnp.float32)  # the same singular values, laid anyhow
    assert float(geometry.least_energy(other, A, normalized=False)) == pytest.approx(found.fun, rel=1e-3)
    assert float(geometry.dirichlet_energy(other, A, normalized=False)) > 1.2 * found.fun
    assert float(geometry.spectral_agreement(other, A)) < 0.9


def test_agreement_under_shuffled_labels() -> None:
    A = data.graphs.grid(4, 4)
    Z, values = geometry.spectral_embedding(A)
    H = jnp.concatenate([Z, jnp.zeros((16, 3))], 1) @ vectors(3, 5, 5)
    assert float(geometry.spectral_agreement(H, A)) == pytest.approx(1, abs=1e-4)
    orders = jax.vmap(lambda key: jax.random.permutation(key, 16))(jax.random.split(jax.random.key(1), 200))
    shuffled = geometry.spectral_agreement(H[orders], A)
    assert float(shuffled.mean()) == pytest.approx(2 / 15, abs=0.03)


@pytest.mark.parametrize("window", [None, 5])
def test_means_beside_numpy(window: int | None) -> None:
    tokens = np.random.default_rng(0).integers(0, 3, (2, 12)) + 7
    acts = vectors(4, 3, 2, 12, 4)
    for length in (9, 12):
        seen = slice(max(0, length - (window or length)), length)
        wanted = [np.asarray(acts)[:, :, seen][:, tokens[:, seen] == node].mean(1) for node in (7, 8, 9)]
        ours = geometry.mean_representations(
            acts, jnp.asarray(tokens), jnp.array([7, 8, 9]), window=window, length=length
        )
        np.testing.assert_allclose(ours, np.stack(wanted, 1), rtol=1e-5)
    one = geometry.mean_representations(acts[1], jnp.asarray(tokens), jnp.array([7, 8, 9]), window=window)
    np.testing.assert_allclose(one, ours[1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scanned", [False, True])
def test_a_run_of_a_model_beside_its_captures(scanned: bool, dtype) -> None:
    model = random_model(CONFIGS["llama"])
    model = jax.tree.map(lambda x: x.astype(dtype), models.stack_layers(model) if scanned else model)
    tokens, nodes = jax.random.randint(jax.random.key(0), (4, 16), 0, 5), jnp.arange(5)
    acts = ij.capture(models.forward, "blocks.resid_post", output=False)(model, tokens)["blocks.resid_post"]
    read = geometry.context_representations(models.forward, "blocks.resid_post", (10, 16), window=8)
    H = read(model, tokens, nodes)
    assert H.shape == (3, 2, 5, 16) and H.dtype == jnp.float32
    for at, length in enumerate((10, 16)):
        wanted = geometry.mean_representations(acts, tokens, nodes, window=8, length=length)
        np.testing.assert_allclose(H[:, at], wanted, rtol=1e-4, atol=1e-4 if dtype == jnp.float32 else 0.03)
    np.testing.assert_allclose(jax.jit(read)(model, tokens, nodes), H, rtol=1e-5, atol=1e-5)
    one = geometry.context_representations(models.forward, "blocks.1.resid_post", (10, 16), window=8)
    np.testing.assert_allclose(one(model, tokens, nodes), H[1], rtol=1e-5, atol=1e-5)
    energy = jax.jit(partial(geometry.dirichlet_energy, adjacency=jnp.asarray(data.graphs.ring(5))))(H)
    assert energy.shape == (3, 2)


@pytest.fixture(scope="module")
def reader():
    """Graph -> energies of the last stream of a model that has learned to walk, early and late, shuffled, and known."""
    model, tokenizer = models.load("microworld-context")
    read = geometry.context_representations(models.forward, "blocks.3.resid_post", (10, 97), window=8)

    def run(graph):
        walks = data.graphs.walks(jax.random.key(0), tokenizer, n=64, graph=graph, length=96)
        H = read(model, walks.tokens, walks.ids)
        null = geometry.shuffled_energies(jax.random.key(1), H[1], walks.adjacency, n=200)
        ideal = walks.adjacency / walks.adjacency.sum(1, keepdims=True)  # each node as the mean of its next words
        known = geometry.dirichlet_energy(ideal, walks.adjacency)
        return (*np.asarray(geometry.dirichlet_energy(H, walks.adjacency)), np.asarray(null), float(known))

    return run


def test_energy_falls_on_a_model_that_learned_the_task(reader) -> None:
    """Where neighbours have next words in common, as in two groups."""
    groups = np.kron(np.eye(2), np.ones((4, 4))) - np.eye(8)
    groups[0, 4] = groups[4, 0] = 1
    early, late, null, known = reader(groups)
    assert known < 1 and late < early and abs(null.mean() - 1) < 0.1
    assert (null <= late).mean() < 0.1  # one shuffle in 35 keeps the groups together


def test_energy_on_a_ring_is_that_of_next_words(reader) -> None:
    """Two steps apart there is a next word in common, one step apart none: neighbours are farther than strangers."""
    _, late, _, known = reader("ring")
    assert known == pytest.approx(7 / 6, abs=1e-5)
    assert late == pytest.approx(known, abs=0.05)


def test_bad_input() -> None:
    apart = np.kron(np.eye(2, dtype=np.float32), data.graphs.ring(3))
    with pytest.raises(ValueError, match="spectral_embedding: the graph is not connected: it has 2 parts"):
        geometry.spectral_embedding(apart)
    with pytest.raises(ValueError, match=r"n_components=1 cuts through 2 .* eigenvalue 0.753: take n_components=2$"):
        geometry.spectral_embedding(data.graphs.ring(7), 1)
    with pytest.raises(ValueError, match="take n_components=4 or 2$"):
        geometry.spectral_embedding(data.graphs.ring(7), 3)
    with pytest.raises(ValueError, match="n_components=7 of 7 nodes: at most 6"):
        geometry.spectral_embedding(data.graphs.ring(7), 7)
    with pytest.raises(ValueError, match=r"principal_components: n_components=3 of \[3, 5\]: at most 2"):
        geometry.principal_components(vectors(0, 3, 5), 3)
    acts, tokens = vectors(0, 2, 1, 4, 3), jnp.array([[5, 6, 5, 6]])
    with pytest.raises(ValueError, match=r"^mean_representations: no value for nodes \[1, 2\]: the walks do not meet"):
        geometry.mean_representations(acts, tokens, jnp.array([5, 8, 9]))
    few = jax.jit(geometry.mean_representations)(acts, tokens, jnp.array([5, 8, 9]))
    assert np.isnan(few[:, 1:]).all() and np.isfinite(few[:, 0]).all()
    with pytest.raises(ValueError, match=r"dirichlet_energy: no value for nodes \[1, 2\]"):
        geometry.dirichlet_energy(few, data.graphs.ring(3))
    with pytest.raises(ValueError, match="dirichlet_energy: vectors of 4 nodes on a graph of 3"):
        geometry.dirichlet_energy(vectors(0, 4, 2), data.graphs.ring(3))
    with pytest.raises(ValueError, match=r"activations \[2, 1, 4, 3\] of tokens \[1, 3\]"):
        inspect.unwrap(geometry.mean_representations)(acts, tokens[:, :3], jnp.array([5]))
    with pytest.raises(ValueError, match=r"context_representations: lengths \[4, 9\] of texts of 4 tokens"):
        geometry.context_representations(lambda x: ij.site(x, "x"), "x", (4, 9))(tokens, jnp.array([5]))
