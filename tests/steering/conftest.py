"""A tiny random Llama, as a loop and as a scan over its layers, and a vector for each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models, steering
from tests.models.conftest import LLAMA, random_model

SITE = "blocks.resid_post"


# That a loop over layers equals a scan is a law of the core; here it is seen again, in the long run.
@pytest.fixture(scope="session", params=[pytest.param("looped", marks=pytest.mark.long), "scanned"])
def model(request: pytest.FixtureRequest) -> models.Decoder:
    made = random_model(LLAMA)
    return models.stack_layers(made) if request.param == "scanned" else made


@pytest.fixture(scope="session")
def tokens() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 37, (2, 5)), jnp.int32)


@pytest.fixture(scope="session")
def vector() -> steering.SteeringVector:
    stack = np.random.default_rng(1).normal(size=(3, 16))
    return steering.SteeringVector.create(stack, SITE, how="drawn", model="tiny")
