"""What the laws share."""

import jaxtyping
import pytest


@pytest.fixture
def untyped():
    """Without the checks of types that the tests put around the package: what it says itself of a wrong one."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
