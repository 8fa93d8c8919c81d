"""Logistic regression, of two classes or more, at every layer and position in one compiled call.

    min over W, b of  sum_i weight_i * -log softmax(x_i W^T + b)[y_i] + l2 / 2 |W|^2,    b is free

The objective is scikit-learn's with l2 = 1 / C; two classes have one weight vector, more have one each. L-BFGS (optax)
searches in coordinates in which the Hessian at the start is the identity, W = P c with P P^T that Hessian's inverse,
so that badly scaled activations cost no steps; the optimum stays where it is.
Caveat: with little l2 and classes that a plane separates, weights grow without end, and the search stops on the way.
"""

from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
import optax

from interp_jax.probes.examples import each_place, examples
from interp_jax.probes.factors import inverse_root, orthogonal
from interp_jax.probes.linear import Activations, LinearProbe, against_first, centre

MAX_STEPS = 500
TOLERANCE = 3e-5  # of the gradient, in units of the standard deviation of its noise over draws of the examples


def logistic(
    x: Activations,
    y: Any,
    *,
    l2: Any = 1.0,
    weights: Any = None,
    n_classes: int | None = None,
    chunk: int | None = None,
) -> LinearProbe:
    """Fits a logistic regression at every place to convergence, as scikit-learn's `LogisticRegression(C=1 / l2)`.

    Args:
      x: activations `[*axes example d_in]`, such as `[layer position example d_in]`; float32 or bfloat16.
      y: labels `[example]`, or `[*axes example]`: whole numbers from 0, or bool.
      l2: the penalty, above 0: a number, or `[*axes]`. Activations are taken as they are, so that it is in their units.
      weights: how much each example counts, bool or float, `[example]` or `[*axes example]`; 0 leaves it out, whatever
        its activations are, so that splits, ragged data and many seeds are one program.
      n_classes: by default the largest label and one; under `jit` it must be given.
      chunk: how many places are fitted at once; by default so many that they hold 64 MB.

    Returns:
      The probe, whose arrays have the leading axes of `x`.

    Raises:
      ValueError: labels or weights of another length; one class only; fewer examples than classes; labels that are not
        whole numbers from 0 to the number of classes.

    Example:
      >>> import jax
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (3, 80, 5))  # three layers
      >>> probe = probes.logistic(x, x[0, :, 2] > 0)
      >>> probe(x).shape, [round(float(a), 1) for a in abs(probe.direction[:, 2])][0] > 0.8
      ((3, 80, 2), True)
    """
    return each_place(fit_logistic, examples("probes.logistic", x, y, weights, n_classes), l2, chunk=chunk)


def fit_logistic(x: Array, y: Array, weights: Array, l2: Array, *, n_classes: int) -> LinearProbe:
    """The fit of one place: `x [example d_in]`, float32 and 0 where the weight is."""
    n, d_in = x.shape
    mean, centred = centre(x, weights)
    back = None
    if d_in > n:  # the weights are a combination of the examples: search in their span
        back, r = orthogonal(centred.T)
        centred = r.T
    shares = weights @ jax.nn.one_hot(y, n_classes) / weights.sum()
    start = jnp.log(jnp.clip(shares, 1e-3, 1))
    binary = n_classes == 2
    curvature = (shares * (1 - shares)).mean() * (1 if binary else n_classes / (n_classes - 1))
    curvature = jnp.maximum(curvature, 1e-4)
    gram = curvature * (centred * weights[:, None]).T @ centred
    noise = 1e-6 * jnp.trace(gram) / len(gram)  # what float32 cannot tell from 0 in a Gram matrix
    root = inverse_root(gram + (l2 + noise) * jnp.eye(len(gram)))
    unit = jnp.sqrt(curvature * weights.sum())

    def unfold(at: tuple[Array, Array]) -> tuple[Array, Array]:
        return at[0] @ root.T, at[1] / unit

    def loss(at: tuple[Array, Array]) -> Array:
        W, b = unfold(at)
        logits = centred @ W.T + b
        if binary:
            logits = logits[:, 0] + start[1] - start[0]
            losses = jax.nn.softplus(logits) - y.astype(jnp.float32) * logits
        else:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits + start, y)
        return (weights * losses).sum() + l2 / 2 * (W * W).sum()

    rows = 1 if binary else n_classes
    at = (jnp.zeros((rows, len(gram))), jnp.zeros(rows))
    W, b = unfold(minimise(loss, at, TOLERANCE * jnp.sqrt(weights.sum())))
    W = W if back is None else W @ back.T
    if binary:
        return against_first(W[0], b[0] + start[1] - start[0] - W[0] @ mean)
    return LinearProbe(W, b + start - W @ mean)


def minimise(loss: Any, at: Any, tolerance: Array, max_steps: int = MAX_STEPS) -> Any:
    """Where L-BFGS finds no gradient longer than `tolerance`, or than it times the loss where that is below 1."""
    search = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def going_on(carry: Any) -> Array:
        state = carry[1]
        step, value = optax.tree.get(state, "count"), optax.tree.get(state, "value")
        # Gradients of classes that are told apart are as small as the loss, and still not noise.
        enough = tolerance * jnp.minimum(value, 1)
        return (step == 0) | ((step < max_steps) & (optax.tree.norm(optax.tree.get(state, "grad")) > enough))

    def step(carry: Any) -> Any:
        at, state = carry
        value, gradient = value_and_grad(at, state=state)
        updates, state = search.update(gradient, state, at, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(at, updates), state

    with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
        return lax.while_loop(going_on, step, (at, search.init(at)))[0]
