"""flax nnx models that share weights, keep state, or jit themselves."""

from typing import Any

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import scale
from tests.models import guests


def run(model: Any, *args: Any, **kwargs: Any) -> Any:
    return model(*args, **kwargs)


def close(a: Any, b: Any) -> None:
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-5)


def test_shared_weights() -> None:
    tied = guests.filled(guests.Tied)
    tagged = models.tag(tied, {"a": "first", "b": "second"})
    close(tagged(jnp.ones(4)), tied(jnp.ones(4)))
    assert tagged.first.kernel is tagged.second.kernel

    def loss(model: Any) -> jax.Array:
        return (model(jnp.arange(4.0)) ** 3).sum()

    slopes = nnx.jit(nnx.grad(loss))
    close(nnx.to_pure_dict(slopes(tagged)), nnx.to_pure_dict(slopes(tied)))
    with pytest.raises(ValueError, match="norms.1 and norms.0 are one module in two places"):
        models.tag(tied, {"c": "norms.*"})
    with pytest.raises(ValueError, match="'c' is declared twice"):
        ij.sites(run, models.tag(tied, {"c": "norm"}), jnp.ones(4))


def test_state_is_refused_where_it_changes() -> None:
    noisy, x = guests.Noisy(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (3, 4))
    before = nnx.to_pure_dict(nnx.state(noisy, nnx.Not(nnx.RngKey)))
    training = models.tag(noisy, {"hidden": "linear"})
    for call in (training, jax.jit(lambda x: training(x)), lambda x: ij.capture(run, "hidden")(training, x)):
        with pytest.raises(ValueError, match="Noisy: the call changes .*evaluation mode"):
            call(x)
    close(nnx.to_pure_dict(nnx.state(training, nnx.Not(nnx.RngKey))), before)
    quiet = nnx.view(noisy, deterministic=True, use_running_average=True)
    tagged = models.tag(quiet, {"hidden": "linear"})
    close(ij.intervene(run, {"hidden": scale(1.0)})(tagged, x), quiet(x))
    drops = models.tag(nnx.view(noisy, deterministic=False, use_running_average=True), {"hidden": "linear"})
    close(run(drops, x, rngs=nnx.Rngs(3)), nnx.view(noisy, use_running_average=True)(x, rngs=nnx.Rngs(3)))


def test_state_passes_untouched_through_the_transforms_of_nnx() -> None:
    wrapped = guests.Wrapped(nnx.Rngs(0))
    training = models.tag(wrapped, {"blocks.out": guests.Noisy})
    with pytest.raises(ValueError, match="Wrapped: the call changes blocks.0.dropout.rngs.count.*evaluation mode"):
        training(jnp.ones((3, 4)))
    quiet = nnx.view(wrapped, deterministic=True, use_running_average=True)
    tagged = models.tag(quiet, {"blocks.out": guests.Noisy, "blocks.hidden": "blocks.*.linear"})
    out, acts = ij.capture(run, "*")(tagged, jnp.ones((3, 4)))
    close((out, acts["blocks.out"][1]), (quiet(jnp.ones((3, 4))),) * 2)
    assert acts["blocks.hidden"].shape == (2, 3, 4)
