"""Saving a dictionary so that the folder alone says what it is: architecture, sizes, and what it was trained on.

The format is an Orbax checkpoint, see `interp_jax.io.orbax`, or a folder of SAELens's, see `formats`.
A state of training is saved the same way, with the optimizer's moments and the step beside the dictionary's arrays.
"""

from collections.abc import Callable, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from interp_jax import io
from interp_jax.dictionaries.formats import sae_lens
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.past import is_static
from interp_jax.dictionaries.training.state import ADAM, TrainState

TRAINING = "training."  # how the names of a state's other arrays begin
READABLE = "what save writes (Orbax), SAELens's folders (cfg.json and sae_weights.safetensors)"


def save(path: str | Path, dictionary: Dictionary | TrainState, format: str = "orbax", **metadata: Any) -> None:
    """Writes a dictionary to a folder, whole or not at all; a checkpoint already there is replaced.

    Args:
      path: the folder.
      dictionary: of any kind, your own too, or a `TrainState`, whose training goes on from `load_state`.
      format: `"orbax"`, or `"sae_lens"`.
      **metadata: what else to remember, such as `site=`, `model=`; anything that JSON can hold.

    Raises:
      ValueError: another format, SAELens has no form of the dictionary or the state, or a field is not one array.
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
    dictionary = dictionary.dictionary if isinstance(dictionary, TrainState) else dictionary
    if format == "sae_lens":
        if state is not None:
            raise ValueError("save: SAELens has no form of a TrainState; save its dictionary, or use format='orbax'")
        return sae_lens.save(path, dictionary, metadata)
    if format != "orbax":
        raise ValueError(f"save: unknown format {format!r}; known: 'orbax', 'sae_lens'")
    fields = {field.name: getattr(dictionary, field.name) for field in dataclasses.fields(dictionary)}
    static = {field.name: fields.pop(field.name) for field in dataclasses.fields(dictionary) if is_static(field)}
    arrays = {name: value for name, value in fields.items() if value is not None}
    for name, value in arrays.items():
        if not jax.tree_util.all_leaves((value,)):
            raise ValueError(
                f"save: {name} of a {type(dictionary).__name__} is a {type(value).__name__}; make it arrays"
            )
    kind: dict[str, Any] = {"architecture": dictionary.architecture, "class": _class_name(type(dictionary))}
    if state is not None:
        arrays |= _training(state)
        kind["given"] = [name for name, value in _functions(state).items() if value is not None]
    io.orbax.save(path, arrays, {**kind, "static": static, "about": metadata})


def load(path: str | Path, *, kinds: Sequence[type[Dictionary]] = ()) -> Dictionary:
    """The dictionary in a folder; the format is recognised, and the kind, which may be one of your own.

    Args:
      path: a folder written by `save`, of a dictionary or of a state of training, or by SAELens.
      kinds: classes to look for the kind among; by default every subclass of `dictionaries.Dictionary` that this
        process has met, so that a kind of your own is found once its module is imported.

    Returns:
      A dictionary of the architecture that was saved.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: the folder is not a dictionary, is torn, or holds an architecture that is not known here, or that
        several classes have.
    """
    return sae_lens.load(path) if io.sae_lens.is_folder(path) else _read(path, kinds)[0]


def load_state(
    path: str | Path,
    *,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: Callable[[Any], Any] | None = None,
    sparsity_coefficient: Callable[[Any], Any] | None = None,
    kinds: Sequence[type[Dictionary]] = (),
) -> TrainState:
    """The state of training in a folder, to go on with: `train(state, harvest(..., start=int(state.step)))`.

    Args:
      path: a folder written by `save`, of a state of training.
      optimizer, learning_rate, sparsity_coefficient: the functions that `TrainState.create` was given, the same again,
        since no file holds a function; left out where it was given none.
      kinds: as `load`'s.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: as `load`; the folder holds a dictionary without a state, or the state of another optimizer.

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
    dictionary, training, metadata = _read(path, kinds)
    if not training:
        raise ValueError(f"{path}: holds a dictionary without a state of training; load it, and begin a new one")
    functions = {
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "sparsity_coefficient": sparsity_coefficient,
    }
    given = [name for name, function in functions.items() if function is not None]
    if given != metadata.get("given", []):
        wanted = ", ".join(metadata.get("given", [])) or "none"
        raise ValueError(
            f"{path}: functions that its state was created with: {wanted}; that load_state was given: "
            f"{', '.join(given) or 'none'}; give it the same again, since no file holds them"
        )
    form = TrainState.create(dictionary, 1, **functions)
    if set(training) != set(_training(form)):
        found = ", ".join(sorted(training))
        raise ValueError(f"{path}: the state of another optimizer or version; its arrays: {found}")
    return _with_training(form, dictionary, training)


def _functions(state: TrainState) -> dict[str, Any]:
    """What a state was given as functions, which no file holds; None where it was given none."""
    numbers = state.hyperparameters
    schedules = {"learning_rate": numbers.learning_rate, "sparsity_coefficient": numbers.sparsity_coefficient}
    own = {name: value if isinstance(value, jax.tree_util.Partial) else None for name, value in schedules.items()}
    return {"optimizer": None if state.optimizer is ADAM else state.optimizer, **own}


def _training(state: TrainState) -> dict[str, jax.Array]:
    """The arrays that a state has beside its dictionary, by their names in a checkpoint."""
    named = jax.tree_util.tree_leaves_with_path(_beside(state))
    return {f"{TRAINING}{jax.tree_util.keystr(path, simple=True, separator='.')}": leaf for path, leaf in named}


def _beside(state: TrainState) -> dict[str, Any]:
    """What a state has beside its dictionary, without functions."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if not is_static(field)}
    return {name: value for name, value in fields.items() if name != "dictionary"}


def _with_training(form: TrainState, dictionary: Dictionary, training: dict[str, jax.Array]) -> TrainState:
    """A state of the form of another, of these arrays."""
    leaves = [training[name] for name in _training(form)]
    beside = jax.tree.unflatten(jax.tree.structure(_beside(form)), leaves)
    return dataclasses.replace(form, dictionary=dictionary, **beside)


def _read(
    path: str | Path, kinds: Sequence[type[Dictionary]]
) -> tuple[Dictionary, dict[str, jax.Array], dict[str, Any]]:
    """The dictionary of a folder of ours; the other arrays of a state of training, if it holds one; its metadata."""
    try:
        arrays, metadata = io.orbax.load(path)
    except ValueError as error:
        raise ValueError(f"{error}; a dictionary is read from {READABLE}") from error
    kind = _kind(path, metadata, kinds or known_kinds())
    training = {name: jnp.asarray(arrays.pop(name)) for name in list(arrays) if name.startswith(TRAINING)}
    if "log_threshold" in arrays:  # before thresholds themselves were trained
        arrays["threshold"] = jnp.exp(arrays.pop("log_threshold"))
    fields = dataclasses.fields(kind)
    found = set(arrays) | set(metadata["static"])
    wanted = {field.name for field in fields if field.default is dataclasses.MISSING}
    if not wanted <= found <= {field.name for field in fields}:
        raise ValueError(f"{path}: torn {kind.architecture} dictionary: it has {', '.join(sorted(arrays))}")
    given: dict[str, Any] = {name: jnp.asarray(array) for name, array in arrays.items()}
    given |= {name: tuple(v) if isinstance(v, list) else v for name, v in metadata["static"].items()}  # of JSON
    return kind(**given), training, metadata


def _kind(path: str | Path, metadata: dict[str, Any], kinds: Sequence[type[Dictionary]]) -> type[Dictionary]:
    """The class of the dictionary in a checkpoint."""
    architecture = metadata.get("architecture")
    found = {_class_name(kind): kind for kind in kinds if kind.architecture == architecture}  # the last of a name
    if len(found) > 1 and metadata.get("class") in found:
        return found[metadata["class"]]
    if len(found) > 1:
        raise ValueError(f"{path}: {', '.join(found)} all have the architecture {architecture!r}; give kinds=[...]")
    if not found:
        known, named = ", ".join(sorted({kind.architecture for kind in kinds})), metadata.get("class")
        remedy = f"import its class {named}, or give kinds=[...]; " if named else ""
        raise ValueError(f"{path}: a dictionary of unknown architecture {architecture!r}; {remedy}known: {known}")
    return next(iter(found.values()))


def known_kinds() -> tuple[type[Dictionary], ...]:
    """Every kind of dictionary that this process has met, ours and others'.

    Example:
      >>> from interp_jax import dictionaries
      >>> sorted(kind.architecture for kind in dictionaries.known_kinds() if not kind.is_trained)
      ['ica', 'neuron_basis', 'nmf', 'pca', 'random_directions']
    """
    found, classes = [], [Dictionary]
    while classes:
        classes = [sub for cls in classes for sub in cls.__subclasses__()]
        found += [cls for cls in classes if "__dataclass_params__" in vars(cls)]
    return tuple(found)


def _class_name(kind: type[Dictionary]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def load_metadata(path: str | Path) -> dict[str, Any]:
    """What `save` was asked to remember: site, model, normalisation. Raises as `load` does."""
    if io.sae_lens.is_folder(path):
        return sae_lens.load_metadata(path)
    return io.orbax.load(path)[1]["about"]
