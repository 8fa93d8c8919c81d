"""Orbax checkpoints of named arrays with a JSON description beside them, in one folder.

The description holds every shape and dtype, so that loading needs nothing but the folder. A checkpoint is written
under another name in the same parent folder and then renamed: it is there whole or not at all, and one that it
replaces stays until then. https://orbax.readthedocs.io. Nothing in it is ever unpickled.
"""

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.io.folders import replacing

FORMAT = "interp_jax checkpoint 1"


def save(path: str | Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Writes named arrays and a JSON description to the folder `path`; a checkpoint already there is replaced.

    Args:
      path: the folder. Its parents are made.
      arrays: `{name: array}`, of any shapes.
      metadata: anything that JSON can hold.

    Raises:
      FileExistsError: `path` is there and is not a checkpoint of this library.
      OSError: the folder cannot be written.
      TypeError: JSON cannot hold the metadata.

    Example:
      >>> import jax.numpy as jnp, tempfile
      >>> from interp_jax.io import orbax
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     orbax.save(f"{folder}/a", {"w": jnp.ones(2)}, {"note": "two ones"})
      ...     arrays, metadata = orbax.load(f"{folder}/a")
      >>> arrays["w"].tolist(), metadata["note"]
      ([1.0, 1.0], 'two ones')
    """
    import orbax.checkpoint as ocp

    json.dumps(metadata)  # a TypeError is raised here, not in one of Orbax's threads
    path = Path(path).absolute()
    check_free(path)
    shapes = {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in arrays.items()}
    description = {"format": FORMAT, "arrays": shapes, "metadata": dict(metadata)}
    items = ocp.args.Composite(arrays=ocp.args.StandardSave(dict(arrays)), description=ocp.args.JsonSave(description))
    with replacing(path) as new, ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(new, args=items)


def check_free(path: str | Path) -> None:
    """Raises FileExistsError if `path` holds something that `save` would not replace."""
    if Path(path).exists() and not _is_checkpoint(Path(path)):
        raise FileExistsError(f"{path}: is there and is not a checkpoint of this library; choose another folder")


def load(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the metadata of a folder written by `save`. The arrays are on the first device.

    Args:
      path: the folder.

    Returns:
      `({name: array}, metadata)`, as they were given to `save`.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it is not a checkpoint of this library, or it is torn.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if not _is_checkpoint(path):
        raise ValueError(f"{path}: not a checkpoint of this library: it has no folder 'description'")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            wanted = ocp.args.Composite(description=ocp.args.JsonRestore())
            description = checkpointer.restore(path, args=wanted)["description"]
            shapes = {
                name: jax.ShapeDtypeStruct(tuple(a["shape"]), jnp.dtype(a["dtype"]), sharding=here)
                for name, a in description["arrays"].items()
            }
            wanted = ocp.args.Composite(arrays=ocp.args.StandardRestore(shapes))
            arrays = checkpointer.restore(path, args=wanted)["arrays"]
    except Exception as error:  # whatever Orbax, tensorstore and json raise on damaged bytes
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"{path}: torn or damaged checkpoint: {reason[0][:200]}") from error
    if description.get("format") != FORMAT:
        raise ValueError(f"{path}: checkpoint of format {description.get('format')!r}, this library reads {FORMAT!r}")
    return dict(arrays), description["metadata"]


def _is_checkpoint(path: Path) -> bool:
    return (path / "description").is_dir()
