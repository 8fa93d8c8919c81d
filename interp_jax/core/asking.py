"""What is asked of a function, held against its catalogue: the values to capture, the edits to make."""

from typing import Any

from interp_jax.core.addresses import Target
from interp_jax.core.catalog import Catalog
from interp_jax.core.context import Context
from interp_jax.core.edits import Intervention
from interp_jax.core.log import current
from interp_jax.core.plan import Edit, Want
from interp_jax.core.walking import Found


def wants_of(catalog: Catalog, addresses: tuple[str, ...], reducers: Any) -> list[Want]:
    """What addresses ask to capture. Raises ValueError where that is not one value."""
    wants: dict[str, Want] = {}
    for address, reducer in zip(addresses, reducers, strict=True):
        for target in _targets(catalog, address):
            catalog.check_once(target.name)
            if catalog.is_repeated(target.name):
                raise ValueError(
                    f"site {target.name!r} stands in the branches of a cond that a vmap has turned into a select, of "
                    "which each example takes its own: put capture inside the vmap"
                )
            _check_entered(catalog.found[target.name])
            wants[target.key] = Want(target, reducer)
    return list(wants.values())


def edits_of(catalog: Catalog, address: str, intervention: Intervention) -> list[Edit]:
    """An intervention at each site of an address. Raises ValueError where it cannot be what is meant."""
    edits = []
    for target in _targets(catalog, address):
        found = catalog.found[target.name]
        _check_entered(found)
        if found[0].read_only:
            raise ValueError(
                f"site {target.name!r} is only named by checkpoint_name and cannot be edited: use interp_jax.site"
            )
        catalog.check_once(target.name)
        if any(f.differentiated for f in (*found, *catalog.copies.get(target.name, ()))):
            raise ValueError(
                f"site {target.name!r} stands in a function that was differentiated already, where an edit would not "
                "reach the derivative: write jax.grad(intervene(f, edits)), not intervene(jax.grad(f), edits)"
            )
        numbers = catalog.layers(target.name) or ()
        asked = frozenset(numbers) if target.layer is None else frozenset({target.layer})
        layers = intervention.confine(asked, Context(target.name, layers=numbers))
        if missing := layers - set(numbers):
            catalog.raise_no_layer(f"at(layer={min(missing)})", target.name, min(missing))
        if target.layer is None and layers == asked:
            layers = None
        reads = {}
        for read in intervention.reads:
            if "*" in read:
                raise ValueError(
                    f"the edit of {target.name!r} reads {read!r}: via takes one site for each key, no glob"
                )
            (reads[read],) = catalog.resolve(read)
            _check_read(catalog, target, reads[read])
        edits.append(Edit(target.name, layers, intervention, reads))
    return edits


def _targets(catalog: Catalog, address: str) -> list[Target]:
    """What an address stands for, which whoever listens is told."""
    targets = catalog.resolve(address)
    current().asks(address, targets)
    return targets


def _check_entered(found: list[Found]) -> None:
    for f in found:
        if f.barrier is not None:
            raise ValueError(
                f"site {f.name!r} stands inside {f.barrier}, which the transforms cannot enter: move it out"
            )


def _check_read(catalog: Catalog, target: Target, read: Target) -> None:
    if not catalog.go_together(target.name, read.name):
        raise ValueError(
            f"the edit of {target.name!r} reads {read.name!r}, which stands under another vmap, or under one whose "
            "examples are not seen to go with its own: put intervene inside the vmap"
        )
    depth, depth_read = (len(catalog.found[name][0].path) for name in (target.name, read.name))
    if depth_read - (read.layer is not None) > depth:
        raise ValueError(
            f"the edit of {target.name!r} reads {read.name!r}, which has layers: give the address a number"
        )
