"""How an intervention becomes a pytree, and the base of those that act through another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from interp_jax.core import Intervention


def pytree(*, data: tuple[str, ...] = (), static: tuple[str, ...] = ()) -> Callable[[type], type]:
    """A class decorator: a frozen dataclass that is a pytree of its `data` fields."""

    # Fields are of any type: jax rebuilds pytrees with other things than arrays in them.
    def register(cls: type) -> type:
        return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls), list(data), list(static))

    return register


@pytree(data=("edit",))
class Wrapper(Intervention):
    """An intervention that acts through another."""

    edit: Any

    @property
    def layers(self) -> frozenset[int] | None:  # type: ignore[override]
        return self.edit.layers

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return self.edit.reads
