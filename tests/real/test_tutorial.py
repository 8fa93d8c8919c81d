"""The tutorial on patching and circuits shows what is stored in it, on SmolLM2."""

import pytest

from tests.notebooks import TUTORIALS, has_warnings, shown, stored_and_run
from tests.real import packages
from tests.real.conftest import Real


@pytest.mark.real
@pytest.mark.filterwarnings("default")
def test_patching_and_circuits(smollm: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_JAX_REAL", str(packages.cache()))
    stored, ran = stored_and_run(TUTORIALS / "2_patching_and_circuits.ipynb")
    assert not has_warnings(ran)
    assert shown(ran) == shown(stored)
