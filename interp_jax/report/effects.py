"""A page of a map of effects, such as activation patching gives: a heat map whose every value can be read. No network.

The last axis goes across and all others go down; a cell that is pointed at, or reached by the arrow keys, tells its
place, its value and, where there are several pairs, the interval of their mean. In the spirit of the heat maps of Meng
et al. 2022, arXiv:2202.05262.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp_jax.report.rendering import render, visible


def effects_page(
    values: Any,
    axes: Sequence[str],
    labels: Sequence[Sequence[str]],
    *,
    title: str,
    interval: tuple[Any, Any] | None = None,
    about: str = "",
) -> str:
    """The map, as one HTML text that needs nothing else. Whatever it shows is escaped.

    Args:
      values: float `[*axes]`, one axis at least; 0 is no effect. Shown to three digits.
      axes: the name of each axis, such as "layer" and "position".
      labels: of each axis what its indices are called, such as "3" or "10 John".
      title: the heading.
      interval: the lower and the upper end of each value's interval, of the shape of `values`.
      about: a sentence under the heading.

    Raises:
      ValueError: no value, names or labels that do not fit the values, or values that are not finite.

    Example:
      >>> import numpy as np
      >>> from interp_jax import report
      >>> html = report.effects_page(np.eye(2), ["layer", "position"], ["01", ["<a>", "b"]], title="<map>")
      >>> "&lt;map&gt;" in html, "<a>" in html, "http" in html
      (True, False, False)
    """
    grid = np.asarray(values).astype(np.float32)
    if tuple(map(len, labels)) != grid.shape or len(axes) != grid.ndim or not grid.size:
        raise ValueError(
            f"effects_page: values {list(grid.shape)} with axes {list(axes)} and {list(map(len, labels))} labels: give "
            "a name and the labels of each axis"
        )
    ends = [np.asarray(end).astype(np.float32) for end in interval or ()]
    if any(end.shape != grid.shape for end in ends) or not all(np.isfinite(x).all() for x in (grid, *ends)):
        raise ValueError("effects_page: values and their interval must be finite and of one shape")
    data = {
        "axes": list(axes),
        "labels": [[visible(label) for label in some] for some in labels],
        "values": _thousandths(grid),
        "low": _thousandths(ends[0]) if ends else [],
        "high": _thousandths(ends[1]) if ends else [],
    }
    return render("effects.html", title=title, about=about, data=data)


def _thousandths(values: np.ndarray) -> list[int]:
    return np.rint(1000 * values).astype(int).ravel().tolist()
