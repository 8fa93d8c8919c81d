"""What `sites` returns, and how it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
import html
from typing import Any

import numpy as np


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
      scanned: whether a scan runs the layers, and not a Python loop.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str, ...] | None
    layers: tuple[int, ...] | None
    loops: tuple[int, ...] = ()
    on_demand: bool = False
    scanned: bool = field(default=False, compare=False)  # the same sites, however the layers are written

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
                layers_text(info.layers),
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


def layers_text(layers: tuple[int, ...] | None) -> str:
    """The numbers of layers, in short."""
    if not layers:
        return "" if layers is None else "none"
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole and len(layers) > 1 else ",".join(map(str, layers))
