"""Sparse heads in the place of attention: how much of a model do they keep, and how much together with transcoders?

An attention layer's heads share what they carry (attention superposition). Lorsa, low-rank sparse attention (He et al.
2025, https://arxiv.org/abs/2504.20938), has many more heads, each of which carries one direction to another, of which
few are active at a position; groups of them share queries and keys, which start as the model's own heads'. With
transcoders of the MLPs they are a complete replacement model: no pattern of the model's own heads is left in it, and
where a sparse head looks can be asked of the replacement itself.

All layers train together on whole sequences of `blocks.ln1.normalized` and `blocks.attn_out`. They are saved under
`<out>/layer_<i>`, of further seeds in `<out>/seeds/<s>`; what is there already is not trained again.

    python experiments/train_lorsa.py [--model path/to/model.gguf --text FILE --transcoders FOLDER] [--out DIR]

Four minutes on two cores. It prints by layer the variance that is not reconstructed (fvu), active heads (l0) and the
share that is never active (dead); and of the model whose attention is all replaced at once, no error kept, and of the
one whose MLPs are replaced too, the share of the most probable next tokens that stay, and of the cross-entropy that
mean outputs lose, the share that is kept. Last, how much features explain in attribution graphs of held-out rows: with
the model's own patterns held, and with sparse heads as nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import runs
import train_transcoders
import transcoder_scores

import interp_jax as ij
from interp_jax import config, dictionaries, graphs, models, weights
from interp_jax.data import corpus
from interp_jax.progress import Progress

READ, WRITTEN = "blocks.ln1.normalized", "blocks.attn_out"
N_PARTS = 20  # of a run, for its progress


@dataclass(frozen=True)
class SparseHeads:
    model: str
    transcoders: str  # of all MLPs, a folder or the name of a shipped set; "": attention alone is replaced
    d_sae: int  # heads of a layer
    k: int  # active heads at a position
    n_groups: int  # of queries and keys, a multiple of the model's heads
    n_tokens: int  # seen in training; read more than once where the text is shorter
    n_text: int  # tokens of text at most
    n_positions: int
    batch_size: int  # sequences
    learning_rate: float
    n_scored: int  # held-out sequences
    n_graphs: int  # of them whose beginnings have attribution graphs
    n_shown: int  # tokens of such a beginning
    n_features: int  # of a graph
    seeds: tuple[int, ...]
    out: Path
    text: Path | None = None  # a UTF-8 file; None for a microworld's own rows

    @property
    def n_steps(self) -> int:
        return max(N_PARTS, self.n_tokens // (self.batch_size * self.n_positions))


def batches(cfg: SparseHeads, model: Any, text: corpus.Corpus, seed: int) -> Iterator[tuple[Any, Any]]:
    """What attention reads and writes in sequences in random order, `[layer sequence position d]` each, endlessly."""
    run, rng = ij.capture(models.forward, (READ, WRITTEN), output=False), np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(text.tokens))
        for start in range(0, len(order) - cfg.batch_size + 1, cfg.batch_size):
            acts = run(model, jnp.asarray(text.tokens[order[start : start + cfg.batch_size]]))
            yield acts[READ].astype(jnp.float32), acts[WRITTEN].astype(jnp.float32)


def trained(cfg: SparseHeads, model: Any, text: corpus.Corpus, seed: int, folder: Path) -> dict[str, Any]:
    """Of one seed the heads of every layer by its name; those that are there already are read."""
    names = [f"layer_{i}" for i in range(model.config.n_layers)]
    if missing := {name: i for i, name in enumerate(names) if not (folder / name).exists()}:
        sequences = batches(cfg, model, text, seed)
        x, y = next(sequences)
        tokens = {name: tuple(part[i].reshape(-1, part.shape[-1]) for part in (x, y)) for name, i in missing.items()}
        scaling = dictionaries.Scaling.fit(tokens)
        own, turned = weights.fold_norms(models.weights(model)), model.config.positions == "rotary"
        heads = {"d_sae": cfg.d_sae, "k": cfg.k, "n_groups": cfg.n_groups}
        heads["rope_theta"] = model.config.rope_theta if turned else None
        states = {}
        for name, i in missing.items():
            key = jax.random.fold_in(jax.random.key(seed), i)
            made = dictionaries.Lorsa.of_heads(key, own, i, **heads, b_dec=tokens[name][1].mean(0))
            made = made.fold_scale(*(1 / factor for factor in scaling.factor[name]))  # to the scale of training
            sites = tuple(site.replace("blocks.", f"blocks.{i}.") for site in (READ, WRITTEN))
            made = replace(made, sites=sites)
            states[name] = dictionaries.TrainState.create(made, cfg.n_steps, learning_rate=cfg.learning_rate)
        scaled = (scaling({name: (x[i], y[i]) for name, i in missing.items()}) for x, y in sequences)
        with Progress(f"{Path(cfg.model).stem}, seed {seed}", N_PARTS) as progress:
            for stop in np.linspace(0, cfg.n_steps, N_PARTS + 1).astype(int).tolist()[1:]:
                progress.begin(f"{stop:,} of {cfg.n_steps:,} steps")
                states = dictionaries.train(states, scaled, until=stop, every=100)
        for name, one in scaling.fold({name: state.dictionary for name, state in states.items()}).items():
            dictionaries.save(folder / name, one, model=cfg.model, n_tokens=cfg.n_tokens, seed=seed)
    return {name: dictionaries.load(folder / name) for name in names}


def graph_scores(cfg: SparseHeads, model: Any, transcoders: Any, heads: Any, tokens: np.ndarray) -> dict[str, Any]:
    """Replacement and completeness of graphs `[prompt 2]`, the model's own patterns held or sparse heads in place."""
    found: dict[str, Any] = {}
    for name, lorsas in (("graphs, patterns held", None), ("graphs, sparse heads", heads)):
        trace = partial(graphs.attribution_graph, models.forward, model, transcoders, n_features=cfg.n_features)
        made = [trace(row[: cfg.n_shown], lorsas=lorsas) for row in tokens[: cfg.n_graphs]]
        found[name] = np.array([graph.scores() for graph in made])
    return found


def story(found: dict[str, Any], *, both: bool) -> list[str]:
    share = {name: runs.cell(100 * found[name], 1) for name in found if np.ndim(found[name]) == 1 and "ce " not in name}
    ce = {name: runs.cell(found[name]) for name in found if "ce " in name}
    lines = [
        f"All attention replaced at once, no error kept: {share['kept']} % of the most probable next tokens stay, "
        f"{share['kept of sure']} % of those that have more than half; of mean outputs {share['kept by means']} %. Of "
        f"the cross-entropy that these lose {share['recovered']} % is recovered: {ce['ce clean']} nats, replaced "
        f"{ce['ce replaced']}, means {ce['ce mean']}."
    ]
    if both:
        lines.append(
            f"With transcoders in the MLPs' place as well, a complete replacement model: {share['kept both']} % stay, "
            f"{share['sure both']} % of those that have more than half; {share['recovered both']} % is recovered: "
            f"{ce['ce both']} nats, means in both places {ce['ce both means']}."
        )
        told = []
        for name in ("patterns held", "sparse heads"):
            each = [runs.cell(found[f"graphs, {name}"][..., i].mean(1)) for i in range(2)]
            told.append(f"{name} {' and '.join(each)}")
        lines.append(f"Attribution graphs' replacement and completeness scores: {'; '.join(told)}.")
    return lines


def main(cfg: SparseHeads) -> dict[str, Any]:
    """By layer fvu, l0 and dead `[seed layer]`; of the whole model kept, recovered and cross-entropies `[seed]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    seen, held = train_transcoders.parted(train_transcoders.rows(cfg, model, tokenizer), cfg.n_scored)
    others, layers = (), None
    if cfg.transcoders:
        layers = dictionaries.load_layers(cfg.transcoders, dtype="float32")
        sites = [site.replace("blocks.0.", "blocks.") for site in layers[0].sites]
        others = (*sites, dict(enumerate(layers)))
    parts = []
    for seed in cfg.seeds:
        folder = cfg.out if seed == cfg.seeds[0] else cfg.out / "seeds" / str(seed)
        heads = trained(cfg, model, seen, seed, folder)
        part = transcoder_scores.scores(READ, model, heads, seen, held, written=WRITTEN, others=others)
        if others:
            part |= graph_scores(cfg, model, layers, list(heads.values()), held.tokens)
        parts.append(part)
        found = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        runs.write("train_lorsa", cfg, found)
    about = f"{cfg.model}, {cfg.d_sae} sparse heads a layer in {cfg.n_groups} groups, {cfg.n_tokens:,} tokens"
    what = f"{Path(cfg.model).stem}, {cfg.d_sae} sparse heads a layer, {cfg.k} active"
    told = train_transcoders.table(found), *story(found, both=bool(others))
    runs.finish("train_lorsa", cfg, found, train_transcoders.draw(what, found), about, *told)
    return found


if __name__ == "__main__":
    main(config.load(SparseHeads, "configs/train_lorsa.toml"))
