"""How an intervention becomes a pytree and shows itself, and the base of those that act through another."""

from collections.abc import Callable
from dataclasses import dataclass, fields
import re
from typing import Any

import jax

from interp_jax.core import Intervention, told


def pytree(*, data: tuple[str, ...] = (), static: tuple[str, ...] = ()) -> Callable[[type], type]:
    """A class decorator: a frozen dataclass that is a pytree of its `data` fields, shown as the call that makes it."""

    # Fields are of any type: jax rebuilds pytrees with other things than arrays in them.
    def register(cls: type) -> type:
        cls = dataclass(frozen=True, repr=False)(cls)
        cls.__repr__ = cls.told = _repr  # type: ignore[assignment, attr-defined]
        cls.__treescope_repr__ = _treescope_repr  # type: ignore[attr-defined]
        return jax.tree_util.register_dataclass(cls, list(data), list(static))

    return register


def _arguments(edit: Any) -> dict[str, Any]:
    """What an intervention was made with, as it says itself or by its fields."""
    said = edit.arguments() if hasattr(edit, "arguments") else {f.name: getattr(edit, f.name) for f in fields(edit)}
    return {name: value for name, value in said.items() if value is not None}


def _name(edit: Any) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(edit).__name__.lstrip("_")).lower()


def _repr(self: Any) -> str:
    return f"{_name(self)}({', '.join(f'{name}={told(value)}' for name, value in _arguments(self).items())})"


def _treescope_repr(self: Any, path: str | None, subtree_renderer: Any) -> Any:
    from treescope import rendering_parts as parts

    def line(name: str, value: Any) -> Any:
        return parts.siblings_with_annotations(f"{name}=", subtree_renderer(value, path=None))

    return parts.build_foldable_tree_node_from_children(
        prefix=f"{_name(self)}(",
        children=[line(name, value) for name, value in _arguments(self).items()],
        suffix=")",
        comma_separated=True,
        path=path,
    )


@pytree(data=("edit",))
class Wrapper(Intervention):
    """An intervention that acts through another."""

    edit: Any

    @property
    def inner(self) -> tuple[Intervention, ...]:  # type: ignore[override]
        return (self.edit,)
