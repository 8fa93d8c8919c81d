"""Factorisations of one place after the other: what LAPACK does is not mapped.

On a CPU a batch of factorisations waits for the threads that it runs on itself, and a program that holds two of them
may wait for ever (seen with jaxlib 0.10 on two cores). One at a time they are as quick, since each is large.
"""

import jax
from jax import Array
from jax.custom_batching import sequential_vmap
import jax.numpy as jnp


@sequential_vmap
def inverse_root(gram: Array) -> Array:
    """`P` with `P P^T` the inverse of a positive definite matrix."""
    lower = jnp.linalg.cholesky(gram)
    return jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(gram)), lower=True).T


@sequential_vmap
def orthogonal(rows: Array) -> tuple[Array, Array]:
    """The reduced QR factorisation."""
    q, r = jnp.linalg.qr(rows)
    return q, r


@sequential_vmap
def least_squares(rows: Array, wanted: Array) -> Array:
    """The W that brings `rows @ W` nearest to `wanted`, of rows that are linearly independent."""
    q, r = jnp.linalg.qr(rows)
    return jax.scipy.linalg.solve_triangular(r, q.T @ wanted)


@sequential_vmap
def eigenvectors(symmetric: Array) -> tuple[Array, Array]:
    """Eigenvalues, rising, and eigenvectors as columns."""
    values, vectors = jnp.linalg.eigh(symmetric)
    return values, vectors


@sequential_vmap
def solved(matrix: Array, columns: Array) -> Array:
    """The X with `matrix @ X` the columns."""
    return jnp.linalg.solve(matrix, columns)
