"""At which layers does a model come to know a sentence's grammar: first parts of speech, then what belongs together?

An edge probe reads a label from a span of words, or from a pair of spans, through a mix of layers (Tenney et al. 2019,
"BERT rediscovers the classical NLP pipeline", https://arxiv.org/abs/1905.05950). The centre of gravity is the mean
layer of the mix's weights. The expected layer asks more: a probe that may mix the layers 0 to l is trained for every l,
and what each layer adds to the score says at which layer items come to be told rightly.

    python experiments/pipeline.py [--model FOLDER-OF-A-BERT] [--kinds pos relations] [--out DIR]

Two minutes on two cores. Of a microworld's model the labels are those that its sentences are made with: parts of
speech, constituents, roles, entities, coreference; of any other (`microworld-bert`, a BERT or a decoder of your own)
those of Universal Dependencies EWT, trained on its dev file and scored on its test file: parts of speech, arcs,
relations.
"""

from dataclasses import dataclass
from pathlib import Path

import depths
import jax
import numpy as np
import optax
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

from interp_jax import config, models, probes
from interp_jax.data import WORLDS, conllu, spans

ONE_SPAN = ("pos", "constituents", "entities")  # the others are pairs


@dataclass(frozen=True)
class Pipeline:
    model: str
    n_train: int  # sentences
    n_test: int
    n_positions: int  # longer sentences of a treebank are left out
    n_steps: int
    batch_size: int  # sentences
    learning_rate: float
    mix_rate: float  # of the weights of layers, which have far to go
    d_proj: int
    d_hidden: int
    seeds: tuple[int, ...]
    out: Path
    kinds: tuple[str, ...] = ()  # of labels; by default all


def sentences(cfg: Pipeline, tokenizer, kind: str) -> list[spans.Labelled]:
    """Labelled sentences to train on, and others."""
    world = cfg.model.removesuffix("-narrow")
    key = jax.random.key(0)
    if world in WORLDS:
        parts = (("train", cfg.n_train), ("heldout", cfg.n_test))
        return [spans.labelled(key, tokenizer, n, kind=kind, world=world, split=split) for split, n in parts]
    files = [depths.data("ud-ewt") / f"en_ewt-ud-{part}.conllu" for part in ("dev", "test")]
    read = [conllu.read(file)[:n] for file, n in zip(files, (cfg.n_train, cfg.n_test), strict=True)]
    return [conllu.labelled(key, tokenizer, part, kind=kind, n_positions=cfg.n_positions) for part in read]


def edges(model, batch: spans.Labelled, kind: str) -> probes.Edges:
    x = depths.of_one_size(depths.layers(model, batch.tokens, batch.mask))
    return probes.Edges(x, *spans.by_sentence(batch, 1 if kind in ONE_SPAN else 2))


def optimizer(cfg: Pipeline) -> optax.GradientTransformation:
    rest = optax.adam(optax.cosine_decay_schedule(cfg.learning_rate, cfg.n_steps))
    return optax.multi_transform(
        {"mix": optax.adam(cfg.mix_rate), "rest": rest},
        lambda parameters: {name: "mix" if name == "a" else "rest" for name in parameters},
    )


def study(cfg: Pipeline, model, tokenizer, kind: str, begin) -> dict[str, np.ndarray]:
    """Of one kind of labels: scores of the probes of layers 0 to l, and the mix of all, both `[seed layer]`."""
    begin("layers of the sentences")
    train, test = sentences(cfg, tokenizer, kind)
    names, (train, test) = train.names, (edges(model, part, kind) for part in (train, test))
    n_layers, _, _, d_model = train.x.shape
    adam, found = optimizer(cfg), []
    for seed in cfg.seeds:
        begin(f"probes, seed {seed}")
        first, order = jax.random.split(jax.random.key(seed))
        sizes = {"n_spans": train.spans.shape[2], "d_proj": cfg.d_proj, "d_hidden": cfg.d_hidden}
        probe = probes.EdgeProbe.create(first, n_layers, d_model, len(names), **sizes)
        state = probes.EdgeState.create(probes.prefixes(probe), adam)
        state = probes.train_edges(order, state, train, cfg.n_steps, batch_size=cfg.batch_size)
        found.append((probes.edge_scores(state.probe, test), state.probe.mix()[-1]))
    scores, mix = (np.stack([one[i] for one in found]) for i in (0, 1))
    labels = test.labels[test.labels >= 0]
    return {
        "scores": scores,
        "mix": mix,
        "centre of gravity": np.asarray(probes.centre_of_gravity(mix)),
        "expected layer": np.asarray(probes.expected_layer(scores)),
        "commonest": np.bincount(labels).max() / len(labels),
        "n": len(labels),
    }


def story(found: dict[str, dict]) -> str:
    where = {kind: of["expected layer"] for kind, of in found.items()}
    gains = {kind: np.mean(of["scores"][:, -1] - of["scores"][:, 0]) for kind, of in found.items()}
    at_once = [kind for kind in found if not np.isfinite(where[kind]).all()]
    order = sorted(found.keys() - at_once, key=lambda kind: np.mean(where[kind]))
    said = ", ".join(f"{kind} {runs.cell(where[kind])} (gain {gains[kind]:.3f})" for kind in order) or "none"
    rest = (
        f" The embeddings tell as much as all layers of {', '.join(at_once)}: nothing to share out." if at_once else ""
    )
    return (
        f"From the earliest to the latest by expected layer, with what the layers add to the embeddings: {said}.{rest}"
    )


def draw(cfg: Pipeline, found: dict[str, dict]) -> go.Figure:
    figure = make_subplots(rows=1, cols=2, subplot_titles=("layers 0 to l are mixed", "weights of the mix of all"))
    colors = ("#636efa", "#ef553b", "#00cc96", "#ab63fa", "#ffa15a")
    for color, (kind, of) in zip(colors, found.items(), strict=False):
        for column, name in ((1, "scores"), (2, "mix")):
            look = {"name": kind, "legendgroup": kind, "showlegend": column == 1, "marker": {"color": color}}
            values = of[name]
            errors = {"array": runs.spread(values)}
            line = go.Scatter(y=values.mean(0), error_y=errors, mode="lines+markers", **look)
            figure.add_trace(line, row=1, col=column)
    figure.update_yaxes(title="accuracy", col=1).update_yaxes(title="weight", rangemode="tozero", col=2)
    return figure.update_xaxes(title="layer l").update_layout(
        title=f"Edge probes of {'/'.join(Path(cfg.model).parts[-2:])}"
    )


def main(cfg: Pipeline) -> dict[str, dict]:
    """What `study` finds of each kind of labels, by its name."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    kinds = cfg.kinds or (spans.KINDS if cfg.model.removesuffix("-narrow") in WORLDS else conllu.KINDS)
    found: dict[str, dict] = {}

    def one(kind: str, begin) -> dict[str, np.ndarray]:
        found[kind] = study(cfg, model, tokenizer, kind, begin)
        runs.write("pipeline", cfg, found)
        return {}

    runs.each(kinds, 1 + len(cfg.seeds), "labels of kind", one, lambda _: None)
    about = (
        f"{cfg.model}: edge probes on held-out sentences, seeds {list(cfg.seeds)}, mean ± spread; layer 0: embeddings"
    )
    rows = [
        {
            "labels": kind,
            "items": f"{of['n']:,}",
            "commonest": f"{of['commonest']:.3f}",
            "embeddings": runs.cell(of["scores"][:, 0], 3),
            "all layers": runs.cell(of["scores"][:, -1], 3),
            "centre of gravity": runs.cell(of["centre of gravity"]),
            "expected layer": runs.cell(of["expected layer"]),
        }
        for kind, of in found.items()
    ]
    by_layer = runs.layer_table("score of 0 to l", {kind: of["scores"] for kind, of in found.items()})
    runs.finish("pipeline", cfg, found, draw(cfg, found), about, runs.table(rows), by_layer, story(found))
    return found


if __name__ == "__main__":
    main(config.load(Pipeline, "configs/pipeline.toml"))
