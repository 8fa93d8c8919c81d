"""The transforms of a function with sites: `capture`, `intervene`, `grads`, `freeze`, and the catalogue `sites`.

Each returns a function with the signature of `f`. Calling it traces `f` to a jaxpr and evaluates that again, in a
program that is compiled once and held (see `calling`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax.core.asking import edits_of, wants_of
from interp_jax.core.assembly import assemble
from interp_jax.core.calling import trace, transform
from interp_jax.core.catalog import Catalog
from interp_jax.core.context import Context
from interp_jax.core.control_flow import RULES
from interp_jax.core.edits import Intervention, as_intervention, told
from interp_jax.core.fitting import place
from interp_jax.core.info import SiteInfo
from interp_jax.core.interpreter import Interpreter
from interp_jax.core.jaxprs import out_avals, zeros
from interp_jax.core.log import Log, current
from interp_jax.core.plan import Want

Array = jax.Array
Where = str | Iterable[str] | Mapping[str, Callable[[Array], Array] | None]


def sites(f: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, SiteInfo]:
    """The sites that `f(*args, **kwargs)` declares, by their names. `interp_jax.sites` is the same, shown as a table.

    Raises:
      ValueError: a name is declared twice in one scope.
    """
    return Catalog(trace(f, args, kwargs)[0]).sites()


def find(f: Callable[..., Any], address: str, *args: Any, **kwargs: Any) -> dict[str, SiteInfo]:
    """The sites of `f(*args, **kwargs)` that an address stands for, by their names, for a method that goes over them.

    Args:
      f: function of pytrees.
      address: of a site, of one layer of it, or a glob.
      *args: as for `sites`.
      **kwargs: as for `sites`.

    Returns:
      Name -> `SiteInfo`, whose `layers` are None where the address has a number, since a capture then has no such axis.

    Raises:
      ValueError: the address matches no site or layer.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax.core import find, site
      >>> f = lambda x: site(x, "h", layer=0) + site(2 * x, "h", layer=1)
      >>> find(f, "h", jnp.ones(3))["h"].layers
      (0, 1)
    """
    catalog = Catalog(trace(f, args, kwargs)[0])
    found = {target.name: (target, catalog.info(target.name)) for target in catalog.resolve(address)}
    return {
        name: info if target.layer is None else replace(info, layers=None) for name, (target, info) in found.items()
    }


def capture(f: Callable[..., Any], where: Where, *, output: bool = True) -> Callable[..., Any]:
    """A function that also returns values at sites.

    Args:
      f: function of pytrees.
      where: an address, several, or a mapping from addresses to reducers `value -> array` (or None), of which only
        the results are ever stored. A glob stands for the canonical names that it matches.
      output: False leaves out the output of `f` and everything that only it needs.

    Returns:
      `g(*args) -> (f(*args), {address: array})`, or only the dictionary. Where a site stands in a loop over layers the
      array is `[layer ...]`; an address with a number gives that layer's `[...]`. Mapped axes of a `vmap` inside `f`
      stand after the layer axis.

    Raises:
      ValueError: an address matches no site or layer, or a value is not defined (a site in one branch of a cond).

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x * 2, "double").sum()
      >>> out, acts = ij.capture(f, "double")(jnp.ones(3))
      >>> acts["double"].tolist()
      [2.0, 2.0, 2.0]
      >>> ij.capture(f, {"double": jnp.max}, output=False)(jnp.ones(3))["double"].item()
      2.0
    """
    pairs = _pairs(where)
    reducers = tuple(None if reducer is None else as_intervention(reducer) for _, reducer in pairs)
    return transform(_capture, (tuple(address for address, _ in pairs), output), (_function(f), reducers), like=f)


def intervene(f: Callable[..., Any], edits: Mapping[str, Any]) -> Callable[..., Any]:
    """`f` with interventions at sites.

    Args:
      f: function of pytrees.
      edits: address -> intervention: any callable `value -> value`, or one of `interp_jax.interventions`. Several
        edits of one site apply in the order of the mapping. Under a `vmap` inside `f` an edit sees one example.

    Returns:
      A function with the signature of `f`.

    Raises:
      ValueError: an address matches no site or layer, an edit changes shape or dtype, or the site stands in a function
        that was differentiated already: `intervene(grad(f))` must be `grad(intervene(f))`.
      TypeError: an intervention is not callable.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x * 2, "double").sum()
      >>> ij.intervene(f, {"double": lambda x: x + 1})(jnp.ones(3)).item()
      9.0
    """
    if not isinstance(edits, Mapping):
        raise TypeError(f"edits are a mapping of addresses to interventions, not {type(edits).__name__}")
    if not edits:
        return _function(f)
    _check_addresses(edits)
    interventions = tuple(as_intervention(edit) for edit in edits.values())
    return transform(_intervene, tuple(edits), (_function(f), interventions), like=f)


def grads(f: Callable[..., Any], metric: Callable[[Any], Array], where: str | Iterable[str]) -> Callable[..., Any]:
    """A function that returns the derivative of a metric with respect to the values at sites, by one backward pass.

    Args:
      f: function of pytrees.
      metric: output of `f` -> number, or one number per example, which are summed.
      where: an address or several.

    Returns:
      `g(*args) -> (metric value [], captured, gradients)`: two dictionaries by address, of arrays like `capture`'s.

    Raises:
      ValueError: an address matches no site, or a site does not hold floating-point values.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x * 2, "double") ** 2
      >>> value, acts, slopes = ij.grads(f, jnp.sum, "double")(jnp.ones(2))
      >>> value.item(), acts["double"].tolist(), slopes["double"].tolist()
      (8.0, [2.0, 2.0], [4.0, 4.0])
    """
    if not callable(metric):
        raise TypeError(f"grads(f, metric, where): a metric is a function of what f returns, not {metric!r:.60}")
    addresses = tuple(address for address, _ in _pairs(where))
    return transform(_grads, addresses, (_function(f), metric), like=f)


def freeze(
    f: Callable[..., Any], where: str | Iterable[str], values: Mapping[str, Array] | None = None
) -> Callable[..., Any]:
    """`f` with sites held constant.

    Args:
      f: function of pytrees.
      where: an address or several.
      values: None: no gradient flows through the sites. Else their values by address, as `capture` returned them:
        a frozen run.

    Returns:
      A function with the signature of `f`.

    Raises:
      ValueError: an address matches no site, or has no value in `values`.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: (ij.site(x * 2, "double") * x).sum()
      >>> jax.grad(ij.freeze(f, "double"))(jnp.ones(2)).tolist()
      [2.0, 2.0]
    """
    addresses = tuple(address for address, _ in _pairs(where))
    if values is not None and not isinstance(values, Mapping):
        raise TypeError(f"freeze: values are a mapping of addresses to arrays, not {type(values).__name__}")
    if values is not None:
        _check_held([address for address in addresses if "*" not in address], values)
    return transform(_freeze, addresses, (_function(f), values and dict(values)), like=f)


def _check_held(keys: Iterable[str], values: Mapping[str, Any]) -> None:
    for key in keys:
        if key not in values:
            raise ValueError(f"freeze: no value for {key!r}; values has {', '.join(values) or 'none'}")


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=[])
@dataclass(frozen=True)
class _Hold(Intervention):
    """A site held at `values`, or at its own value, without gradient. Sees every mapped axis at once."""

    values: Array | None
    whole = True

    def told(self) -> str:
        return "held without gradient" if self.values is None else f"held at {told(self.values)}"

    def __call__(self, value: Array, ctx: Context) -> Array:
        held = value if self.values is None else place(jnp.asarray(self.values), value, ctx).astype(value.dtype)
        return jax.lax.stop_gradient(held)


def _function(f: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(f):
        raise TypeError(f"expected a function of pytrees, got {type(f).__name__}")
    return f


def _pairs(where: Where) -> list[tuple[str, Any]]:
    if isinstance(where, str):
        return [(where, None)]
    if not isinstance(where, Iterable):
        raise TypeError(f"where is an address such as 'blocks.resid_post', or several, not {type(where).__name__}")
    pairs = list(where.items()) if isinstance(where, Mapping) else [(address, None) for address in where]
    _check_addresses(address for address, _ in pairs)
    return pairs


def _check_addresses(addresses: Iterable[Any]) -> None:
    for address in addresses:
        if not isinstance(address, str):
            raise TypeError(f"an address is a string such as 'blocks.resid_post', not {type(address).__name__}")


# What each does when it is called: trace `f` and evaluate it again.


def _capture(options: tuple[tuple[str, ...], bool], arrays: Any, *args: Any, **kwargs: Any) -> Any:
    (addresses, output), (f, reducers) = options, arrays
    jaxpr, leaves, tree = trace(f, args, kwargs)
    catalog = Catalog(jaxpr)
    wants = wants_of(catalog, addresses, reducers)
    interpreter = _interpreter(catalog, wants)
    outs, values = interpreter.run(jaxpr, leaves, output=output, deltas={})
    captured = assemble(wants, interpreter.records, values)
    return (jax.tree.unflatten(tree, outs), captured) if output else captured


def _intervene(addresses: tuple[str, ...], arrays: Any, *args: Any, **kwargs: Any) -> Any:
    f, interventions = arrays
    return _edited(f, args, kwargs, lambda catalog: zip(addresses, interventions, strict=True))


def _freeze(addresses: tuple[str, ...], arrays: Any, *args: Any, **kwargs: Any) -> Any:
    f, values = arrays

    def held(catalog: Catalog) -> Iterable[tuple[str, Intervention]]:
        keys = [target.key for address in addresses for target in catalog.resolve(address)]
        if values is None:
            return [(key, _Hold(None)) for key in keys]
        _check_held(keys, values)
        return [(key, _Hold(values[key])) for key in keys]

    return _edited(f, args, kwargs, held)


def _edited(f: Any, args: Any, kwargs: Any, edits: Callable[[Catalog], Iterable[tuple[str, Intervention]]]) -> Any:
    """`f(*args, **kwargs)` with the edits that are asked for of its sites."""
    jaxpr, leaves, tree = trace(f, args, kwargs)
    catalog = Catalog(jaxpr)
    each = [edit for address, fn in edits(catalog) for edit in edits_of(catalog, address, fn)]
    outs, _ = _interpreter(catalog, edits=each).run(jaxpr, leaves, output=True, deltas={})
    return jax.tree.unflatten(tree, outs)


def _interpreter(catalog: Catalog, wants: Sequence[Want] = (), log: Log | None = None, **options: Any) -> Interpreter:
    return Interpreter(catalog, RULES, log or current(), wants, **options)


def _kind(x: Any) -> str:
    return str(jnp.result_type(x)) if isinstance(x, (jax.Array, np.ndarray, int, complex)) else type(x).__name__


def _grads(addresses: tuple[str, ...], arrays: Any, *args: Any, **kwargs: Any) -> Any:
    f, metric = arrays
    jaxpr, leaves, tree = trace(f, args, kwargs)
    catalog = Catalog(jaxpr)
    wants = wants_of(catalog, addresses, (None,) * len(addresses))
    for want in wants:
        if not jnp.issubdtype(catalog.info(want.target.name).dtype, jnp.inexact):
            raise ValueError(f"site {want.target.name!r} holds {catalog.info(want.target.name).dtype}: it has no slope")
    first = _interpreter(catalog, wants, Log("shapes"))
    avals = out_avals(lambda leaves: first.run(jaxpr, leaves, output=False, deltas={})[1], leaves)

    def loss(deltas: Any) -> Any:
        second = _interpreter(catalog, wants, records=first.records)
        outs, values = second.run(jaxpr, leaves, output=True, deltas=deltas)
        found = metric(jax.tree.unflatten(tree, outs))
        if not jax.tree_util.all_leaves((found,)) or not jnp.issubdtype(jnp.result_type(found), jnp.floating):
            raise TypeError(f"a metric returns one real number, or one an example, not {_kind(found)}")
        return jnp.sum(found), values

    (value, values), slopes = jax.value_and_grad(loss, has_aux=True)(jax.tree.map(zeros, avals))
    return value, assemble(wants, first.records, values), assemble(wants, first.records, slopes)
