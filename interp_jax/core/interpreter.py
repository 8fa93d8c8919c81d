"""Evaluates a jaxpr again, with its sites read and edited on the way.

Every equation without a site of interest inside is bound as it stands; one with such a site goes to its rule: the
site itself here, control flow in `control_flow`. A value read at a site is a *record*. Records leave an inner function
beside its outputs, so that they pass through jit, remat, cond, scan and shard_map like any other value.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import DropVar, Literal
import jax.numpy as jnp

from interp_jax.core.addresses import Target
from interp_jax.core.catalog import Catalog, mapped_first
from interp_jax.core.context import Context
from interp_jax.core.detail import detail_p
from interp_jax.core.edits import Intervention, apply, from_front, reduced, to_front
from interp_jax.core.jaxprs import closed, context, rebind
from interp_jax.core.log import Log
from interp_jax.core.paths import Path, Piece, meets, site_path
from interp_jax.core.plan import Edit, Place, Record, Request, Scope, Visit, Want, covers, site_index
from interp_jax.core.site import site_p
from interp_jax.core.walking import Found, named_params, walk_equation

Array = jax.Array


class Interpreter:
    """One evaluation of one jaxpr.

    Attributes:
      rules: how to enter each primitive of control flow, by its name (see `control_flow`).
      log: what is told of the evaluation, for `explain`.
      records: what the keys of captured values stand for: those of `run`, and of an earlier run whose keys the
        deltas have.
    """

    def __init__(
        self,
        catalog: Catalog,
        rules: "Mapping[str, Rule]",
        log: Log,
        wants: Sequence[Want] = (),
        edits: Sequence[Edit] = (),
        records: dict[str, Record] | None = None,
    ):
        self.catalog = catalog
        self.rules = rules
        self.log = log
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
            if self.records[key].want is not None or (self.records[key].name, self.records[key].path) in exports
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
        return self.rules[eqn.primitive.name](self, eqn, values, place, mask, pending)

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
                self.log.skips(eqn, place.path)
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
            found = [f for f in self.inside(eqn, place) if not (f.again and (f.name, f.path) in seen)]
            seen.update((f.name, f.path) for f in found)
            pairs.append((eqn, found))
        return pairs

    # What is of interest where.

    def inside(self, eqn: Any, place: Place) -> list[Found]:
        """The sites in an equation that are captured, edited or read; in a scan that was cut, every one."""
        found = walk_equation(eqn, place.path)
        return [f for f in found if self.active(f) or (place.cut and not f.copy)]

    def wanted(self, found: Found) -> bool:
        """Whether a site is captured."""
        return not found.copy and any(
            want.target.name == found.name
            and meets(found.path, None if want.target.layer is None else frozenset({want.target.layer}))
            for want in self.wants
        )

    def active(self, found: Found) -> bool:
        """Whether a site is captured, edited or read."""
        if found.copy:
            return False
        return (
            self.wanted(found)
            or found.name in self.read_names
            or any(edit.name == found.name and edit.meets(found.path) for edit in self.edits)
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
            self._request(target, found.path)
            for edit in self.edits
            if edit.name == found.name and edit.meets(found.path)
            for target in edit.reads.values()
        }

    def _request(self, target: Target, path: Path) -> Request:
        """Which visit of a site is read from a visit at `path`: that of the same layer, or of the one it names."""
        depth = len(self.catalog.found[target.name][0].path)
        if target.layer is None:
            return target.name, path[:depth]
        return target.name, (*path[: depth - 1], Piece(target.layer, 1, False))

    # The visit of a site.

    def _visit(self, params: dict[str, Any], values: list[Any], place: Place) -> Array:
        """What happens at a site, the crux of every transform: its value is edited, kept, and declared again.

        The site stands in the jaxpr as an equation that gives its value back. In its place this function computes the
        edited value and binds a new site equation of the same name, so that a transform outside finds the site, and in
        it the edited value (law 8). What a visit is asked for depends on where it stands alone: its path says which
        iterations of the loops around it these are, and so which edits and wants are meant.

        Args:
          params: of the site equation.
          values: its operands: the value, then what else it tells an edit, such as offsets.
          place: where the interpreter stands.

        Returns:
          What the equations after it get in place of the value.
        """
        x, *others = values
        visit = self._stands(params, x, place)
        x = self._edited(visit, x, others, params, place)
        kept = self._wanted_of(visit)
        for key in kept.keys() & place.deltas.keys():  # zeros, with respect to which `grads` differentiates
            x = x + from_front(place.deltas[key], visit.mapped)
        if params["pieces"] is not None or place.cut:
            # The scan that is bound again has fewer iterations, and counts them from 0: the site notes which they are.
            params = params | {"pieces": visit.path if params["layer"] is None else visit.path[:-1]}
        if not place.silent:
            x = site_p.bind(x, *others, **params)
        for key, reducer in kept.items():
            place.scope.values[key] = reduced(reducer, to_front(x, visit.mapped), visit.ctx, len(visit.mapped))
        if visit.ctx.name in self.read_names:
            place.scope.values[self._record(Record(None, visit.ctx.name, visit.path, visit.mapped))] = x
        return x

    def _stands(self, params: dict[str, Any], x: Array, place: Place) -> Visit:
        """Where a visit stands: its path, what an edit is told of it, and the mapped axes of its value."""
        name, mapped, pieces, layer = (params[key] for key in ("name", "mapped", "pieces", "layer"))
        path, index = site_path(pieces, layer, place.path), site_index(pieces, layer, place.around)
        ctx = Context(
            name,
            index[-1] if index else None,
            params["axes"],
            index=self._stacked(name, index),
            stack=self.catalog.stack(name),
            layers=self.catalog.layers(name) or (),
            mapped=mapped_first([dims[0] for dims in mapped], x.shape)[: len(mapped)],
        )
        return Visit(ctx, path, tuple(dims[0] for dims in mapped))

    def _edited(self, visit: Visit, x: Array, others: list[Any], params: dict[str, Any], place: Place) -> Array:
        """The value after the edits that are meant for this visit, one after the other."""
        for edit in self.edits:
            if edit.name != visit.ctx.name or not edit.meets(visit.path):
                continue
            if edit.layers is None or edit.layers & visit.layer:
                reads = {
                    address: self._read(place, self._request(target, visit.path), edit.name, len(visit.mapped))
                    for address, target in edit.reads.items()
                }
                x = apply(edit.intervention, x, others, visit.ctx, params, reads)
                self.log.edits(edit.name, visit.path, edit.intervention.told)
        return x

    def _wanted_of(self, visit: Visit) -> dict[str, Intervention | None]:
        """The keys of the records that are wanted of a visit, with their reducers."""
        kept = {}
        for i, want in enumerate(self.wants):
            if want.target.name == visit.ctx.name and (want.target.layer is None or want.target.layer in visit.layer):
                kept[self._record(Record(i, visit.ctx.name, visit.path, visit.mapped))] = want.reducer
                self.log.keeps(visit.ctx.name, visit.path)
        return kept

    def _record(self, record: Record) -> str:
        self.records[record.key] = record
        return record.key

    def _read(self, place: Place, request: Request, name: str, n_mapped: int) -> tuple[Array, tuple[int | None, ...]]:
        """A value met earlier, and its mapped axes."""
        key = Record(None, *request, mapped=()).key
        self.log.reads(*request)
        value = place.scope.find(key)
        if value is None:
            where = f" of layer {request[1][-1].start}" if request[1] and not request[1][-1].scanned else ""
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


# (interpreter, equation, its operands, place, which outputs are needed, what later edits read) -> outputs
Rule = Callable[[Interpreter, Any, list[Any], Place, list[bool], frozenset[Request]], list[Any]]
