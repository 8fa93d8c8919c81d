"""A pass over a corpus that has not come to its end, as a file from which it goes on."""

from collections.abc import Sequence
import hashlib
from pathlib import Path
from typing import Any
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax.explain.records.files import examples, flat
from interp_jax.explain.records.held import Held
from interp_jax.explain.records.tallies import Tally
from interp_jax.io.files import replacing

FILE = "unfinished.safetensors"
LOOKED_AT = 4096  # numbers of each array that tell it from another

Parts = Sequence[tuple[Tally, Held]]


class Unfinished:
    """A pass that saves what it has, and goes on from there.

    Args:
      folder: where to; None saves nothing.
      options: what the pass is asked for, of which `repr` tells all.
      arrays: what it reads; a few thousand numbers of each array tell it from another.

    Raises:
      ValueError: the folder has a pass over something else.
    """

    def __init__(self, folder: str | Path | None, options: Any, arrays: Any):
        self._path = None if folder is None else Path(folder) / FILE
        self._mark = "" if folder is None else _fingerprint(options, arrays)

    def load(self, nothing: Parts) -> tuple[int, Parts]:
        """The next row to read, and what is known of each site so far: `nothing` where no pass had begun."""
        from safetensors import SafetensorError, safe_open

        if self._path is None or not self._path.exists():
            return 0, nothing
        try:
            with safe_open(self._path, "np") as file:
                about = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError:
            warnings.warn(f"{self._path}: is broken; the pass begins anew", stacklevel=3)
            return 0, nothing
        if about.get("mark") != self._mark:
            raise ValueError(
                f"{self._path}: of a pass over another model, text or size; remove it, or give another folder"
            )
        parts = []
        for number in range(len(nothing)):
            mine = {name.split("/", 1)[1]: x for name, x in arrays.items() if name.startswith(f"{number}/")}
            tally = {name[6:]: x for name, x in mine.items() if name.startswith("tally.") and name.count(".") == 1}
            tally |= {name: examples(mine, f"tally.{name}") for name in ("top", "sampled")}
            held = {name[5:]: x for name, x in mine.items() if name.startswith("held.")}
            parts.append((Tally(**tally), Held(**held)))
        return int(about["next"]), parts

    def save(self, next_row: int, parts: Parts) -> None:
        """Writes what is known, whole or not at all."""
        from safetensors.numpy import save_file

        if self._path is None:
            return
        arrays = {}
        for number, (tally, held) in enumerate(parts):
            arrays |= {f"{number}/{name}": x for name, x in (flat("tally", tally) | flat("held", held)).items()}
        with replacing(self._path) as new:
            save_file(arrays, new, {"mark": self._mark, "next": str(next_row)})

    def remove(self) -> None:
        """Once the pass is through."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _fingerprint(options: Any, arrays: Any) -> str:
    digest = hashlib.blake2b(repr(options).encode())
    leaves, structure = jax.tree.flatten(arrays)
    digest.update(str(structure).encode())
    for leaf in leaves:
        leaf = jnp.asarray(leaf)
        digest.update(f"{leaf.shape} {leaf.dtype}".encode())
        some = leaf.reshape(-1)
        digest.update(np.asarray(some[:: max(1, some.size // LOOKED_AT)]).tobytes())
    return digest.hexdigest()
