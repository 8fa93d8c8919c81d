"""What the command line compiles is kept for its next run, where the user has not said otherwise."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

SCRIPT = """
import jax
from interp_jax.cli import programs
compiled = []
jax.monitoring.register_event_listener(lambda event, **_: compiled.append(event))
programs.keep()
jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(3)).block_until_ready()
print(sum(event.endswith("compilation_cache/cache_hits") for event in compiled))
"""


def hits(home: Path, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment | {"XDG_CACHE_HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not run.stderr
    return int(run.stdout)


@pytest.mark.parametrize("named", [False, True])
def test_a_second_run_compiles_nothing(tmp_path: Path, named: bool) -> None:
    options = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine")} if named else {}
    options |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} if named else {}
    assert hits(tmp_path, **options) == 0
    assert (tmp_path / "mine" if named else tmp_path / "interp_jax" / "programs").exists()
    assert hits(tmp_path, **options) > 0
    assert (tmp_path / "interp_jax").exists() is not named


def test_a_cache_that_is_turned_off_stays_off(tmp_path: Path) -> None:
    for _ in range(2):
        assert hits(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false") == 0
    assert not (tmp_path / "interp_jax").exists()
