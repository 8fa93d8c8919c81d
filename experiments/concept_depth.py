"""How deep does a concept lie: at which layer does a probe's accuracy jump, and at which has it converged?

A logistic regression reads a label from the state of the last token after each layer (Jin et al. 2024, "Exploring
concept depth", https://arxiv.org/abs/2404.07066). Accuracy jumps at the first layer at which it is 1.1 times that of
the layer before, and has converged at the first layer after which it changes by less than 0.03 of itself.

    python experiments/concept_depth.py [--model smollm2.gguf] [--out DIR]

A minute on two cores. Of the microworld the concepts have known depths: the language of a sentence stands in its last
word, number and truth have to be brought there. Of other models: sentiment of SST-2's reviews, truth of relations
(LRE's) and of TruthfulQA's answers. Reviews, subjects and questions that are tested are none of those trained on.
"""

from dataclasses import dataclass
from pathlib import Path

import concepts
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, models, probes


@dataclass(frozen=True)
class Depth:
    model: str
    n: int  # prompts of a concept
    l2: float
    seeds: tuple[int, ...]  # of the split
    out: Path


def study(cfg: Depth, model, tokenizer, concept: concepts.Concept, begin) -> dict[str, np.ndarray]:
    """Accuracy `[seed layer]`, and where it jumps and converges `[seed]`."""
    begin("layers")
    x = concepts.states(model, tokenizer, concept)
    found = []
    for seed in cfg.seeds:
        begin(f"probes, seed {seed}")
        found.append(concepts.fit(x, concept.y, concepts.split(concept, seed), cfg.l2)[1])
    accuracy = np.stack(found)
    return {
        "accuracy": accuracy,
        "jump": np.asarray(probes.jump_layer(accuracy)),
        "converged": np.asarray(probes.converged_layer(accuracy)),
        "commonest": concept.commonest,
        "n": len(concept.y),
    }


def story(found: dict[str, dict]) -> str:
    depth = {name: np.mean(of["converged"]) for name, of in found.items()}
    order = ", ".join(f"{name} ({depth[name]:.1f})" for name in sorted(depth, key=depth.__getitem__))
    flat = [name for name, of in found.items() if np.mean(of["accuracy"].max(1)) < of["commonest"] + 0.05]
    none = f" No layer tells more than 5 points above the commonest label of {', '.join(flat)}." if flat else ""
    return f"By the layer at which accuracy has converged, from shallow to deep: {order}.{none}"


def draw(cfg: Depth, found: dict[str, dict]) -> go.Figure:
    figure = go.Figure(layout={"title": f"Probes of the last token, {Path(cfg.model).name}"})
    for name, of in found.items():
        runs.curve(figure, of["accuracy"], name=name, mode="lines+markers")
    return figure.update_layout(xaxis_title="after layer (0: embeddings)", yaxis_title="accuracy on held-out prompts")


def main(cfg: Depth) -> dict[str, dict]:
    """What `study` finds of each concept, by its name."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    ours = cfg.model.startswith("microworld")
    sets = concepts.of_microworld(tokenizer, cfg.n, 0) if ours else concepts.of_texts(cfg.n, 0)
    found: dict[str, dict] = {}

    def one(name: str, begin) -> dict[str, np.ndarray]:
        found[name] = study(cfg, model, tokenizer, sets[name], begin)
        runs.write("concept_depth", cfg, found)
        return {}

    runs.each(list(sets), 1 + len(cfg.seeds), "concepts", one, lambda _: None)
    about = f"{cfg.model}: accuracy of probes of the last token, split anew by seeds {list(cfg.seeds)}, mean ± spread"
    rows = [
        {
            "concept": name,
            "n": of["n"],
            "commonest": f"{of['commonest']:.2f}",
            "embeddings": runs.cell(of["accuracy"][:, 0]),
            "last layer": runs.cell(of["accuracy"][:, -1]),
            "best": f"{of['accuracy'].mean(0).max():.2f} at {of['accuracy'].mean(0).argmax()}",
            "jumps at": " ".join("–" if at < 0 else str(at) for at in of["jump"]),
            "converged at": " ".join(map(str, of["converged"])),
        }
        for name, of in found.items()
    ]
    runs.finish("concept_depth", cfg, found, draw(cfg, found), about, runs.table(rows), story(found))
    return found


if __name__ == "__main__":
    main(config.load(Depth, "configs/concept_depth.toml"))
