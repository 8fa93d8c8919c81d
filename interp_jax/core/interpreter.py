"""Evaluates a jaxpr again, with its sites read and edited on the way.

Every equation without a site of interest inside is bound as it stands; one with such a site goes to its rule: the
site itself here, control flow in `control_flow`. A value read at a site is a *record*. Records leave an inner function
beside its outputs, so that they pass through jit, remat, cond, scan and shard_map like any other value.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import DropVar, Literal
import jax.numpy as jnp

from interp_jax.core.addresses import Target
from interp_jax.core.catalog import Catalog, mapped_first
from interp_jax.core.context import Context
from interp_jax.core.control_flow import rule
from interp_jax.core.edits import Intervention, apply, call, from_front, to_front
from interp_jax.core.jaxprs import closed, context, rebind
from interp_jax.core.plan import Edit, Place, Record, Request, Scope, Want, covers, meets, site_index
from interp_jax.core.site import detail_p, site_p
from interp_jax.core.walking import Found, Span, named_params, site_spans, walk_equation

Array = jax.Array


class Interpreter:
    """One evaluation of one jaxpr.

    Attributes:
      records: what the keys of captured values stand for: those of `run`, and of an earlier run whose keys the
        deltas have.
    """

    def __init__(
        self,
        catalog: Catalog,
        wants: Sequence[Want] = (),
        edits: Sequence[Edit] = (),
        records: dict[str, Record] | None = None,
    ):
        self.catalog = catalog
        self.wants = list(wants)
        self.edits = list(edits)
        self.records = dict(records or {})
        self.read_names = {target.name for edit in self.edits for target in edit.reads.values()}

    def run(
        self, jaxpr: Any, args: Sequence[Any], *, output: bool, deltas: dict[str, Array]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The outputs (None where `output` is false) and the captured values by record key."""
        needed = [output] * len(jaxpr.jaxpr.outvars)
        return self.enter(jaxpr, args, Place((), Scope(), deltas), needed, frozenset())

    def enter(
        self, jaxpr: Any, args: Sequence[Any], place: Place, needed: Sequence[bool], exports: frozenset[Request]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The outputs of the body of an inner function, and the records that leave it: what is captured, or read
        outside."""
        inner = place._replace(scope=Scope(place.scope))
        outs = self.eval(jaxpr, args, inner, needed, exports)
        records = {
            key: value
            for key, value in inner.scope.values.items()
            if self.records[key].want is not None or (self.records[key].name, self.records[key].spans) in exports
        }
        return outs, records

    def eval(
        self, jaxpr: Any, args: Sequence[Any], place: Place, needed: Sequence[bool], exports: frozenset[Request]
    ) -> list[Any]:
        """Evaluates a jaxpr. An output that is not needed is None, and what only it needs is left out."""
        jaxpr = closed(jaxpr)
        env = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
        env.update(zip(jaxpr.jaxpr.invars, args, strict=True))

        def read(var: Any) -> Any:
            return var.val if isinstance(var, Literal) else env.get(var)  # None: nothing needs it

        for eqn, found, mask, pending in self._live(jaxpr.jaxpr, place, needed, exports):
            with context(eqn):
                outs = self._equation(eqn, [read(var) for var in eqn.invars], found, place, mask, pending)
            env.update((var, out) for var, out in zip(eqn.outvars, outs, strict=True) if not isinstance(var, DropVar))
        return [read(var) if need else None for var, need in zip(jaxpr.jaxpr.outvars, needed, strict=True)]

    def _equation(
        self,
        eqn: Any,
        values: list[Any],
        found: list[Found],
        place: Place,
        mask: list[bool],
        pending: frozenset[Request],
    ) -> list[Any]:
        if not found:
            return rebind(eqn, values)
        if eqn.primitive is site_p:
            values[0] = jnp.asarray(values[0], eqn.invars[0].aval.dtype)  # a literal is a Python number
            return [self._visit(eqn.params, values, place)]
        if eqn.primitive.name == "name":
            self._visit(named_params(eqn.params["name"]), values, place._replace(silent=True))
            return rebind(eqn, values)
        return rule(eqn)(self, eqn, values, place, mask, pending)

    def _live(
        self, jaxpr: Any, place: Place, needed: Sequence[bool], exports: frozenset[Request]
    ) -> list[tuple[Any, list[Found], list[bool], frozenset[Request]]]:
        """The equations to evaluate, each with its active sites, which outputs are needed, what later edits read."""
        plan = []
        wanted = {var for var, need in zip(jaxpr.outvars, needed, strict=True) if need and not isinstance(var, Literal)}
        pending = set(exports)
        for eqn, found in reversed(self._originals(jaxpr, place)):
            mask = [var in wanted for var in eqn.outvars]
            asked = any(self.wanted(f) or any(covers(f, request) for request in pending) for f in found)
            if not (asked or any(mask) or eqn.effects):
                continue
            plan.append((eqn, found, mask, frozenset(pending)))
            read = eqn.invars[eqn.params["n_outs"] :] if self.takes(eqn, place) else eqn.invars
            wanted.update(var for var in read if not isinstance(var, Literal))
            pending.update(*(self.requests(f) for f in found))
        return plan[::-1]

    def _originals(self, jaxpr: Any, place: Place) -> list[tuple[Any, list[Found]]]:
        """The equations with their sites of interest, but for those that a backward pass computes again."""
        pairs, seen = [], set()
        for eqn in jaxpr.eqns:
            found = [f for f in self.inside(eqn, place) if not (f.again and (f.name, f.spans) in seen)]
            seen.update((f.name, f.spans) for f in found)
            pairs.append((eqn, found))
        return pairs

    # What is of interest where.

    def inside(self, eqn: Any, place: Place) -> list[Found]:
        """The sites in an equation that are captured, edited or read; in a scan that was cut, every one."""
        found = walk_equation(eqn, place.spans)
        return [f for f in found if self.active(f) or (place.cut and not f.copy)]

    def wanted(self, found: Found) -> bool:
        """Whether a site is captured."""
        return not found.copy and any(
            want.target.name == found.name
            and meets(found.spans, None if want.target.layer is None else frozenset({want.target.layer}))
            for want in self.wants
        )

    def active(self, found: Found) -> bool:
        """Whether a site is captured, edited or read."""
        if found.copy:
            return False
        return (
            self.wanted(found)
            or found.name in self.read_names
            or any(edit.name == found.name and edit.meets(found.spans) for edit in self.edits)
        )

    def takes(self, eqn: Any, place: Place) -> bool:
        """Whether an equation is a choice of which the detailed computation is taken."""
        return eqn.primitive is detail_p and any(
            self.active(f) and self.catalog.on_demand(f) for f in self.inside(eqn, place)
        )

    def starts(self, name: str) -> set[int]:
        """The layers before which a scan may be cut: where edits begin."""
        return {edit.intervention.since for edit in self.edits if edit.name == name}

    def static_layers(self, name: str) -> set[int]:
        """The layers at which a site is edited, captured or read singly: a scan is cut there."""
        layers = {layer for edit in self.edits if edit.name == name for layer in edit.layers or ()}
        targets = [want.target for want in self.wants]
        targets += [target for edit in self.edits for target in edit.reads.values()]
        return layers | {target.layer for target in targets if target.name == name and target.layer is not None}

    def requests(self, found: Found) -> set[Request]:
        """What the edits of a site read elsewhere."""
        return {
            self._request(target, found.spans)
            for edit in self.edits
            if edit.name == found.name and edit.meets(found.spans)
            for target in edit.reads.values()
        }

    def _request(self, target: Target, spans: tuple[Span, ...]) -> Request:
        """Which visit of a site is read from a visit at `spans`: that of the same layer, or of the one it names."""
        depth = len(self.catalog.found[target.name][0].spans)
        if target.layer is None:
            return target.name, spans[:depth]
        return target.name, (*spans[: depth - 1], Span(target.layer, 1, False))

    # A site.

    def _visit(self, params: dict[str, Any], values: list[Any], place: Place) -> Array:
        """Edits, records and declares again the value of a site."""
        x, *others = values
        name, mapped, loops, layer = (params[key] for key in ("name", "mapped", "loops", "layer"))
        spans, index = site_spans(loops, layer, place.spans), site_index(loops, layer, place.frames)
        ctx = Context(
            name,
            index[-1] if index else None,
            params["axes"],
            index=self._stacked(name, index),
            stack=self.catalog.stack(name),
            layers=self.catalog.layers(name) or (),
            mapped=mapped_first([dims[0] for dims in mapped], x.shape)[: len(mapped)],
        )
        static = frozenset({spans[-1].start}) if spans and not spans[-1].real else frozenset()
        for edit in self.edits:
            if edit.name == name and edit.meets(spans) and (edit.layers is None or edit.layers & static):
                reads = {
                    address: self._read(place, self._request(target, spans), name, len(mapped))
                    for address, target in edit.reads.items()
                }
                x = apply(edit.intervention, x, others, ctx, params, reads)
        front = tuple(dims[0] for dims in mapped)
        records = {
            self._record(Record(i, name, spans, front)): want.reducer
            for i, want in enumerate(self.wants)
            if want.target.name == name and (want.target.layer is None or want.target.layer in static)
        }
        for key in records.keys() & place.deltas.keys():
            x = x + from_front(place.deltas[key], front)
        if loops is not None or place.cut:
            params = params | {"loops": spans if layer is None else spans[:-1]}
        if not place.silent:
            x = site_p.bind(x, *others, **params)
        for key, reducer in records.items():
            place.scope.values[key] = _reduced(reducer, to_front(x, front), ctx, len(front))
        if name in self.read_names:
            place.scope.values[self._record(Record(None, name, spans, front))] = x
        return x

    def _record(self, record: Record) -> str:
        self.records[record.key] = record
        return record.key

    def _read(self, place: Place, request: Request, name: str, n_mapped: int) -> tuple[Array, tuple[int | None, ...]]:
        """A value met earlier, and its mapped axes."""
        key = Record(None, *request, mapped=()).key
        value = place.scope.find(key)
        if value is None:
            where = f" of layer {request[1][-1].start}" if request[1] and not request[1][-1].real else ""
            raise ValueError(
                f"the edit of site {name!r} reads {request[0]!r}{where}, which is not met before it: "
                "via reads sites met earlier, in this layer or an earlier one"
            )
        mapped = self.records[key].mapped
        if mapped and len(mapped) != n_mapped:
            raise ValueError(
                f"the edit of site {name!r} reads {request[0]!r}, which stands under other vmaps: "
                "put intervene inside the vmap"
            )
        return value, mapped or (None,) * n_mapped

    def _stacked(self, name: str, index: tuple[int | Array, ...]) -> tuple[int | Array, ...]:
        """The place of a visit in a captured stack, where layers that a Python loop skips take no room."""
        if not index or not isinstance(index[-1], int):
            return index
        return (*index[:-1], (self.catalog.layers(name) or ()).index(index[-1]))


def _reduced(reducer: Intervention | None, value: Array, ctx: Context, n_mapped: int) -> Any:
    if reducer is None:
        return value

    def one(value: Array) -> Any:
        reduced = jax.tree.map(jnp.asarray, call(reducer, value, ctx))
        if not jax.tree.leaves(reduced):
            raise ValueError(f"the reducer of site {ctx.name!r} returned no array")
        return reduced

    for _ in range(n_mapped):
        one = jax.vmap(one)
    return one(value)
