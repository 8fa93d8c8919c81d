"""Saving a dictionary so that the folder alone says what it is: architecture, sizes, and what it was trained on.

The format is an Orbax checkpoint, see `interp_jax.io.orbax`, or a folder of SAELens's, see `dictionaries.sae_lens`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from interp_jax import io
from interp_jax.dictionaries import sae_lens
from interp_jax.dictionaries.archetypal import Archetypal
from interp_jax.dictionaries.baseline import NeuronBasis, RandomDirections
from interp_jax.dictionaries.batchtopk import BatchTopK
from interp_jax.dictionaries.clt import CrossLayerTranscoder
from interp_jax.dictionaries.crosscoder import Crosscoder
from interp_jax.dictionaries.gated import Gated
from interp_jax.dictionaries.ica import ICA
from interp_jax.dictionaries.jumprelu import JumpReLU
from interp_jax.dictionaries.matryoshka import Matryoshka
from interp_jax.dictionaries.nmf import NMF
from interp_jax.dictionaries.panneal import PAnneal
from interp_jax.dictionaries.pca import PCA
from interp_jax.dictionaries.relu import ReLU
from interp_jax.dictionaries.tied import Tied
from interp_jax.dictionaries.topk import TopK
from interp_jax.dictionaries.transcoder import SkipTranscoder, Transcoder

KINDS = (
    TopK,
    Archetypal,
    BatchTopK,
    CrossLayerTranscoder,
    Crosscoder,
    Gated,
    ICA,
    JumpReLU,
    Matryoshka,
    NMF,
    NeuronBasis,
    PAnneal,
    PCA,
    RandomDirections,
    ReLU,
    SkipTranscoder,
    Tied,
    Transcoder,
)
ARCHITECTURES: dict[str, Any] = {cls.architecture: cls for cls in KINDS}


def save(path: str | Path, dictionary: Any, format: str = "orbax", **metadata: Any) -> None:
    """Writes a dictionary to a folder, whole or not at all; a checkpoint already there is replaced.

    Args:
      path: the folder.
      dictionary: one of this package's.
      format: `"orbax"`, or `"sae_lens"`.
      **metadata: what else to remember, such as `site=`, `model=`; anything that JSON can hold.

    Raises:
      ValueError: another format, or SAELens has no form of the dictionary.
      FileExistsError: `path` is there and is something else.
      OSError: the folder cannot be written.

    Example:
      >>> import jax, tempfile
      >>> from interp_jax import dictionaries
      >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     dictionaries.save(f"{folder}/mine", dictionary, site="blocks.2.resid_post")
      ...     again = dictionaries.load(f"{folder}/mine")
      ...     print(dictionaries.load_metadata(f"{folder}/mine"))
      {'site': 'blocks.2.resid_post'}
      >>> again.k, bool((again.W_dec == dictionary.W_dec).all())
      (4, True)
    """
    if format == "sae_lens":
        return sae_lens.save(path, dictionary, metadata)
    if format != "orbax":
        raise ValueError(f"save: unknown format {format!r}; known: 'orbax', 'sae_lens'")
    arrays, static = {}, {}
    for field in dataclasses.fields(dictionary):
        value = getattr(dictionary, field.name)
        if field.metadata.get("static"):
            static[field.name] = value
        elif value is not None:
            arrays[field.name] = value
    io.orbax.save(path, arrays, {"architecture": dictionary.architecture, "static": static, "about": metadata})


def load(path: str | Path) -> Any:
    """The dictionary in a folder; nothing else is needed, and the format is recognised.

    Args:
      path: a folder written by `save`, or by SAELens.

    Returns:
      A dictionary of the architecture that was saved.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: the folder is not a dictionary, is torn, or holds an architecture that this version does not know.
    """
    if io.sae_lens.is_folder(path):
        return sae_lens.load(path)
    arrays, metadata = io.orbax.load(path)
    architecture = metadata.get("architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"{path}: a dictionary of unknown architecture {architecture!r}; known: {known}")
    cls = ARCHITECTURES[architecture]
    wanted = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    if wanted != set(arrays) | set(metadata["static"]):
        raise ValueError(f"{path}: torn {architecture} dictionary: it has {', '.join(sorted(arrays))}")
    static = {
        name: tuple(v) if isinstance(v, list) else v for name, v in metadata["static"].items()
    }  # JSON has no tuples
    return cls(**{name: jnp.asarray(a) for name, a in arrays.items()}, **static)


def load_metadata(path: str | Path) -> dict[str, Any]:
    """What `save` was asked to remember: site, model, normalisation. Raises as `load` does."""
    if io.sae_lens.is_folder(path):
        return sae_lens.load_metadata(path)
    return io.orbax.load(path)[1]["about"]
