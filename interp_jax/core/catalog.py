"""The catalogue of a traced function: its sites by name, and what an address means."""

from collections.abc import Sequence
import difflib
import fnmatch
from typing import Any

from interp_jax.core.addresses import Target, numbered, split_address
from interp_jax.core.axes import Following, source
from interp_jax.core.info import SiteInfo
from interp_jax.core.paths import Path, layers_text, overlap
from interp_jax.core.selects import are_alternatives
from interp_jax.core.walking import Found, walk


class Catalog:
    """The sites of one traced function, by name."""

    def __init__(self, jaxpr: Any):
        self.jaxpr = jaxpr
        self.found: dict[str, list[Found]] = {}
        self.copies: dict[str, list[Found]] = {}
        for found in walk(jaxpr):
            before = self.found.get(found.name, [])
            if found.on_demand and any(
                not earlier.on_demand and overlap(found.path, earlier.path) for earlier in before
            ):
                continue  # a site of a detail that its fast computation has, too
            copy = found.copy or (found.again and any(overlap(found.path, earlier.path) for earlier in before))
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
            loops=tuple(piece.length if piece.scanned else 1 for piece in first.path[:-1]),
            scanned=bool(first.path) and first.path[-1].scanned,
            on_demand=all(found.on_demand for found in self.found[name]),
        )

    def sites(self) -> dict[str, SiteInfo]:
        return {name: self.info(name) for name in self.found}

    def layers(self, name: str) -> tuple[int, ...] | None:
        """The layers at which a site is declared: iterations of the innermost loop around it."""
        pieces = [found.path[-1] for found in self.found[name] if found.path]
        return tuple(sorted({i for piece in pieces for i in piece.iterations})) if pieces else None

    def on_demand(self, found: Found) -> bool:
        """Whether a site is declared by a detailed computation alone."""
        return any(known.on_demand and overlap(known.path, found.path) for known in self.found[found.name])

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
        each = zip(*(found.path for found in self.found[name]), strict=False)
        return tuple(len({i for piece in pieces for i in piece.iterations}) for pieces in each)

    def check_once(self, name: str) -> None:
        """Raises ValueError where a site is declared twice in one scope, other than in the branches of a cond."""
        if self.is_repeated(name) and not are_alternatives(self.jaxpr, name):
            raise ValueError(
                f"site {name!r} is declared twice in one scope: give each its own name, or layer= in a Python loop; of "
                "a function that calls a model several times, transform the single call"
            )

    def is_repeated(self, name: str) -> bool:
        seen: list[Path] = []
        for found in self.found[name]:
            if any(overlap(found.path, path) for path in seen):
                return True
            seen.append(found.path)
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
        has = "it stands in no loop over layers" if layers is None else f"its layers: {layers_text(layers)}"
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
