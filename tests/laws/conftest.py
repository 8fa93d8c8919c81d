"""The laws compile many small programs and run each once: compiling quickly matters, running quickly does not."""

import jax
import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def untyped():
    """Without the checks of types that the tests put around the package: what it says itself of a wrong one."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
