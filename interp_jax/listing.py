"""The catalogue of a function's sites, which prints as a table, in a terminal and in a notebook."""

from collections.abc import Callable, Sequence
import html
from typing import Any

from interp_jax import core
from interp_jax.core import SiteInfo, layers_text

COLUMNS = ("site", "layers", "shape", "axes", "dtype")


def sites(f: Callable[..., Any], *args: Any, **kwargs: Any) -> "Sites":
    """The catalogue of the sites that `f(*args, **kwargs)` declares. `f` is traced, and nothing is computed.

    Args:
      f: a function of pytrees.
      *args: its arguments: arrays of any shape, or `jax.ShapeDtypeStruct`s.
      **kwargs: its keyword arguments.

    Returns:
      A dictionary name -> `SiteInfo(shape, dtype, axes, layers)`, which prints as a table. There, `*` marks a site that
      is computed only when it is asked for.

    Raises:
      ValueError: a name is declared twice in one scope.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x * 2, "double", axes=("d_model",)).sum()
      >>> ij.sites(f, jnp.ones(3))
      site    layers  shape  axes     dtype
      ------  ------  -----  -------  -------
      double          3      d_model  float32
    """
    return Sites(core.sites(f, *args, **kwargs))


class Sites(dict[str, SiteInfo]):
    """A dictionary name of a site -> SiteInfo, which prints as a table."""

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The rows of the table, without its head: the texts of `COLUMNS` for each site."""
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
        rows = [COLUMNS, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * w for w in widths))
        note = ["* computed only when asked for"] if any(info.on_demand for info in self.values()) else []
        return "\n".join([*lines, *note])

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.rows())
        return f"<table>{row(COLUMNS, 'th')}{body}</table>"

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        from treescope import rendering_parts as parts

        return parts.build_foldable_tree_node_from_children(
            prefix="Sites(",
            children=[parts.text(line) for line in repr(self).splitlines()],
            suffix=")",
            path=path,
            expand_state=parts.ExpandState.EXPANDED,
        )
