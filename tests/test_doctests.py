"""The examples in the docstrings run, and print what they say."""

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import interp_jax

MODULES = sorted(m.name for m in pkgutil.walk_packages(interp_jax.__path__, "interp_jax.") if "__main__" not in m.name)

SLOW = {
    f"interp_jax.{name}" for name in ("lens.training", "circuits.completeness", "patching.sweep", "patching.tracing")
}


class Finder(doctest.DocTestFinder):
    """Sees through decorators: a function wrapped by the shape checker or by `jit` is still of its module."""

    def _from_module(self, module: Any, object: Any) -> bool:
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in SLOW else n for n in MODULES])
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    report: list[str] = []
    for example in Finder().find(module, name):
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


def test_wrapped_functions_are_found() -> None:
    from interp_jax import metrics

    assert "metrics.kl" in {test.name for test in Finder().find(metrics, "metrics")}
