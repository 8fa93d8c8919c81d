"""Saving a dictionary so that the folder alone says what it is: architecture, sizes, and what it was trained on.

The format is an Orbax checkpoint, see `interp_jax.io.orbax`, or a folder of SAELens's, see `dictionaries.sae_lens`.
A state of training is saved the same way, with Adam's moments and the step beside the dictionary's arrays.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
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
from interp_jax.dictionaries.state import TrainState
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
TRAINING = "training."  # how the names of a state's other arrays begin
READABLE = "what save writes (Orbax), SAELens's folders (cfg.json and sae_weights.safetensors)"


def save(path: str | Path, dictionary: Any, format: str = "orbax", **metadata: Any) -> None:
    """Writes a dictionary to a folder, whole or not at all; a checkpoint already there is replaced.

    Args:
      path: the folder.
      dictionary: one of this package's, or a `TrainState`, whose training goes on from `load_state`.
      format: `"orbax"`, or `"sae_lens"`.
      **metadata: what else to remember, such as `site=`, `model=`; anything that JSON can hold.

    Raises:
      ValueError: another format, or SAELens has no form of the dictionary or the state.
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
    state = dictionary if isinstance(dictionary, TrainState) else None
    dictionary = dictionary if state is None else state.dictionary
    if format == "sae_lens":
        if state is not None:
            raise ValueError("save: SAELens has no form of a TrainState; save its dictionary, or use format='orbax'")
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
    if state is not None:
        arrays |= {f"{TRAINING}{i:03}": leaf for i, leaf in enumerate(jax.tree.leaves(_rest(state)))}
    io.orbax.save(path, arrays, {"architecture": dictionary.architecture, "static": static, "about": metadata})


def load(path: str | Path) -> Any:
    """The dictionary in a folder; nothing else is needed, and the format is recognised.

    Args:
      path: a folder written by `save`, of a dictionary or of a state of training, or by SAELens.

    Returns:
      A dictionary of the architecture that was saved.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: the folder is not a dictionary, is torn, or holds an architecture that this version does not know.
    """
    return sae_lens.load(path) if io.sae_lens.is_folder(path) else _read(path)[0]


def load_state(path: str | Path) -> TrainState:
    """The state of training in a folder, to go on with: `train(state, harvest(..., start=int(state.step)))`.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: as `load`; the folder holds a dictionary without a state.

    Example:
      >>> import jax, tempfile
      >>> from interp_jax import dictionaries
      >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
      >>> x = jax.random.normal(jax.random.key(1), (64, 8))
      >>> state = dictionaries.TrainState.create(dictionary, n_steps=10)
      >>> half = dictionaries.train(state, dictionaries.shuffled(x, 16), until=5)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     dictionaries.save(f"{folder}/half", half)
      ...     again = dictionaries.load_state(f"{folder}/half")
      >>> int(dictionaries.train(again, dictionaries.shuffled(x, 16, start=5)).step)
      10
    """
    dictionary, rest = _read(path)
    if not rest:
        raise ValueError(f"{path}: holds a dictionary without a state of training; load it, and begin a new one")
    form = jax.tree.structure(_rest(TrainState.create(dictionary, 1)))
    return TrainState(dictionary, *jax.tree.unflatten(form, rest))


def _rest(state: TrainState) -> Any:
    """What a state has beside its dictionary."""
    return state.opt_state, state.steps_since_fired, state.step, state.hyperparameters


def _read(path: str | Path) -> tuple[Any, list[jax.Array]]:
    """The dictionary of a folder of ours, and the other arrays of a state of training, if it holds one."""
    try:
        arrays, metadata = io.orbax.load(path)
    except ValueError as error:
        raise ValueError(f"{error}; a dictionary is read from {READABLE}") from error
    architecture = metadata.get("architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"{path}: a dictionary of unknown architecture {architecture!r}; known: {known}")
    rest = [arrays.pop(name) for name in sorted(arrays) if name.startswith(TRAINING)]
    if "log_threshold" in arrays:  # before thresholds themselves were trained
        arrays["threshold"] = jnp.exp(arrays.pop("log_threshold"))
    fields = {field.name: field for field in dataclasses.fields(ARCHITECTURES[architecture])}
    found = set(arrays) | set(metadata["static"])
    wanted = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if not wanted <= found <= set(fields):
        raise ValueError(f"{path}: torn {architecture} dictionary: it has {', '.join(sorted(arrays))}")
    static = {
        name: tuple(v) if isinstance(v, list) else v for name, v in metadata["static"].items()
    }  # JSON has no tuples
    return ARCHITECTURES[architecture](**{name: jnp.asarray(a) for name, a in arrays.items()}, **static), rest


def load_metadata(path: str | Path) -> dict[str, Any]:
    """What `save` was asked to remember: site, model, normalisation. Raises as `load` does."""
    if io.sae_lens.is_folder(path):
        return sae_lens.load_metadata(path)
    return io.orbax.load(path)[1]["about"]
