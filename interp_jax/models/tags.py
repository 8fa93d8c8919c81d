"""Where sites go in somebody else's model: submodules found by path or by class, and their layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import difflib
import re
from typing import Any

import jax

from interp_jax.core import split_address

Path = tuple[str, ...]


@dataclass(frozen=True)
class Tag:
    """A site that a submodule is to declare.

    Attributes:
      name: of the site.
      layer: its static layer, or None.
      axes: names of the trailing axes, or None.
      of_input: whether the value is what the submodule is called with, not what it returns.
    """

    name: str
    layer: int | None
    axes: tuple[str, ...] | None
    of_input: bool


@dataclass(frozen=True)
class Submodule:
    """A part of a model that can be called.

    Attributes:
      path: names and indices from the model to it.
      layers: the numbers in the path that may be layers.
      module: the part itself.
    """

    path: Path
    layers: tuple[int, ...]
    module: Any

    @property
    def name(self) -> str:
        return ".".join(self.path)


def walk(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every node of a pytree with its path, itself first; a node that stands in two places comes twice."""
    yield path, node
    for key, child in children(node):
        yield from walk(child, (*path, key))


def children(node: Any) -> list[tuple[str, Any]]:
    """The nodes one level below a node of a pytree."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return [(_part(keys[0]), child) for keys, child in pairs if keys]


def _part(key: Any) -> str:
    return str(next(getattr(key, kind) for kind in ("name", "key", "idx") if hasattr(key, kind)))


def tags(
    submodules: Sequence[Submodule],
    outputs: Mapping[str, Any],
    inputs: Mapping[str, Any],
    axes: Mapping[str, Sequence[str]],
) -> dict[Path, tuple[Tag, ...]]:
    """The tags of each submodule that has any, by path. See `adapters.tag` for the arguments."""
    unknown = [address for address in axes if address not in {*outputs, *inputs}]
    if unknown:
        raise ValueError(
            f"tag: axes are given for {unknown[0]!r}, which is not one of {', '.join({*outputs, *inputs})}"
        )
    found: dict[Path, tuple[Tag, ...]] = {}
    for wanted, of_input in ((outputs, False), (inputs, True)):
        for address, where in wanted.items():
            name, _ = split_address(address)
            names = tuple(axes[address]) if address in axes else None
            for submodule, layer in _resolve(address, where, submodules):
                tag = Tag(name, layer, names, of_input)
                found[submodule.path] = (*found.get(submodule.path, ()), tag)
    return found


def _resolve(address: str, where: Any, submodules: Sequence[Submodule]) -> list[tuple[Submodule, int | None]]:
    if isinstance(where, str):
        matches = [s for s in submodules if re.fullmatch(_regex(where), s.name)]
    elif isinstance(where, type):
        matches = [s for s in submodules if isinstance(s.module, where)]
    else:
        raise TypeError(f"tag: {address!r} needs a path or a class, not {type(where).__name__}")
    if not matches:
        raise ValueError(_no_match(address, where, submodules))
    matches.sort(key=lambda s: _natural(s.name))
    _, layer = split_address(address)
    if layer is None:
        return list(zip(matches, _layers(matches, isinstance(where, type) or "*" in where), strict=True))
    if len(matches) > 1:
        raise ValueError(
            f"tag: {address!r} is one layer, but matches {matches[0].name} and {matches[1].name}: leave the number out"
        )
    return [(matches[0], layer)]


def _regex(path: str) -> str:
    """`*` stays within one part of a path, `**` crosses dots. `.a[0]`, as pytrees print their paths, is `a.0`."""
    path = re.sub(r"\[['\"]?([^]'\"]*)['\"]?\]", r".\1", path).lstrip(".")
    kinds = {"**.": r"(?:.*\.)?", "**": ".*", "*": r"[^.]*"}
    return "".join(kinds.get(part) or re.escape(part) for part in re.split(r"(\*\*\.|\*\*|\*)", path))


def _layers(matches: Sequence[Submodule], several: bool) -> list[int | None]:
    """One number of the paths, where it alone tells the matches apart; else their count."""
    numbers = [match.layers for match in matches]
    if len(matches) == 1:
        return [numbers[0][0] if several and len(numbers[0]) == 1 else None]
    alike = len({len(n) for n in numbers}) == 1
    differing = [column for column in zip(*numbers, strict=False) if len(set(column)) > 1]
    if alike and len(differing) == 1 and len(set(differing[0])) == len(matches):
        return list(differing[0])
    return list(range(len(matches)))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts block10 after block9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _no_match(address: str, where: str | type, submodules: Sequence[Submodule]) -> str:
    if isinstance(where, type):
        has = ", ".join(dict.fromkeys(type(s.module).__name__ for s in submodules))
        return f"tag: {address!r}: no submodule is a {where.__name__}; the model has {has}"
    names = list(dict.fromkeys(re.sub(r"\b\d+\b", "*", s.name) for s in submodules if s.path))
    near = difflib.get_close_matches(where, names, n=4, cutoff=0.5)
    near += [name for name in names if name.rsplit(".", 1)[-1] == where.rsplit(".", 1)[-1]]
    near = list(dict.fromkeys(near)) or names
    return f"tag: {address!r}: no submodule is called at {where!r}; near paths: {', '.join(near[:6])}"


def declare(value: Any, name: str, one: Callable[[Any, str], Any], is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Declares each array of a value: one under `name`, several under `name.key` and `name.part0`, `name.part1`."""
    pairs, tree = jax.tree_util.tree_flatten_with_path(value, is_leaf=is_leaf)

    def named(path: Any) -> str:
        parts = [_part(key) for key in path] if len(pairs) > 1 else []
        return ".".join([name, *(f"part{part}" if part.isdecimal() else part for part in parts)])

    leaves = [one(leaf, named(path)) if hasattr(leaf, "dtype") else leaf for path, leaf in pairs]
    return jax.tree.unflatten(tree, leaves)
