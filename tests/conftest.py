"""What every test runs under: 8 devices, strict dtypes, shapes that are checked, and warnings that are errors."""

from collections.abc import Callable, Iterator
from dataclasses import replace
import importlib
import json
import os
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

import jax
from jaxtyping import install_import_hook
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_compilation_cache", False)  # the command line would use the user's

ROOT = Path(__file__).resolve().parents[1]
OLDEST_JAX = jax.__version__.startswith("0.10.")  # a newer jax deprecates what the oldest supported one still needs

# In one part, not 32: each part is mapped into memory by itself, and a worker that holds thousands grows slow, and ends
# with the 65,530 maps that Linux allows a process.
QUICK_TO_COMPILE = ["--xla_cpu_parallel_codegen_split_count=1"]
if OLDEST_JAX:  # a newer XLA ends the process at a flag that it no longer knows
    QUICK_TO_COMPILE.append("--xla_cpu_use_fusion_emitters=false")

# Their warnings are about themselves: nothing that we call can avoid them.
THIRD_PARTY = ("beartype", "chex", "datasets", "flax", "grain", "orbax", "penzai", "tensorboard", "treescope")


def _real(config: pytest.Config) -> bool:
    """Whether the tests of real models are run, by themselves."""
    chosen = config.option.markexpr
    return "real" in chosen and "not real" not in chosen


def _long(config: pytest.Config) -> bool:
    """Whether the long tests are run, by themselves."""
    chosen = config.option.markexpr
    return "long" in chosen and "not long" not in chosen


def pytest_configure(config: pytest.Config) -> None:
    if not _long(config):  # checking shapes takes as long as the rest, and the other tests call what these do
        install_import_hook("interp_jax", "beartype.beartype")  # before anything imports interp_jax
    if OLDEST_JAX:
        config.addinivalue_line("filterwarnings", "error")
    if not _real(config):  # of tests of tiny models compiling is most, so it is made quick
        jax.config.update("jax_disable_most_optimizations", True)
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *QUICK_TO_COMPILE])
    for package in THIRD_PARTY:
        config.addinivalue_line("filterwarnings", rf"default:::{package}(\..*)?")
    # Raised by another library's thread or finaliser, in whichever test happens to run then.
    for category in ("PytestUnraisableExceptionWarning", "PytestUnhandledThreadExceptionWarning"):
        config.addinivalue_line("filterwarnings", f"default::pytest.{category}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Not what is left out anyway: tests of parity import the peers, which takes long."""
    left_out = {"parity": "not parity" in config.option.markexpr, "real": not _real(config)}
    return True if left_out.get(collection_path.name) else None


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Real models are loaded once, in one process: each worker would load its own."""
    if _real(config):
        config.option.numprocesses = 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("parity"):  # the peers' own warnings are not ours
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_module() -> Iterator[None]:
    """A module's programs are few others' use, and a worker that holds thousands lowers new ones half as fast."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def experiment() -> Iterator[Callable[[str], ModuleType]]:
    """Name -> that script of `experiments` as a module; scripts find their neighbours as when they are run."""
    folder = str(ROOT / "experiments")
    sys.path.append(folder)
    yield importlib.import_module
    sys.path.remove(folder)


@pytest.fixture
def run(experiment: Callable[[str], ModuleType], tmp_path: Path) -> Callable[..., tuple[Any, Any, Any]]:
    """Runs an experiment: its name, its class of settings and what changes of them, a dict where one holds others.

    Gives the settings, what `main` returns, and the numbers that it wrote beside a figure.
    """

    def run(name: str, settings: str, **changes: Any) -> tuple[Any, Any, Any]:
        from interp_jax import config  # after the import hook

        script = experiment(name)
        cfg = config.load(getattr(script, settings), f"configs/{name}.toml", ())
        nested = {key: replace(getattr(cfg, key), **value) for key, value in changes.items() if isinstance(value, dict)}
        cfg = replace(cfg, **changes | nested, out=tmp_path / "out")
        with jax.numpy_dtype_promotion("standard"):  # as a user runs it; optax's own updates want it
            found = script.main(cfg)
        assert "plotly" in (cfg.out / f"{name}.html").read_text()
        return cfg, found, json.loads((cfg.out / f"{name}.json").read_text())

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real models and data sets: $INTERP_JAX_DATA, by default ../shared/data beside the repository."""
    folder = Path(os.environ.get("INTERP_JAX_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set INTERP_JAX_DATA)")
    return folder
