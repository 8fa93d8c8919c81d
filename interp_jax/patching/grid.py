"""The places that a sweep visits: one for each index of the axes that it goes over, of one site."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax import Array
import jax.numpy as jnp
import numpy as np

from interp_jax.core import COUNTED, Context, Intervention, find
from interp_jax.interventions import at, chain
from interp_jax.interventions.registration import Wrapper, pytree
from interp_jax.runs import DEEP, at_places

PARTS = 3  # into which a scan of many layers is cut: in each, what comes before it runs once for all its places


class Layer(NamedTuple):
    """A layer whose `number` is data. It is known not to come before the layer `since`."""

    number: Array
    since: int


class Grid(NamedTuple):
    """The axes of a site that a sweep goes over.

    Attributes:
      layers: the numbers of the site's layers; None where the sweep does not go over layers.
      sizes: axis -> its size, of the other axes.
      axes: names of the site's own axes.
      scanned: whether the layers are those of a scan.
    """

    layers: tuple[int, ...] | None
    sizes: dict[str, int]
    axes: tuple[str, ...]
    scanned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (*(() if self.layers is None else (len(self.layers),)), *self.sizes.values())

    def names(self, *, batch: bool) -> tuple[str, ...]:
        """The names of the axes of what is found at every place, with or without a number for each example."""
        return (*(() if self.layers is None else ("layer",)), *self.sizes, *(("batch",) if batch else ()))


def lay(f: Callable[..., Any], where: str, over: Sequence[str], args: Any, kwargs: Any) -> Grid:
    """The grid of `over` at the site `where` of `f(*args, **kwargs)`. "batch" in `over` is no place and is left out.

    Raises:
      ValueError: the address names no site or several, or the site has no such axis.
    """
    found = find(f, where, *args, **kwargs)
    if len(found) > 1:
        raise ValueError(f"where={where!r} names {len(found)} sites, a sweep goes over one: {next(iter(found))!r}, ...")
    (info,) = found.values()
    layers = info.layers
    known = (*(("layer",) if layers else ()), *(info.axes or ()))
    for axis in over:
        if axis not in known or over.count(axis) > 1:
            what = f"names {axis!r} twice" if axis in known else f"names an axis {axis!r} that site {where!r} has not"
            raise ValueError(f"over={tuple(over)} {what}; its axes: {', '.join(known) or 'none is named'}")
    sizes = {axis: info.size(axis) for axis in over if axis not in ("layer", "batch")}
    return Grid(layers if "layer" in over else None, sizes, info.axes or (), info.scanned)


@pytree(data=("edit",), static=("first",))
class _Since(Wrapper):
    """An edit that does nothing before a layer."""

    first: int

    @property
    def since(self) -> int:  # type: ignore[override]
        return self.first

    def __call__(self, value: Array, ctx: Context) -> Array:
        return self.edit(value, ctx)


def confine(edit: Intervention, grid: Grid, layer: Any, places: Sequence[Array], window: int) -> Intervention:
    """Confines an edit to one place of the grid, at the layers `layer - window // 2` to `layer + (window - 1) // 2`."""
    places_of: dict[str, Any] = dict(zip(grid.sizes, places, strict=True))
    named = {axis: places_of.pop(axis) for axis in (*COUNTED, "head", "feature") if axis in places_of}
    edit = at(edit, **named)
    for axis, index in places_of.items():
        edit = at(edit, axis=grid.axes.index(axis) - len(grid.axes), index=index)
    if grid.layers is None:
        return edit
    number, since = layer if isinstance(layer, Layer) else (layer, 0)
    layers = [number + step for step in range(-(window // 2), (window + 1) // 2)]
    if isinstance(layer, int):
        layers = [k for k in layers if k in grid.layers]
    else:  # a negative one would count from the end
        layers = [jnp.where(k < 0, grid.layers[-1] + 1, k) for k in layers]
    here = at(edit, layer=number) if window == 1 else chain(*(at(edit, layer=k) for k in layers))
    return _Since(here, max(0, since - window // 2))


def visit(one: Callable[..., Array], grid: Grid, plan: str, chunk: int) -> Array:
    """Calls `one(layer, places)` at every place, `chunk` of them at once, and gives the values `[*grid.shape ...]`.

    The layer is a number; in the plan "data" it is a `Layer`.
    """
    sizes = tuple(grid.sizes.values())
    if grid.layers is None:
        values = at_places(lambda places: one(None, places), sizes, chunk)
    elif plan == "static":
        values = jnp.concatenate([at_places(lambda places, k=k: one(k, places), sizes, chunk) for k in grid.layers])
    else:
        parts = np.array_split(np.array(grid.layers), PARTS if grid.scanned and len(grid.layers) > DEEP else 1)
        each = []
        for part in parts:
            numbers, since = jnp.asarray(part), int(part[0])
            shape = (len(part), *sizes)
            each.append(at_places(lambda places: one(Layer(numbers[places[0]], since), places[1:]), shape, chunk))  # noqa: B023
        values = jnp.concatenate(each)
    return values.reshape(*grid.shape, *values.shape[1:])


def ordered(values: Array, grid: Grid, over: Sequence[str]) -> Array:
    """Transposes what `visit` gave, whose axes are those of `grid.names`, to the order of `over`."""
    names = grid.names(batch="batch" in over)
    return values.transpose([names.index(axis) for axis in over])
