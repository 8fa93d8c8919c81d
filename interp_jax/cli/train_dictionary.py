"""`interp-jax train-dictionary`: trains dictionaries of one kind on a model's activations, from a TOML file.

All dictionaries of a sweep over seeds, widths, k and sparsities train together, in one program. A run that was cut off
goes on from its last checkpoint; the dictionaries as they were at that step are in the folder `intermediate`.
"""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass, field
from functools import partial
import inspect
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import config, dictionaries, io, models
from interp_jax.cli import subject
from interp_jax.data import corpus
from interp_jax.masking import counted
from interp_jax.runs import check_counts

HELD_OUT = 128  # sequences on which dictionaries are scored, at most
TOLD = ("l0", "fvu", "ce_recovered", "kl_spliced", "dead")  # the scores that are printed; scores.json has all


@dataclass(frozen=True)
class Settings:
    """What else an architecture's `create` takes. Its `points` are centroids that are made of the activations."""

    form: str | None = None
    threshold: float | None = None
    bandwidth: float | None = None
    p_end: float | None = None
    start: float | None = None
    widths: tuple[int, ...] | None = None
    k_aux: int | None = None
    c: float | None = None
    delta: float | None = None
    n_points: int = 1000
    """How many such centroids, for an archetypal dictionary."""


@dataclass(frozen=True)
class TrainDictionary:
    """What to train, on what."""

    out: Path
    """Folder for the dictionaries, scores.json, TensorBoard's scalars and the checkpoint of training."""
    kind: str = "topk"
    """Architecture, such as topk, batchtopk, jumprelu, gated, transcoder, crosscoder, clt."""
    model: str = "microworld"
    """A shipped model, a local Hugging Face folder, or a hub id."""
    site: str = "blocks.2.resid_post"
    """Where to read; every layer, as in blocks.resid_post, for a crosscoder or a cross-layer transcoder."""
    site_out: str | None = None
    """What a transcoder reconstructs, such as blocks.2.mlp_out."""
    text: Path | None = None
    """A UTF-8 text file; by default the microworld's own text."""
    d_sae: tuple[int, ...] = (2048,)
    """Widths; every combination of widths, k, sparsities and seeds is one dictionary."""
    k: tuple[int, ...] = ()
    """Active features, for the kinds that have it."""
    sparsity: tuple[float, ...] = ()
    """Weights of the sparsity term; by default the architecture's published one."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the dictionaries' starts; the first also seeds the order of the tokens and the microworld's text."""
    n_tokens: int = 400_000
    """Tokens of text, at most."""
    n_positions: int = 128
    """Tokens in one sequence, at most."""
    n_steps: int = 2000
    """Training steps."""
    batch_size: int = 1024
    """Tokens in one step."""
    learning_rate: float | None = None
    """The learning rate at its peak; by default what Gao et al. (2024) give for the width."""
    resample_at: tuple[int, ...] = ()
    """Steps after which dead features start again."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    settings: Settings = field(default_factory=Settings)
    """What else the architecture takes."""


def train_dictionary(config: Path) -> None:
    """Train dictionaries of one kind on a model's activations, a whole sweep in one program.

    Every key of the file is an option too, such as --kind gated, --d-sae 1024 4096, --out DIR.

    Args:
        config: A TOML file, such as configs/train_dictionary.toml.
    """
    from_file(config, ())


def from_file(path: str | Path, words: Sequence[str]) -> dict[str, dict[str, float]]:
    """Trains what a file says, with the options `words` of the command line in place of its own.

    Raises:
      ValueError: the file, or what it says, cannot be used.
      FileNotFoundError: there is no such file.
      FloatingPointError: as in `train`.
    """
    try:
        cfg = config.load(TrainDictionary, path, words)
    except TypeError as error:  # a value of the wrong type is bad input too
        raise ValueError(str(error)) from None
    return train(cfg)


def train(cfg: TrainDictionary) -> dict[str, dict[str, float]]:
    """Trains, scores and saves every dictionary.

    Returns:
      Name of a dictionary -> name of a score -> its value.

    Raises:
      ValueError: an unknown kind, sizes or sites that it cannot have, or too little text.
      FloatingPointError: the loss is not finite; the message names the step. The last checkpoint stays.
    """
    sizes = {name: getattr(cfg, name) for name in ("n_tokens", "n_positions", "batch_size", "checkpoint_every")}
    check_counts(**sizes)
    cls = _kind(cfg)
    members = _members(cfg, cls)
    for name in members:
        io.orbax.check_free(cfg.out / name)
    model, tokenizer = subject.open_model(cfg.model)
    n_positions = min(cfg.n_positions, model.config.n_ctx)
    read = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=n_positions, seed=cfg.seeds[0])
    n_held_out = max(1, min(HELD_OUT, len(read.tokens) // 10))
    harvest = partial(dictionaries.harvest, models.forward, _where(cfg), model, skip=read.special)
    batches = partial(
        harvest, read.tokens[:-n_held_out], mask=read.real[:-n_held_out], batch_size=cfg.batch_size, seed=cfg.seeds[0]
    )
    first = next(batches())
    scaling = dictionaries.Scaling.fit(first)
    first = scaling(first)
    states = _resumed(cfg, [_start(cfg, cls, first, **member) for member in members.values()])
    states = _trained(cfg, members, scaling, states, batches(start=int(states[0].step)).map(scaling), first)

    scores = {}
    held_out = read.tokens[-n_held_out:], read.real[-n_held_out:]
    for name, state in zip(members, states, strict=True):
        scores[name] = _scores(harvest, model, scaling.fold(state.dictionary), *held_out, read.special)
        _save(cfg, name, scaling, state, member=members[name], scores=scores[name])
        print(f"{name:32}", *(f"  {key} {scores[name][key]:.4g}" for key in TOLD if key in scores[name]))
    (cfg.out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return scores


def _trained(
    cfg: TrainDictionary, members: dict[str, Any], scaling: Any, states: list[Any], batches: Any, first: Any
) -> list[Any]:
    """The states after the last step. At every pause dead features start again, if it is time, and all is saved."""
    x = first
    with dictionaries.Monitor(cfg.out / "tensorboard") as monitor:

        def report(states: Any, info: Any, batch: Any) -> None:
            nonlocal x
            x = batch  # at hand where training pauses
            monitor(states, info, batch)

        while (step := int(states[0].step)) < cfg.n_steps:
            stop = min([at for at in (*_stops(cfg), cfg.n_steps) if at > step])
            states = dictionaries.train_many(states, batches, until=stop, report=report)
            if stop in cfg.resample_at:
                states = [dictionaries.resample(jax.random.key(stop), state, x) for state in states]
            for (name, member), state in zip(members.items(), states, strict=True):  # to look at while it trains
                _save(cfg, f"intermediate/{name}", scaling, state, member=member, step=stop)
            _checkpoint(cfg, states)
    return states


def _save(cfg: TrainDictionary, name: str, scaling: Any, state: Any, **about: Any) -> None:
    """Saves a dictionary for activations as the model has them, with the factors that they were trained at."""
    factors = [np.asarray(factor).tolist() for factor in jax.tree.leaves(scaling.factor)]
    about = {"text": subject.text_said(cfg.text), "normalisation": factors, **about}
    about |= {"model": cfg.model, "site": cfg.site, "site_out": cfg.site_out}
    dictionaries.save(cfg.out / name, scaling.fold(state.dictionary), **about)


def _kind(cfg: TrainDictionary) -> Any:
    """The class of the architecture."""
    known = [kind for kind in dictionaries.known_kinds() if kind.is_trained and not kind.reads_sequence]
    trained = {kind.architecture: kind for kind in known}
    if cfg.kind not in trained:
        raise ValueError(
            f"kind = {cfg.kind!r}: is not an architecture that is trained; known: {', '.join(sorted(trained))}"
        )
    pair = trained[cfg.kind].reads_pair
    if pair != (cfg.site_out is not None):
        need = "needs site_out, the site that it reconstructs" if pair else "reads one site; leave site_out away"
        raise ValueError(f"kind = {cfg.kind!r}: {need}")
    return trained[cfg.kind]


def _where(cfg: TrainDictionary) -> str | tuple[str, str]:
    """The address that is read, or those of input and target."""
    return cfg.site if cfg.site_out is None else (cfg.site, cfg.site_out)


def _members(cfg: TrainDictionary, cls: Any) -> dict[str, dict[str, Any]]:
    """The settings of each dictionary of the sweep, under a name that tells what varies: name -> setting -> value."""
    if empty := [name for name in ("d_sae", "seeds") if not getattr(cfg, name)]:
        raise ValueError(f"{empty[0]} = []: a sweep needs at least one")
    axes = {"d_sae": cfg.d_sae, "k": cfg.k or (None,), "sparsity": cfg.sparsity or (None,), "seed": cfg.seeds}
    takes = inspect.signature(cls.create).parameters
    if ("k" in takes) != bool(cfg.k):
        raise ValueError(f"k = {list(cfg.k)}: {cls.__name__} {'needs one' if 'k' in takes else 'has none'}")
    members = {}
    for values in itertools.product(*axes.values()):
        member = dict(zip(axes, values, strict=True))
        told = [f"{key}-{value}" for key, value in member.items() if value is not None and len(axes[key]) > 1]
        members["-".join([cfg.kind, *told])] = member
    return members


def _start(
    cfg: TrainDictionary, cls: Any, x: Any, *, d_sae: int, k: int | None, sparsity: float | None, seed: int
) -> Any:
    """The state before the first step, of a dictionary that fits the batch `x`."""
    inputs, targets = x if isinstance(x, tuple) else (x, x)
    takes = inspect.signature(cls.create).parameters
    made = {"k": k, "b_dec": targets.mean(0), "d_out": targets.shape[-1]}
    made |= {"n_sites": inputs.shape[1], "n_layers": inputs.shape[1]} if inputs.ndim == 3 else {}
    arguments = {name: value for name, value in made.items() if name in takes and value is not None}
    if inputs.ndim != 2 + bool({"n_sites", "n_layers"} & set(takes)):
        raise ValueError(f"site = {cfg.site!r}: gives {inputs.ndim - 1} axes for a token; see the kinds' docs")
    if "points" in takes:
        arguments["points"] = _centroids(inputs - inputs.mean(0), cfg.settings.n_points, seed)
    given = {f.name: getattr(cfg.settings, f.name) for f in dataclasses.fields(Settings) if f.name != "n_points"}
    given = {name: value for name, value in given.items() if value is not None}
    if extra := [name for name in given if name not in takes]:
        known = {field.name for field in dataclasses.fields(Settings)}
        taken = ", ".join(name for name in takes if name in known)
        raise ValueError(f"settings.{extra[0]}: {cls.__name__} has no {extra[0]}; it takes {taken or 'none'}")
    dictionary = cls.create(jax.random.key(seed), inputs.shape[-1], d_sae, **arguments, **given)
    dictionary = dataclasses.replace(dictionary, sites=_where(cfg))
    return dictionaries.TrainState.create(
        dictionary, cfg.n_steps, learning_rate=cfg.learning_rate, sparsity_coefficient=sparsity
    )


def _centroids(x: Any, n: int, seed: int) -> np.ndarray:
    """At most n centroids of the activations `[token d_in]`, by k-means: `[centroid d_in]`."""
    from sklearn.cluster import MiniBatchKMeans

    return np.asarray(MiniBatchKMeans(min(n, len(x)), random_state=seed).fit(np.asarray(x)).cluster_centers_)


def _stops(cfg: TrainDictionary) -> list[int]:
    """The steps at which training pauses, for a checkpoint or to resample."""
    return sorted({*range(cfg.checkpoint_every, cfg.n_steps, cfg.checkpoint_every), *cfg.resample_at})


def _checkpoint(cfg: TrainDictionary, states: Sequence[Any]) -> None:
    leaves = {f"{i:04}": leaf for i, leaf in enumerate(jax.tree.leaves(list(states)))}
    io.orbax.save(cfg.out / "checkpoint", leaves, {"config": _as_json(cfg)})


def _resumed(cfg: TrainDictionary, states: list[Any]) -> list[Any]:
    """The states of the last checkpoint, which must be of the same configuration; `states` if there is none."""
    if not (cfg.out / "checkpoint").exists():
        return states
    saved, metadata = io.orbax.load(cfg.out / "checkpoint")
    if metadata["config"] != _as_json(cfg):
        raise ValueError(f"{cfg.out}: has a checkpoint of other settings; remove it or give another --out")
    return jax.tree.unflatten(jax.tree.structure(states), [jnp.asarray(saved[name]) for name in sorted(saved)])


def _as_json(cfg: TrainDictionary) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(cfg), default=str))


def _scores(
    harvest: Any, model: Any, dictionary: Any, tokens: np.ndarray, mask: np.ndarray, special: tuple[int, ...]
) -> dict[str, float]:
    """The scores of `evaluate`. A dictionary of several layers at once cannot be spliced, and has fvu and l0 alone."""
    if not dictionary.is_stacked:
        found = dictionaries.evaluate(models.forward, None, dictionary, model, tokens, mask=mask, skip=special)
        return found.numbers()
    n = int(counted(tokens, mask, list(special)).sum())
    both = next(harvest(tokens, mask=mask, batch_size=n, epochs=1))
    x, y = both if isinstance(both, tuple) else (both, both)
    features = dictionary.encode(x)
    variance = jnp.sum(jnp.square(y - y.mean(0)))
    n_active = jnp.sum((features != 0).astype(jnp.float32)) / len(x)
    return {"fvu": float(jnp.sum(jnp.square(dictionary(x) - y)) / variance), "l0": float(n_active)}
