"""Lenses in folders: arrays in Orbax checkpoints, with what else a lens is made with beside them."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from interp_jax import io
from interp_jax.lens.jacobian import JacobianLens
from interp_jax.lens.tuned import TunedLens

_KINDS: dict[str, Any] = {"tuned": TunedLens, "jacobian": JacobianLens}
_OPTIONS = ("eps", "centred", "capped")


def save(path: str | Path, lens: TunedLens | JacobianLens, **metadata: Any) -> None:
    """Writes a lens to a folder, whole or not at all.

    Args:
      path: the folder; a checkpoint already there is replaced.
      lens: a tuned or a Jacobian lens. One that is half fitted goes on from there when it is loaded.
      **metadata: what else to remember, such as `site=` and `model=`.

    Raises:
      FileExistsError: `path` is there and is not a checkpoint of this library.
      TypeError: JSON cannot hold the metadata.

    Example:
      >>> import tempfile
      >>> from interp_jax import lens
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     lens.save(f"{folder}/mine", lens.TunedLens.create(2, 3), site="blocks.resid_pre")
      ...     lens.load(f"{folder}/mine").W.shape
      (3, 2, 2)
    """
    (kind,) = [name for name, cls in _KINDS.items() if isinstance(lens, cls)]
    arrays = {name: getattr(lens, name) for name in _arrays(type(lens))}
    options = {name: getattr(lens, name) for name in _OPTIONS}
    io.orbax.save(path, arrays, {"lens": kind, **options, "about": metadata})


def load(path: str | Path) -> Any:
    """The lens in a folder that `save` wrote: a `TunedLens` or a `JacobianLens`, whichever was saved.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it holds something else, or is torn.
    """
    arrays, metadata = io.orbax.load(path)
    cls = _KINDS.get(metadata.get("lens", ""))
    if cls is None or set(arrays) != set(_arrays(cls)):
        raise ValueError(f"{path}: not a lens; it holds {', '.join(sorted(arrays))}")
    return cls(**arrays, **{name: metadata[name] for name in _OPTIONS if name in metadata})


def _arrays(cls: Any) -> list[str]:
    return [field.name for field in fields(cls) if field.name not in _OPTIONS]
