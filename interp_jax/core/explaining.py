"""What a transformed function does, said before it is run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import itertools
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
import numpy as np

from interp_jax.core.log import Log, Scan, listening
from interp_jax.core.paths import Path, layers_text

_SHOWN = 8  # names of sites in a line
_calls = itertools.count()


@dataclass(frozen=True)
class Step:
    """What one transform, or one method, does in a call.

    Attributes:
      name: "capture", "intervene", "grads", "freeze", or the name of a method's function.
      matched: address -> the names of the sites that it stands for.
      captured: site -> the layers that are kept, None where it stands in no loop.
      edited: (site, edit) -> the layers at which it is applied, None where the site stands in no loop.
      read: sites whose values an edit reads elsewhere, by `via`.
      scans: how each scan with such a site inside was evaluated.
      detailed: the sites for which a detailed computation is taken in the place of a fast one.
      left_out: the sites that are not reached, since nothing needs them.
      n_left_out: how many equations are left out, those of whole layers counted as one.
      inner: the transforms that are called inside.
    """

    name: str
    matched: dict[str, tuple[str, ...]]
    captured: dict[str, tuple[int, ...] | None]
    edited: dict[tuple[str, str], tuple[int, ...] | None]
    read: tuple[str, ...]
    scans: tuple[Scan, ...]
    detailed: tuple[str, ...]
    left_out: tuple[str, ...]
    n_left_out: int
    inner: tuple["Step", ...]

    def lines(self) -> Iterator[str]:
        """What is said of it, one line for each thing."""
        yield self.name
        for address, names in self.matched.items():
            yield f"  {address!r} stands for {_few(names)}"
        for name, layers in self.captured.items():
            yield f"  captures {_at(name, layers)}"
        for (name, edit), layers in self.edited.items():
            yield f"  edits {_at(name, layers)}: {edit}"
        if self.read:
            yield f"  reads {_few(self.read)}"
        for scan in self.scans:
            yield f"  scan: {scan}"
        if self.detailed:
            yield f"  takes the detailed computation of {_few(self.detailed)}"
        if self.n_left_out:
            sites = f", with the sites {_few(self.left_out)}" if self.left_out else ""
            yield f"  leaves out {self.n_left_out} equation{'s' * (self.n_left_out > 1)} that nothing needs{sites}"
        for step in self.inner:
            yield from (f"  {line}" for line in step.lines())


@dataclass(frozen=True)
class Explanation:
    """What `explain` returns, printed as text.

    Transforms that do the same at the same level are told once: jax traces the body of a loop more than once, and which
    of them are two calls cannot be seen.

    Attributes:
      steps: the transforms that a call goes through, the outermost first; empty of a function that has none.
    """

    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        if not self.steps:
            return (
                "nothing is transformed here: give explain what capture, intervene, grads, freeze or a method returns, "
                "or a function that calls one"
            )
        return "\n".join(line for step in self.steps for line in step.lines())


def explain(g: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """What the transforms in `g` do when it is called with these arguments: it is traced anew, and nothing is run.

    Args:
      g: what `capture`, `intervene`, `grads`, `freeze` or a method returns, in any composition and under `jit`, `vmap`
        or `grad`; or a function that calls such ones.
      *args: its arguments: arrays of any shape, or `jax.ShapeDtypeStruct`s.
      **kwargs: its keyword arguments.

    Returns:
      An `Explanation`, which prints which sites each address stands for, what is captured and edited where, how each
      scan is cut into pieces, and what is left out since nothing needs it.

    Raises:
      What `g` raises when it is traced.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import at, zero
      >>> def f(x):
      ...     return jax.lax.scan(lambda x, _: (ij.site(x + 1, "h", axes=("d_model",)), None), x, length=6)[0]
      >>> ij.explain(ij.intervene(f, {"h": at(zero(), layer=2)}), jnp.ones(3))
      intervene
        'h' stands for h
        edits h, layer 2: at(edit=zero(), layer=2)
        scan: 6 iterations, in pieces: scan 0-1, by itself 2, scan 3-5
      >>> ij.explain(ij.capture(f, "h", output=False), jnp.ones(3)).steps[0].captured
      {'h': (0, 1, 2, 3, 4, 5)}
    """
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)]

    def call(*given: Any) -> Any:
        filled = list(leaves)
        for i, array in zip(arrays, given, strict=True):
            filled[i] = array
        args, kwargs = jax.tree.unflatten(structure, filled)
        return jax.tree.leaves(g(*args, **kwargs))

    # What jax has traced before it does not trace again: under metadata of its own it does.
    with listening("") as log, set_xla_metadata(explained=str(next(_calls))):
        jax.eval_shape(call, *(leaves[i] for i in arrays))
    return Explanation(tuple(map(_step, log.inner)))


def _step(log: Log) -> Step:
    edits = dict.fromkeys((name, edit) for name, _, edit in log.edited)
    return Step(
        name=log.name.strip("_"),
        matched={address: tuple(t.name for t in targets) for address, targets in log.asked.items()},
        captured={name: _layers(path for other, path in log.captured if other == name) for name, _ in log.captured},
        edited={key: _layers(path for name, path, edit in log.edited if (name, edit) == key) for key in edits},
        read=tuple(dict.fromkeys(name for name, _ in log.read)),
        scans=tuple(log.cuts.values()),
        detailed=tuple(log.details),
        left_out=log.left_out,
        n_left_out=log.n_left_out,
        inner=tuple(map(_step, log.inner)),
    )


def _layers(paths: Iterator[Path]) -> tuple[int, ...] | None:
    """The layers of some visits, None where they stand in no loop."""
    found = {i for path in paths for piece in path[-1:] for i in piece.iterations}
    return tuple(sorted(found)) or None


def _at(name: str, layers: tuple[int, ...] | None) -> str:
    return name if layers is None else f"{name}, layer{'s' * (len(layers) > 1)} {layers_text(layers)}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
