"""The catalogue: which sites a jaxpr declares, where they stand, and what an address means."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import difflib
import fnmatch
import html
from typing import Any, NamedTuple

import numpy as np

from interp_jax.core.addresses import Target, numbered, split_address
from interp_jax.core.axes import Following, source
from interp_jax.core.jaxprs import closed, is_differentiated, subjaxprs
from interp_jax.core.selects import are_alternatives


class Span(NamedTuple):
    """A site's place in one loop around it: iterations `start` to `start + length`.

    `real` says whether a scan runs these iterations; a Python loop, or one iteration that a transform has taken out
    of a scan, has length 1 and is not real.
    """

    start: int
    length: int
    real: bool


class Found(NamedTuple):
    """One site equation of a jaxpr."""

    name: str
    aval: Any
    params: dict[str, Any]
    spans: tuple[Span, ...]
    depth: int  # number of scans around it
    differentiated: bool
    again: bool  # in a differentiated remat: if the site stood before, this recomputes it in a backward pass
    copy: bool  # known by name only
    on_demand: bool
    barrier: str | None  # the primitive that the transforms cannot enter
    read_only: bool = False  # tagged by jax's checkpoint_name in somebody else's model


@dataclass(frozen=True)
class SiteInfo:
    """What `sites` tells of one site.

    Attributes:
      shape: of one visit; `capture` returns `[*loops *layers *shape]`. Mapped axes of a vmap come first in it.
      dtype: numpy dtype.
      axes: names of the trailing axes, or None.
      layers: layer numbers, or None where the site stands in no loop.
      loops: sizes of the loops around the layer loop (nested scans), usually empty.
      on_demand: computed only when it is asked for (see `detail`).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str, ...] | None
    layers: tuple[int, ...] | None
    loops: tuple[int, ...] = ()
    on_demand: bool = False

    def size(self, axis: str) -> int:
        """The size of a named axis. Raises ValueError where the site has none of that name."""
        axes = self.axes or ()
        return self.shape[axes.index(axis) - len(axes)]


class Sites(dict[str, SiteInfo]):
    """name -> SiteInfo, printed as a table, and in a notebook as one."""

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        return [
            (
                name + (" *" if info.on_demand else ""),
                _layers_text(info.layers),
                " ".join(map(str, (*info.loops, *info.shape))) or "scalar",
                " ".join(info.axes or ()),
                str(info.dtype),
            )
            for name, info in self.items()
        ]

    def __repr__(self) -> str:
        head = ("site", "layers", "shape", "axes", "dtype")
        rows = [head, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * w for w in widths))
        note = ["* computed only when asked for"] if any(info.on_demand for info in self.values()) else []
        return "\n".join([*lines, *note])

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.rows())
        return f"<table>{row(('site', 'layers', 'shape', 'axes', 'dtype'), 'th')}{body}</table>"

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        from treescope import rendering_parts as parts

        return parts.build_foldable_tree_node_from_children(
            prefix="Sites(",
            children=[parts.text(line) for line in repr(self).splitlines()],
            suffix=")",
            path=path,
            expand_state=parts.ExpandState.EXPANDED,
        )


def _layers_text(layers: tuple[int, ...] | None) -> str:
    if not layers:
        return "" if layers is None else "none"
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole and len(layers) > 1 else ",".join(map(str, layers))


def site_spans(loops: tuple[Span, ...] | None, layer: int | None, frames: Sequence[Span]) -> tuple[Span, ...]:
    """Where a site stands, given the scans around it, outermost first.

    `loops` is what a transform noted on the site when it cut a scan: it covers the innermost of the real scans.
    """
    if loops is None:
        spans = list(frames)
    else:
        pieces = iter(frames[len(frames) - sum(span.real for span in loops) :])
        spans = list(frames[: len(frames) - sum(span.real for span in loops)])
        for span in loops:
            if not span.real:
                spans.append(span)
                continue
            piece = next(pieces)
            spans.append(Span(span.start + piece.start, piece.length, piece.real))
    return (*spans, Span(layer, 1, False)) if layer is not None else tuple(spans)


_PLAIN: dict[str, Any] = {
    "differentiated": False,
    "again": False,
    "copy": False,
    "on_demand": False,
    "barrier": None,
}


def walk(jaxpr: Any, frames: tuple[Span, ...] = (), state: dict[str, Any] = _PLAIN) -> Iterator[Found]:
    """Every site equation in a closed jaxpr and in the jaxprs inside it, in program order."""
    for eqn in closed(jaxpr).jaxpr.eqns:
        yield from walk_equation(eqn, frames, state)


def walk_equation(eqn: Any, frames: tuple[Span, ...], state: dict[str, Any] = _PLAIN) -> Iterator[Found]:
    """The site equations in one equation, itself included."""
    kind, params = eqn.primitive.name, eqn.params
    if is_differentiated(eqn) and not state["differentiated"]:
        state = state | {"differentiated": True}
    if kind in ("site", "name"):
        read_only = kind == "name"
        params = named_params(params["name"]) if read_only else params
        spans = site_spans(params["loops"], params["layer"], frames)
        here = state | {"differentiated": state["differentiated"] or params["differentiated"]}
        yield Found(params["name"], eqn.invars[0].aval, params, spans, len(frames), read_only=read_only, **here)
    elif kind == "detail":
        yield from walk(params["detailed"], frames, state | {"on_demand": True})
    elif kind == "mention":
        gone = {"copy": True, "on_demand": True, "differentiated": True}
        yield from walk(params["detailed"], frames, state | gone)
    elif kind == "scan":
        yield from walk(params["jaxpr"], (*frames, Span(0, params["length"], True)), state)
    elif kind == "cond":
        yield from _either(params["branches"], frames, state)
    elif kind in REMAT:
        yield from walk(params["jaxpr"], frames, state | {"again": state["again"] or params["differentiated"]})
    else:
        barrier = state["barrier"] or (None if kind in ENTERED else kind)
        for inner in subjaxprs(eqn):
            yield from walk(inner, frames, state | {"barrier": barrier})


#: Primitives besides scan, cond and remat that the interpreter evaluates step by step.
def named_params(name: str) -> dict[str, Any]:
    """The parameters of a site that `jax.ad_checkpoint.checkpoint_name` declares, which knows only its name."""
    return {"name": name, "layer": None, "axes": None, "offset_axes": (), "marks": ()} | {
        "mapped": (),
        "loops": None,
        "differentiated": False,
    }


CALLS = frozenset({"closed_call", "core_call", "eval_jaxpr"})
CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
REMAT = frozenset({"remat2", "remat", "checkpoint"})
ENTERED = CALLS | CUSTOM | {"jit", "pjit", "while", "shard_map"}


def _either(branches: Sequence[Any], frames: tuple[Span, ...], state: dict[str, Any]) -> Iterator[Found]:
    """The sites of a cond: those of its branches, each told once."""
    seen = set()
    for branch in branches:
        found_here = list(walk(branch, frames, state))
        yield from (found for found in found_here if (found.name, found.spans) not in seen)
        seen |= {(found.name, found.spans) for found in found_here}


class Catalog:
    """The sites of one traced function, by name."""

    def __init__(self, jaxpr: Any):
        self.jaxpr = jaxpr
        self.found: dict[str, list[Found]] = {}
        self.copies: dict[str, list[Found]] = {}
        for found in walk(jaxpr):
            before = self.found.get(found.name, [])
            if found.on_demand and any(
                not earlier.on_demand and overlap(found.spans, earlier.spans) for earlier in before
            ):
                continue  # a site of a detail that its fast computation has, too
            copy = found.copy or (found.again and any(overlap(found.spans, earlier.spans) for earlier in before))
            (self.copies if copy else self.found).setdefault(found.name, []).append(found)

    def info(self, name: str) -> SiteInfo:
        first = self.found[name][0]
        self.check_once(name)
        shape = mapped_first([dims[0] for dims in first.params["mapped"]], first.aval.shape)
        axes = first.params["axes"]
        return SiteInfo(
            shape=shape,
            dtype=first.aval.dtype,
            axes=axes,
            layers=self.layers(name),
            loops=tuple(span.length if span.real else 1 for span in first.spans[:-1]),
            on_demand=all(found.on_demand for found in self.found[name]),
        )

    def sites(self) -> Sites:
        return Sites({name: self.info(name) for name in self.found})

    def layers(self, name: str) -> tuple[int, ...] | None:
        """The layers at which a site is declared: iterations of the innermost loop around it."""
        spans = [found.spans[-1] for found in self.found[name] if found.spans]
        if not spans:
            return None
        return tuple(sorted({i for span in spans for i in range(span.start, span.start + span.length)}))

    def on_demand(self, found: Found) -> bool:
        """Whether a site is declared by a detailed computation alone."""
        return any(known.on_demand and overlap(known.spans, found.spans) for known in self.found[found.name])

    def go_together(self, a: str, b: str) -> bool:
        """Whether the mapped axes of two sites are those of the same vmaps, as far as both have any."""
        mapped = [_mapped_axes(self.found[name][0]) for name in (a, b)]
        if not all(mapped) or len(mapped[0]) != len(mapped[1]):
            return True  # where they have other numbers of them, the interpreter says so
        following = Following()
        flows = [source(var.aval.shape, ("input", i)) for i, var in enumerate(self.jaxpr.jaxpr.invars)]
        following.run(self.jaxpr, flows)
        here, there = following.sites[a], following.sites[b]
        return all(
            self.found[a][0].aval.shape[i] == 1 or (here.axes[i] & there.axes[j]) - here.mixed - there.mixed
            for i, j in zip(*mapped, strict=True)
        )

    def stack(self, name: str) -> tuple[int, ...]:
        """The sizes of the leading axes of a captured value, one for each loop around the site."""
        each = zip(*(found.spans for found in self.found[name]), strict=False)
        return tuple(len({i for s in spans for i in range(s.start, s.start + s.length)}) for spans in each)

    def check_once(self, name: str) -> None:
        """Raises ValueError where a site is declared twice in one scope, other than in the branches of a cond."""
        if self.is_repeated(name) and not are_alternatives(self.jaxpr, name):
            raise ValueError(
                f"site {name!r} is declared twice in one scope: give each its own name, or layer= in a Python loop; of "
                "a function that calls a model several times, transform the single call"
            )

    def is_repeated(self, name: str) -> bool:
        seen: list[tuple[Span, ...]] = []
        for found in self.found[name]:
            if any(overlap(found.spans, spans) for spans in seen):
                return True
            seen.append(found.spans)
        return False

    def resolve(self, address: str) -> list[Target]:
        """The targets of an address or glob. Raises ValueError where it matches nothing."""
        if address in self.found:
            return [Target(address, address, None)]
        plain, layer = split_address(address)
        if "*" in address:
            return self._glob(address, plain, layer)
        if plain not in self.found:
            self._raise_unknown(address, plain)
        if layer is not None and layer not in (self.layers(plain) or ()):
            self.raise_no_layer(f"address {address!r}", plain, layer)
        return [Target(address, plain, layer)]

    def raise_no_layer(self, what: str, name: str, layer: int) -> None:
        layers = self.layers(name)
        has = "it stands in no loop over layers" if layers is None else f"its layers: {_layers_text(layers)}"
        raise ValueError(f"{what}: site {name!r} has no layer {layer}; {has} (interp_jax.sites(f, *args) lists all)")

    def _glob(self, address: str, plain: str, layer: int | None) -> list[Target]:
        """The targets of a glob. A number in it is a layer, but of names that have a number of their own."""
        targets, elsewhere = [], []
        for name in self.found:
            if split_address(name)[1] is not None:
                if fnmatch.fnmatchcase(name, address):
                    targets.append(Target(name, name, None))
                continue
            forms = {name}
            if self.layers(name) is not None and "." in name:
                head, tail = name.split(".", 1)
                forms.add(f"{head}.0.{tail}")
            if any(fnmatch.fnmatchcase(form, plain) for form in forms):
                if layer is None or layer in (self.layers(name) or ()):
                    targets.append(Target(name if layer is None else numbered(address, name, layer), name, layer))
                else:
                    elsewhere.append(name)
        if not targets and elsewhere and layer is not None:
            self.raise_no_layer(f"address {address!r}", elsewhere[0], layer)
        if not targets:
            self._raise_unknown(address, plain)
        return targets

    def _raise_unknown(self, address: str, plain: str) -> None:
        if plain in self.copies:
            raise ValueError(
                f"site {plain!r} is gone from a function that was differentiated already: write "
                "jax.grad(intervene(f, edits)), not intervene(jax.grad(f), edits); or use interp_jax.grads"
            )
        if not self.found:
            raise ValueError(f"address {address!r} matches no site: the function declares none")
        near = difflib.get_close_matches(plain, self.found, n=4, cutoff=0.5)
        tail = [name for name in self.found if name.rsplit(".", 1)[-1] == plain.rsplit(".", 1)[-1]]
        near = list(dict.fromkeys([*near, *tail])) or list(self.found)[:4]
        raise ValueError(
            f"address {address!r} matches no site; near names: {', '.join(near)} (interp_jax.sites(f, *args) lists all)"
        )


def _mapped_axes(found: Found) -> list[int]:
    """The mapped axes of a site's value, outermost first."""
    left = list(range(len(found.aval.shape)))
    return [left.pop(dims[0]) for dims in found.params["mapped"]]


def mapped_first(mapped: Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with its mapped axes, outermost first, in front."""
    rest, front = list(shape), []
    for axis in mapped:
        front.append(rest.pop(axis))
    return (*front, *rest)


def overlap(a: tuple[Span, ...], b: tuple[Span, ...]) -> bool:
    """Whether two sites have an iteration of all their loops in common."""
    return len(a) != len(b) or all(
        x.start < y.start + y.length and y.start < x.start + x.length for x, y in zip(a, b, strict=True)
    )
