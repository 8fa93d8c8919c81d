"""What the catalogue tells of a site."""

from dataclasses import dataclass, field

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
