"""Steering vectors in folders and files: our own, control vectors in GGUF, and vllm-lens's JSON.

Our own is a folder of `vectors.safetensors` and `card.json`, which says the model, the address, the layers, the width
and how the vector was made. The other two hold what is added after a layer, `blocks.resid_post`, and nothing of how it
was made; vllm-lens's does not name the model either.
"""

from dataclasses import replace
import json
from pathlib import Path
from typing import Any

import numpy as np

from interp_jax import io
from interp_jax.io.folders import replacing
from interp_jax.steering.vector import SteeringVector

FORMAT = "interp_jax steering vector 1"
CARD, ARRAYS = "card.json", "vectors.safetensors"
FORMATS = ("safetensors", "gguf", "vllm_lens")
AFTER = "blocks.resid_post"  # what other tools add to


def save(path: str | Path, vector: SteeringVector, format: str = "safetensors") -> None:
    """Writes a steering vector, whole or not at all; one of the same format already there is replaced.

    Args:
      path: the folder, or for "gguf" and "vllm_lens" the file.
      vector: the steering vector.
      format: "safetensors", a folder of ours; "gguf", a control vector, as repeng and llama.cpp read it; or
        "vllm_lens", JSON. llama.cpp refuses layer 0: leave it out by `vector.at_layers(...)`.

    Raises:
      FileExistsError: `path` is there and is something else.
      ValueError: an unknown format, or a vector that the format cannot hold: of another site than blocks.resid_post, or
        without layers.

    Example:
      >>> import jax.numpy as jnp, tempfile
      >>> from interp_jax import steering
      >>> vector = steering.SteeringVector.create(jnp.ones((2, 8)), "blocks.resid_post", model="microworld")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     steering.save(f"{folder}/mine", vector)
      ...     again = steering.load(f"{folder}/mine", model="microworld")
      >>> again.vectors.shape, again.site, again.layers
      ((2, 8), 'blocks.resid_post', (0, 1))
    """
    if format not in FORMATS:
        raise ValueError(f"steering.save: format={format!r} is none of {', '.join(FORMATS)}")
    if format == "safetensors":
        return _write(Path(path).absolute(), vector)
    if vector.site != AFTER or vector.layers is None:
        raise ValueError(
            f"steering.save: {format} holds a vector for each layer of {AFTER!r}, not one of {vector.site!r} with "
            f"layers {vector.layers}: save it as safetensors"
        )
    arrays = np.asarray(vector.vectors)
    if format == "gguf":
        io.control_vectors.write(path, dict(zip(vector.layers, arrays, strict=True)), vector.model)
    else:
        io.vllm_lens.write(path, arrays, vector.layers)


def load(path: str | Path, *, model: str, anyway: bool = False) -> SteeringVector:
    """Reads a steering vector of any of the formats of `save`; which one it is is seen.

    Args:
      path: the folder or file.
      model: name of the model that it is to steer.
      anyway: take a vector that was made of another model, or whose file says no more than the kind of model ("llama"),
        as repeng's do. It keeps the name in the file.

    Returns:
      The steering vector. One whose file names no model is taken to be of `model`.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: it is no steering vector, or damaged; of another model, and `anyway` is False; a vector of vllm-lens
        for some positions only, or at the norm of the activations.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such steering vector")
    if path.is_dir():
        vector = _read(path)
    elif io.gguf_files.is_file(path):
        directions, hint = io.control_vectors.read(path)
        stack = np.stack(list(directions.values()))
        vector = SteeringVector.create(stack, AFTER, layers=tuple(directions), how="a control vector", model=hint)
    else:
        arrays, layers, options = io.vllm_lens.read(path)
        if arrays.ndim != 2 or options["norm_match"] or options["position_indices"]:
            raise ValueError(
                f"{path}: is for some positions, or at the norm of the activations, which an edit says, no vector: "
                "take it by io.vllm_lens.read, then vector.edit(scale, form='match_norm', position=...)"
            )
        vector = SteeringVector.create(options["scale"] * arrays, AFTER, layers=layers, how="vllm-lens")
    if not vector.model:
        return replace(vector, model=model)
    if vector.model != model and not anyway:
        raise ValueError(
            f"{path}: was made of {vector.model!r}, not of {model!r}; to steer with it yet, say anyway=True"
        )
    return vector


def _write(path: Path, vector: SteeringVector) -> None:
    from safetensors.flax import save_file

    if path.exists() and not (path / CARD).is_file():
        raise FileExistsError(f"{path}: is there and is no steering vector of this library; choose another folder")
    layers = None if vector.layers is None else list(vector.layers)
    card = {"format": FORMAT, "model": vector.model, "site": vector.site, "layers": layers, "how": vector.how}
    with replacing(path) as new:
        new.mkdir()
        save_file({"vectors": vector.vectors}, str(new / ARRAYS))
        text = json.dumps({**card, "d_model": vector.vectors.shape[-1]}, indent=2)
        (new / CARD).write_text(text, encoding="utf-8")


def _read(path: Path) -> SteeringVector:
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    if not (path / CARD).is_file():
        raise ValueError(f"{path}: no steering vector: it has no {CARD}")
    try:
        card: dict[str, Any] = json.loads((path / CARD).read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']!r}, this library reads {FORMAT!r}")
        vectors = load_file(str(path / ARRAYS))["vectors"]
        if vectors.shape[-1] != card["d_model"]:
            raise ValueError(f"the card says d_model {card['d_model']}, the vectors are {list(vectors.shape)}")
        return SteeringVector.create(vectors, card["site"], layers=card["layers"], how=card["how"], model=card["model"])
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"{path}: damaged steering vector: {error}") from None
