"""The Dirichlet energy of vectors on a graph, and its lowest arrangement, the graph's spectral embedding.

    E(H) = sum over i, j of A_ij |h_i - h_j|^2 = 2 tr(H' (D - A) H)

Of all H with the same singular values E is least where the principal components are the eigenvectors of the Laplacian
D - A of the lowest eigenvalues but the first: the picture of the vectors is then the spectral embedding of the graph.
Park et al. 2025, "ICLR: In-Context Learning of Representations", arXiv:2501.00070.
Caveat: E by itself also falls where vectors merely shrink. Divided by its mean over all ways to lay them on the graph,
it is 1 where nothing of the graph is there, whatever the scale. And on a walk neighbours are near in time: means that
take from the tokens just before them fall below 1, whether or not a model has learned the task.
"""

from typing import Any

import jax
from jax import Array, lax
from jax.core import Tracer
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Key, Num
import numpy as np

from interp_jax.runs import check_counts

Means = Float[Typed, "*axes node d"]
Adjacency = Num[Typed, "vertex vertex"] | Num[np.ndarray, "vertex vertex"]


def dirichlet_energy(H: Means, adjacency: Adjacency, *, normalized: bool = True) -> Float[Typed, "*axes"]:
    """The Dirichlet energy of nodes' vectors on a graph.

    Args:
      H: `[... node d]`, such as `[layer node d]`.
      adjacency: `[node node]`, symmetric.
      normalized: divide by the mean over all ways to lay the nodes on the graph, so that 1 is no graph at all. False:
        the paper's sum over all ordered pairs.

    Returns:
      float32 `[...]`.

    Raises:
      ValueError: another number of nodes, or a node without a value.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> path = jnp.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
      >>> geometry.dirichlet_energy(jnp.array([[0.0], [1.0], [2.0]]), path, normalized=False).item()
      4.0
      >>> geometry.dirichlet_energy(jnp.array([[0.0], [1.0], [2.0]]), path).item()
      0.5
    """
    A = _fitting("dirichlet_energy", H, adjacency)
    return _energy(_centred(H), A, normalized)


def shuffled_energies(
    key: Key[Typed, ""], H: Means, adjacency: Adjacency, n: int = 100, *, normalized: bool = True
) -> Float[Typed, "shuffle *axes"]:
    """The energies after the nodes are laid on the graph at random: what to expect where nothing of it is there.

    Args:
      key: a jax PRNG key.
      H, adjacency, normalized: as in `dirichlet_energy`.
      n: how many shuffles, the same for all leading axes of H.

    Returns:
      float32 `[shuffle ...]`. Normalised ones have the mean 1 over all shuffles.

    Raises:
      ValueError: as `dirichlet_energy`; n below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> path = jnp.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
      >>> null = geometry.shuffled_energies(jax.random.key(0), jnp.array([[0.0], [1.0], [2.0]]), path, n=50)
      >>> sorted(set(null.tolist()))
      [0.5, 1.25]
    """
    check_counts(n=n)
    A, x = _fitting("shuffled_energies", H, adjacency), _centred(H)
    orders = jax.vmap(lambda key: jax.random.permutation(key, len(A)))(jax.random.split(key, n))
    return lax.map(lambda order: _energy(x, A[order][:, order], normalized), orders)


def principal_components(
    H: Means, n_components: int = 2
) -> tuple[Float[Typed, "*axes node component"], Float[Typed, "*axes component"]]:
    """The nodes along the first principal components of their vectors, and the share of the variance of each.

    Args:
      H: `[... node d]`.
      n_components: how many, fewer than there are nodes.

    Returns:
      Scores float32 `[... node component]`, whose signs are arbitrary, and shares `[... component]`.

    Raises:
      ValueError: too many components, or a node without a value.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> scores, share = geometry.principal_components(jnp.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]))
      >>> abs(scores[:, 0]).round(4).tolist(), share.round(4).tolist()
      ([2.0, 0.0, 2.0], [1.0, 0.0])
    """
    check_met("principal_components", H)
    n = min(H.shape[-2] - 1, H.shape[-1])
    if not 1 <= n_components <= n:
        raise ValueError(f"principal_components: n_components={n_components} of {list(H.shape)}: at most {n}")
    u, s, _ = jnp.linalg.svd(_centred(H), full_matrices=False)
    share = s**2 / jnp.maximum((s**2).sum(-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    return (u * s[..., None, :])[..., :n_components], share[..., :n_components]


def spectral_embedding(
    adjacency: Adjacency, n_components: int = 2
) -> tuple[Float[Typed, "node component"], Float[Typed, "component"]]:
    """The eigenvectors of the graph's Laplacian D - A of the lowest eigenvalues, without the constant one.

    Args:
      adjacency: `[node node]`, symmetric; its values are looked at, so it is no argument of a `jit`.
      n_components: how many, fewer than there are nodes.

    Returns:
      Orthonormal columns float32 `[node component]` and their eigenvalues `[component]`, ascending.

    Raises:
      ValueError: the graph is not connected; too many components; or the last of them shares its eigenvalue with the
        next one, so that any mixture of both would do as well.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> geometry.spectral_embedding(jnp.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]))[1].round(4).tolist()
      [1.0, 3.0]
    """
    A = np.asarray(adjacency, np.float64)
    if not 1 <= n_components < len(A):
        raise ValueError(f"spectral_embedding: n_components={n_components} of {len(A)} nodes: at most {len(A) - 1}")
    values, vectors = np.linalg.eigh(np.diag(A.sum(1)) - A)
    close = 1e-8 * values[-1]
    if values[1] <= close:
        parts = int((values <= close).sum())
        raise ValueError(f"spectral_embedding: the graph is not connected: it has {parts} parts; take one of them")
    last = n_components
    if last + 1 < len(A) and values[last + 1] - values[last] <= close:
        alike = np.flatnonzero(np.abs(values - values[last]) <= close)
        raise ValueError(
            f"spectral_embedding: n_components={n_components} cuts through {len(alike)} eigenvectors of one eigenvalue "
            f"{values[last]:.4g}: take n_components={alike[-1]}{f' or {alike[0] - 1}' if alike[0] > 1 else ''}"
        )
    kept = slice(1, n_components + 1)
    return jnp.asarray(vectors[:, kept], jnp.float32), jnp.asarray(values[kept], jnp.float32)


def spectral_agreement(H: Means, adjacency: Adjacency, n_components: int = 2) -> Float[Typed, "*axes"]:
    """How far the first principal components of the nodes are the spectral embedding of the graph.

    It is the mean of the squared canonical correlations between the two, which no turn of either changes.

    Args:
      H: `[... node d]`.
      adjacency, n_components: as in `spectral_embedding`.

    Returns:
      float32 `[...]`, 1 where they span the same plane. Where nothing of the graph is there, it is about
      n_components / (n_nodes - 1).

    Raises:
      ValueError: as `spectral_embedding` and `principal_components`; another number of nodes.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> square = jnp.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
      >>> corners = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
      >>> geometry.spectral_agreement(corners, square).round(4).item()
      1.0
    """
    _fitting("spectral_agreement", H, adjacency)
    wanted, _ = spectral_embedding(adjacency, n_components)
    scores, _ = principal_components(H, n_components)
    q, _ = jnp.linalg.qr(scores)
    overlap = jnp.einsum("...nk,nm->...km", q, wanted, precision=lax.Precision.HIGHEST)
    return (overlap**2).sum((-2, -1)) / jnp.float32(n_components)


def least_energy(H: Means, adjacency: Adjacency, *, normalized: bool = True) -> Float[Typed, "*axes"]:
    """The lowest energy that vectors with the singular values of H can have: principal components in the order of the
    Laplacian's eigenvectors.

    Args:
      H, adjacency, normalized: as in `dirichlet_energy`.

    Returns:
      float32 `[...]`, at most what `dirichlet_energy` gives.

    Raises:
      ValueError: as `dirichlet_energy`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> path = jnp.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
      >>> geometry.least_energy(jnp.array([[1.0], [0.0], [2.0]]), path).round(4).item()
      0.5
    """
    A, x = _fitting("least_energy", H, adjacency), _centred(H)
    squares = jnp.linalg.svd(x, compute_uv=False)[..., : len(A) - 1] ** 2
    values = jnp.linalg.eigvalsh(jnp.diag(A.sum(1)) - A)[1 : squares.shape[-1] + 1]
    energy = 2 * (squares * values).sum(-1)
    return energy / _expected(x, A) if normalized else energy


def _fitting(name: str, H: Array, adjacency: Any) -> Array:
    if H.shape[-2] != len(adjacency):
        raise ValueError(f"{name}: vectors of {H.shape[-2]} nodes on a graph of {len(adjacency)}")
    check_met(name, H)
    return jnp.asarray(adjacency).astype(jnp.float32)


def check_met(name: str, H: Array) -> None:
    """Raises ValueError where a node has no value; where H is traced that cannot be seen."""
    if isinstance(H, Tracer):
        return
    bare = np.isnan(np.asarray(H, np.float32)).any(-1)
    if bare.any():
        nodes = np.flatnonzero(bare.reshape(-1, H.shape[-2]).any(0)).tolist()
        raise ValueError(
            f"{name}: no value for nodes {nodes}: the walks do not meet them there; take longer or more walks"
        )


def _centred(H: Array) -> Array:
    x = H.astype(jnp.float32)
    return x - x.mean(-2, keepdims=True)


def _energy(x: Array, A: Array, normalized: bool) -> Array:
    """Of centred vectors, where less is lost to rounding: 2 tr(x' L x)."""
    pulled = A.sum(1)[:, None] * x - jnp.einsum("ij,...jd->...id", A, x, precision=lax.Precision.HIGHEST)
    energy = 2 * (x * pulled).sum((-2, -1))
    return energy / _expected(x, A) if normalized else energy


def _expected(x: Array, A: Array) -> Array:
    """The mean energy over all ways to lay the nodes on the graph: edges times the mean squared distance of a pair."""
    return A.sum() * 2 * (x**2).sum((-2, -1)) / jnp.float32(len(A) - 1)
