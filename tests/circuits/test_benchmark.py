"""MIB's areas: against scikit-learn's trapezoid rule, the identities, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import auc

from interp_jax import circuits


def test_areas() -> None:
    share = np.random.default_rng(0).normal(0.7, 0.5, (2, 3, 10)).astype(np.float32)
    found = jax.jit(circuits.areas)(jnp.asarray(share))
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(found.cpr[index], auc(circuits.FRACTIONS, share[index]), rtol=1e-5)
        np.testing.assert_allclose(found.cmd[index], auc(circuits.FRACTIONS, np.abs(1 - share[index])), rtol=1e-5)
    whole = circuits.areas(jnp.ones(10))
    np.testing.assert_allclose([whole.cpr, whole.cmd], [0.999, 0], atol=1e-6)


def test_bad_input_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"areas: share is \[2, 9\] of 10 fractions: give one circuit for each"):
        circuits.areas(jnp.ones((2, 9)))
    with pytest.raises(ValueError, match=r"areas: fractions \[0.5, 0.1\] do not grow"):
        circuits.areas(jnp.ones(2), (0.5, 0.1))
