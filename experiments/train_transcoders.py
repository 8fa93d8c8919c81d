"""Transcoders of every layer of a model: how much of it do they keep where they stand in for all of its MLPs?

A transcoder reconstructs the output of an MLP from its input by a few active features (Dunefsky et al. 2024,
https://arxiv.org/abs/2406.11944); a cross-layer one reads each layer and writes to it and all later ones (Ameisen et
al. 2025, Circuit tracing). Attribution graphs are made with them, and say of a model no more than they keep of it.
What is read is the normed stream, of which the MLP is a function; graphs hold the norm's denominator, and stay linear.

All layers train together, from one forward pass a batch. They are saved under `<out>/layer_<i>`, or `<out>/clt`, of
further seeds in `<out>/seeds/<s>`; what is there already is not trained again, and a run that was cut off goes on.

    python experiments/train_transcoders.py [--model path/to/model.gguf --text FILE] [--kind clt] [--out DIR]

Three minutes on two cores. It prints by layer the variance that is not reconstructed (fvu), active features (l0) and
the share that never fires (dead); and of the model whose MLPs are all replaced at once, no error kept, the share of
the most probable next tokens that stay, and of the cross-entropy that mean MLP outputs lose, the share that is kept.
"""

from dataclasses import dataclass, replace
from functools import partial
import inspect
from pathlib import Path
import random
import shutil
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs
import transcoder_scores

from interp_jax import config, dictionaries, io, models
from interp_jax.data import corpus
from interp_jax.data.worlds import WORLDS
from interp_jax.progress import Progress

KINDS = {kind.architecture: kind for kind in dictionaries.known_kinds() if kind.reads_pair}
WRITTEN = transcoder_scores.WRITTEN
N_PARTS = 20  # of a run, with a checkpoint after each


@dataclass(frozen=True)
class Transcoders:
    model: str
    kind: Literal["topk_transcoder", "transcoder", "skip_transcoder", "clt"]
    read: Literal["blocks.mlp_in", "blocks.ln2.normalized"]
    d_sae: int
    k: int  # active features, of the kind that has it
    n_tokens: int  # seen in training; read more than once where the text is shorter
    n_text: int  # tokens of text at most
    n_positions: int
    batch_size: int
    n_scored: int  # held-out sequences
    dtype: Literal["float32", "bfloat16"]  # of what is saved
    seeds: tuple[int, ...]
    out: Path
    text: Path | None = None  # a UTF-8 file; None for a microworld's own rows
    sparsity: float | None = None  # weight of the penalty, of kinds without k; None for the kind's published one

    @property
    def n_steps(self) -> int:
        return max(N_PARTS, self.n_tokens // self.batch_size)


def rows(cfg: Transcoders, model, tokenizer) -> corpus.Corpus:
    """Rows of a file, or as a microworld was trained on."""
    n_positions = min(cfg.n_positions, model.config.n_ctx)
    if cfg.text is not None:
        return corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_text, n_positions=n_positions)
    if cfg.model not in WORLDS:
        raise SystemExit(f"--model {cfg.model}: has no text of its own; give a UTF-8 file as --text")
    world = WORLDS[cfg.model]
    tokens, _ = world.batch(random.Random(0), (cfg.n_text // n_positions, n_positions), world.mixture)
    real, special = np.ones(tokens.shape, bool), (tokenizer.bos_id,)
    return corpus.Corpus(tokens, ~np.isin(tokens, special), real, special, ())


def parted(text: corpus.Corpus, n_scored: int) -> list[corpus.Corpus]:
    """The rows to train on, and the last ones, which are held out."""
    names, parts = ("tokens", "mask", "real"), (slice(-n_scored), slice(-n_scored, None))
    return [replace(text, **{name: getattr(text, name)[part] for name in names}) for part in parts]


def where(cfg: Transcoders, name: str) -> tuple[str, str]:
    """The sites that a transcoder reads and writes; a cross-layer one those of every layer."""
    layer = name.removeprefix("layer_")
    both = (cfg.read, WRITTEN)
    return both if name == "clt" else tuple(site.replace("blocks.", f"blocks.{layer}.") for site in both)


def pairs(names: list[str], batch: Any) -> dict[str, Any]:
    """The batch of each transcoder, of inputs and targets of every layer `[n layer d]`."""
    return {n: batch if n == "clt" else tuple(x[:, int(n.removeprefix("layer_"))] for x in batch) for n in names}


def start(cfg: Transcoders, name: str, batch: Any, key: Any) -> dictionaries.TrainState:
    x, y = batch
    kind, d_out = KINDS[cfg.kind], y.shape[-1]
    given = {"k": cfg.k, "d_out": d_out, "b_dec": y.mean(0), "n_layers": x.shape[1]}
    given = {key: value for key, value in given.items() if key in inspect.signature(kind.create).parameters}
    made = replace(kind.create(key, x.shape[-1], cfg.d_sae, **given), sites=where(cfg, name))
    return dictionaries.TrainState.create(made, cfg.n_steps, sparsity_coefficient=cfg.sparsity)


def trained(cfg: Transcoders, model, text: corpus.Corpus, seed: int, folder: Path) -> dict[str, Any]:
    """Of one seed the transcoder of every layer by its name; those that are there already are read."""
    names = ["clt"] if cfg.kind == "clt" else [f"layer_{i}" for i in range(model.config.n_layers)]
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        harvest = partial(dictionaries.harvest, models.forward, (cfg.read, WRITTEN), model, text.tokens)
        harvest = partial(harvest, mask=text.real, skip=text.special, batch_size=cfg.batch_size, seed=seed)
        harvest = partial(harvest, n_sequences=16, n_buffered=8)
        first = pairs(missing, next(harvest()))
        scaling = dictionaries.Scaling.fit(first)
        keys = jax.random.split(jax.random.key(seed), len(names))
        states = {n: start(cfg, n, scaling(first)[n], keys[names.index(n)]) for n in missing}
        states = resumed(folder / "unfinished", states)
        done = int(states[missing[0]].step)
        batches = (scaling(pairs(missing, batch)) for batch in harvest(start=done))
        stops = [s for s in np.linspace(0, cfg.n_steps, N_PARTS + 1).astype(int).tolist() if s > done]
        with Progress(f"{Path(cfg.model).stem} {cfg.kind}, seed {seed}", len(stops)) as progress:
            for stop in stops:
                progress.begin(f"{stop * cfg.batch_size:,} of {cfg.n_steps * cfg.batch_size:,} tokens")
                states = dictionaries.train(states, batches, until=stop, every=100)
                leaves = {f"{i:05}": leaf for i, leaf in enumerate(jax.tree.leaves(states))}
                io.orbax.save(folder / "unfinished", leaves, {"names": missing})
        for name, one in scaling.fold({name: state.dictionary for name, state in states.items()}).items():
            about = {"model": cfg.model, "n_tokens": cfg.n_tokens, "seed": seed}
            dictionaries.save(folder / name, one.cast(cfg.dtype), **about)
        shutil.rmtree(folder / "unfinished")
    return {name: dictionaries.load(folder / name).cast("float32") for name in names}


def resumed(path: Path, states: dict[str, Any]) -> dict[str, Any]:
    """The states of the last checkpoint, or these where there is none."""
    if not path.exists():
        return states
    leaves, about = io.orbax.load(path)
    shapes = [leaf.shape for leaf in jax.tree.leaves(states)]
    if about["names"] != list(states) or [leaves[name].shape for name in sorted(leaves)] != shapes:
        raise SystemExit(f"{path}: a checkpoint of other settings; remove it or give another --out")
    return jax.tree.unflatten(jax.tree.structure(states), [jnp.asarray(leaves[name]) for name in sorted(leaves)])


def table(found: dict[str, Any]) -> str:
    n_layers = found["fvu"].shape[1]
    digits = {"fvu": 3, "l0": 1, "dead": 2}
    rows = [{"layer": i} | {n: runs.cell(found[n][:, i], d) for n, d in digits.items()} for i in range(n_layers)]
    return runs.table([*rows, {"layer": "mean"} | {n: runs.cell(found[n].mean(1), d) for n, d in digits.items()}])


def story(found: dict[str, Any]) -> list[str]:
    shares = {name: runs.cell(100 * found[name], 1) for name in ("kept", "kept of sure", "kept by means", "recovered")}
    ce = {name: runs.cell(found[f"ce {name}"]) for name in ("clean", "replaced", "mean")}
    return [
        f"All MLPs replaced at once, no error kept: {shares['kept']} % of the most probable next tokens stay, "
        f"{shares['kept of sure']} % of those that have more than half; of mean outputs {shares['kept by means']} %. "
        f"Of the cross-entropy that these lose {shares['recovered']} % is recovered: {ce['clean']} nats, replaced "
        f"{ce['replaced']}, means {ce['mean']}.",
        f"For graphs made with them: features alone give the model's own answer at {runs.cell(100 * found['kept'], 0)} "
        f"of 100 tokens, and error nodes stand for {runs.cell(100 * found['fvu'].mean(1), 0)} % of what MLPs write.",
    ]


def draw(what: str, found: dict[str, Any]) -> go.Figure:
    """By layer what is not reconstructed and what is dead, under what was trained."""
    figure = go.Figure()
    for name in ("fvu", "dead"):
        runs.curve(figure, found[name], name=name)
    kept = f"{100 * found['kept'].mean():.0f} % of answers kept"
    figure.update_xaxes(title_text="layer", dtick=1 if found["fvu"].shape[1] <= 12 else 5)
    return figure.update_yaxes(title_text="share", rangemode="tozero").update_layout(title=f"{what}: {kept}")


def main(cfg: Transcoders) -> dict[str, Any]:
    """By layer fvu, l0 and dead `[seed layer]`; of the whole model kept, recovered and cross-entropies `[seed]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    seen, held = parted(rows(cfg, model, tokenizer), cfg.n_scored)
    parts = []
    for seed in cfg.seeds:
        folder = cfg.out if seed == cfg.seeds[0] else cfg.out / "seeds" / str(seed)
        parts.append(transcoder_scores.scores(cfg.read, model, trained(cfg, model, seen, seed, folder), seen, held))
        found = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        runs.write("train_transcoders", cfg, found)
    figure = draw(f"{Path(cfg.model).stem}, {cfg.kind}, {cfg.d_sae} features", found)
    about = f"{cfg.model}, {cfg.kind} from {cfg.read}: {cfg.d_sae} features a layer, {cfg.n_tokens:,} tokens"
    runs.finish("train_transcoders", cfg, found, figure, about, table(found), *story(found))
    return found


if __name__ == "__main__":
    main(config.load(Transcoders, "configs/train_transcoders.toml"))
