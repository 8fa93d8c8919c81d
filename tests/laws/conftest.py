"""The laws compile many small programs and run each once: compiling quickly matters, running quickly does not."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
