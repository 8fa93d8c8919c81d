"""A site on its own, what a transform sees at it, and what is compiled meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij

X = jnp.arange(1.0, 4.0)


def site(x: Any) -> Any:
    return ij.site(x, "h")


def capture(f: Callable[..., Any], *args: Any) -> Any:
    return ij.capture(f, "h")(*args)[1]["h"]


def same(f: Callable[..., Any], expected: Any, *args: Any) -> None:
    """A transform gives what is expected; twice, since the second may be remembered."""
    for _ in range(2):
        np.testing.assert_allclose(capture(f, *(args or (X,))), expected, rtol=1e-6)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that grows by one for each program that XLA compiles."""
    found: list[str] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
