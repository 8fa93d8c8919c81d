"""Attribution patching is exact where the model is linear, a gradient elsewhere, and agrees with true patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

import interp_jax as ij
from interp_jax import models, patching


def linear(W, x):
    """Two layers that add to a stream `[batch position d]`; the last position is read."""
    for layer in range(2):
        x = ij.site(x, "x", layer=layer, axes=("batch", "position", "d"))
        x = x + jnp.einsum("bpd,pq,de->bqe", x, W[0], W[1])
    return x[:, -1].sum(-1)


@pytest.mark.parametrize(
    "over", [("layer", "position"), ("d", "layer"), ("batch", "layer", "position", "d"), ("layer",)]
)
def test_exact_on_a_linear_model(over) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    W = jax.random.normal(keys[0], (3, 3)), jax.random.normal(keys[1], (2, 2))

    def f(W, flat):
        return linear(W, flat.reshape(-1, 3, 2))

    clean, corrupted = jax.random.normal(keys[2], (2, 4, 6))
    true = patching.activation_patch(f, lambda y: y, "x", over)(W, clean, corrupted)
    base = f(W, corrupted)
    base = base.reshape(-1, *(1,) * (len(over) - 1)) if "batch" in over else base.mean()
    estimate = patching.attribution_patch(f, lambda y: y, "x", over)(W, clean, corrupted)
    np.testing.assert_allclose(estimate, true - base, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_it_is_the_difference_times_the_gradient(tiny) -> None:
    model, where = models.stack_layers(tiny.model), "blocks.attn.z"
    _, values, slopes = ij.grads(tiny.f, tiny.metric, where)(model, tiny.corrupted)
    clean = ij.capture(tiny.f, where, output=False)(model, tiny.clean)[where]
    columns = ((clean - values[where]) * slopes[where]).sum(-1) / 3  # [layer batch position head], padding on the left
    wanted = sum(np.roll(columns[:, i], -pad, axis=1) for i, pad in enumerate((2, 0, 1)))
    got = patching.attribution_patch(tiny.f, tiny.metric, where, ("layer", "position", "head"))
    np.testing.assert_allclose(got(model, tiny.clean, tiny.corrupted), wanted, atol=1e-5)


@pytest.mark.long
def test_it_ranks_the_microworlds_heads_as_patching_does(microworld) -> None:
    f, metric, model, clean, corrupted = microworld
    over = ("layer", "head")
    estimate = patching.attribution_patch(f, metric, "blocks.attn.z", over)(model, clean, corrupted)
    true = patching.activation_patch(f, metric, "blocks.attn.z", over, plan="data")(model, clean, corrupted)
    change = true - metric(f(model, corrupted)).mean()
    assert spearmanr(np.ravel(estimate), np.ravel(change)).statistic >= 0.7


def test_pairs_of_other_lengths(tiny) -> None:
    g = patching.attribution_patch(tiny.f, tiny.metric, "blocks.attn.z", ("layer", "head"))
    with pytest.raises(ValueError, match=r"clean is \[3, 6\], corrupted \[3, 5\]: give pairs of the same length"):
        g(tiny.model, tiny.clean, tiny.corrupted[:, 1:])
