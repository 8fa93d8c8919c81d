"""Do explanations get better with the subject, the explainer or the simulator? And do cheaper scores rank them alike?

Bills et al. 2023, "Language models can explain neurons in language models", section on scaling: the mean simulation
score over neurons, as one of the three models grows. Paulo et al. 2024, https://arxiv.org/abs/2410.13928, offer
detection and fuzzing as cheaper scores. Here every explainer explains features of every subject, every simulator scores
every explanation, and Spearman's correlation over all of them says whether these rank them as simulation does.
`statistics` explains and simulates without a language model, and simulates what it has said itself alone; any other is
a model at hand, as `models.load` takes it, or one behind an OpenAI-compatible endpoint, as NAME@URL.

    python experiments/explain_scaling.py [--subjects microworld stories260K] [--explainers statistics smollm2.gguf]
        [--simulators statistics gpt-4o-mini@https://api.openai.com/v1] [--out DIR]

A minute on two cores, without a language model; a model of 135M parameters takes some minutes for a feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from explain_bases import Training, activations, drawn, mean, read, record, trained
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, explain, models
from interp_jax.explain import scores
from interp_jax.explain.explanations import methods
from interp_jax.io.endpoint import Endpoint

OFFLINE = "statistics"
SCORES = ("simulation", "detection", "fuzzing")
COLUMNS = (*SCORES, "embedding")


@dataclass(frozen=True)
class ExplainScaling:
    subjects: tuple[str, ...]
    explainers: tuple[str, ...]
    simulators: tuple[str, ...]
    text: str
    way: str  # of explaining: activations, marks or contrast
    simulating: str  # in_one_pass, as_written or one_by_one
    embedder: str  # an encoder of sentences, such as all-MiniLM-L6-v2, for the score embedding; none: no such score
    most: int  # the largest level in prompts: 9 where a tokenizer takes digits apart
    n_units: int
    n_shown: int  # texts that explain, and of each sort that test, for a language model
    n_tokens: int
    n_positions: int
    least: int
    training: Training
    seeds: tuple[int, ...]
    out: Path


def chat_of(cfg: ExplainScaling, name: str) -> Any:
    """A chat model by its name; None for statistics."""
    if name == OFFLINE:
        return None
    model, at, url = name.rpartition("@")
    if at:
        return Endpoint(model, base_url=url, cache=cfg.out / "answers")
    return models.answering(*models.load(name, dtype="float32", scan_layers=True))


def pairs(cfg: ExplainScaling) -> list[tuple[str, str]]:
    """Explainers and simulators that go together: statistics follow no other explanation than their own."""
    return [pair for pair in product(cfg.explainers, cfg.simulators) if pair[1] != OFFLINE or pair[0] == OFFLINE]


def few(evidence: explain.Evidence, n: int) -> explain.Evidence:
    """As much of it as a language model is shown."""
    half = max(1, n // 2)
    return explain.Evidence(evidence.train[:n], evidence.test[:n], evidence.quiet[:n], evidence.random[:half])


def explained(cfg: ExplainScaling, explainer: str, chat: Any, units: Sequence[explain.Evidence]) -> list[Any]:
    """An explanation of each unit, or None."""
    make = explain.by_statistics if explainer == OFFLINE else methods.EXPLAINERS[cfg.way]
    return [explain.ask(chat, make(one), shown=False) for one in units]


def embedder_of(cfg: ExplainScaling) -> Any:
    """From texts to vectors, the mean over tokens of an encoder's last layer; None without one."""
    if not cfg.embedder:
        return None
    model, tokenizer = models.load(cfg.embedder, dtype="float32")

    def embed(texts: Sequence[str]) -> np.ndarray:
        tokens, mask, _ = models.tokenize(tokenizer, list(texts), side="right")
        return np.asarray(models.hidden(model, tokens, attention_mask=mask).mean(1, where=mask[..., None]))

    return embed


def scored(cfg: ExplainScaling, simulator: str, chats: Any, said: Sequence[Any], units: Sequence[Any]) -> dict:
    """The scores of each explanation, `[unit score]`, nan where one is not defined or was not to be had.

    And the share of the texts of which nothing usable was said.
    """
    method = explain.offline(SCORES)
    if simulator != OFFLINE:
        method = explain.by_model(cfg.way, SCORES, simulator=cfg.simulating, most=cfg.most)
    found, used = np.full((len(units), len(COLUMNS)), np.nan), [0, 0]
    for i, (words, one) in enumerate(zip(said, units, strict=True)):
        if words is None:
            continue
        text = words if simulator == OFFLINE else str(words)
        asked = [explain.ask(chats[simulator], score(text, one), shown=False) for score in method.scorers.values()]
        asked += [scores.embedding(chats["embed"], str(words), one)] if chats["embed"] else []
        used = [used[0] + sum(part.used for part in asked), used[1] + sum(part.unusable for part in asked)]
        made: dict[str, Any] = {name: score for part in asked for name, score in part.scores.items()}
        found[i] = [made[name].value if name in made else np.nan for name in COLUMNS]
    return {"scores": found, "unusable": used[1] / max(sum(used), 1)}


def study(cfg: ExplainScaling, seed: int, chats: dict[str, Any], begin: Any) -> dict[str, Any]:
    """`"subject | explainer | simulator"` -> scores `[unit score]`; units of the same number are of one subject."""
    found: dict[str, Any] = {}
    for subject in cfg.subjects:
        begin(f"{Path(subject).name}: features")
        of = read(subject, cfg.text, cfg.n_tokens, cfg.n_positions, seed)
        layer = of.model.config.n_layers // 2
        name = f"dictionary {layer}"
        where = {name: trained(cfg.training, activations(of, (layer,))[layer], seed)}
        units = list(drawn(record(of, where)[name], of.strings, cfg.n_units, cfg.least, seed).values())
        said: dict[str, Any] = {}
        for explainer, simulator in pairs(cfg):
            begin(f"{Path(subject).name}: {explainer} and {simulator}")
            whole = explainer == simulator == OFFLINE
            shown = units if whole else [few(one, cfg.n_shown) for one in units]
            if explainer not in said:
                full = units if explainer == OFFLINE else shown
                said[explainer] = explained(cfg, explainer, chats[explainer], full)
            key = " | ".join(Path(part).name for part in (subject, explainer, simulator))
            found[key] = scored(cfg, simulator, chats, said[explainer], shown)
            found[key]["words"] = [str(text) for text in said[explainer]]
    return found


def agreement(found: list[dict]) -> dict[str, tuple[float, int]]:
    """Spearman's correlation of the cheaper scores with simulation, over all explanations, and of how many."""
    every = np.concatenate([one["scores"] for seed in found for one in seed.values()])
    told = {}
    for i, name in enumerate(COLUMNS[1:], 1):
        kept = every[np.isfinite(every[:, [0, i]]).all(1)]
        if len(kept) > 2:
            told[name] = runs.rank_correlation(kept[:, 0], kept[:, i]), len(kept)
    return told


def draw(found: list[dict]) -> go.Figure:
    figure = go.Figure()
    for key in found[0]:
        every = np.concatenate([seed[key]["scores"] for seed in found])
        figure.add_scatter(x=every[:, 0], y=every[:, 1], mode="markers", name=f"detection: {key}")
        figure.add_scatter(x=every[:, 0], y=every[:, 2], mode="markers", marker_symbol="x", name=f"fuzzing: {key}")
    title = "Every explanation: the cheaper scores beside simulation"
    return figure.update_layout(
        title=title, xaxis_title="simulation", yaxis_title="balanced accuracy", legend_orientation="h", height=700
    )


def main(cfg: ExplainScaling) -> list[dict]:
    """What `study` finds of every seed."""
    if not pairs(cfg):
        raise SystemExit(f"--explainers, --simulators: no two go together; {OFFLINE} simulates {OFFLINE} alone")
    chats = {name: chat_of(cfg, name) for name in {*cfg.explainers, *cfg.simulators}} | {"embed": embedder_of(cfg)}
    found: list[dict] = []
    steps = len(cfg.subjects) * (1 + len(pairs(cfg)))
    with runs.Progress("explain_scaling", steps * len(cfg.seeds)) as progress:
        for seed in cfg.seeds:
            found.append(study(cfg, seed, chats, lambda step, seed=seed: progress.begin(f"{seed}: {step}")))
            runs.write("explain_scaling", cfg, {"found": found})
    rows, columns = [], COLUMNS if cfg.embedder else SCORES
    for key in found[0]:
        each = [seed[key]["scores"] for seed in found]
        none = sum(text == "None" for seed in found for text in seed[key]["words"])
        row = {"subject | explainer | simulator": key, "units": str(sum(map(len, each))), "unexplained": str(none)}
        row |= {"unusable": f"{np.mean([seed[key]['unusable'] for seed in found]):.0%}"}
        rows.append(row | {name: runs.cell([mean(x[:, i]) for x in each]) for i, name in enumerate(columns)})
    told = ", ".join(f"{name} {rho:.2f} (of {n})" for name, (rho, n) in agreement(found).items())
    used = [f"{name}: {chat.usage}" for name, chat in chats.items() if isinstance(chat, Endpoint)]
    about = f"Mean scores of features of a dictionary at the middle layer, ± spread over seeds {list(cfg.seeds)}."
    agree = f"Spearman's correlation with simulation, over all explanations: {told}."
    runs.finish("explain_scaling", cfg, {"found": found}, draw(found), about, runs.table(rows), agree, *used)
    return found


if __name__ == "__main__":
    main(config.load(ExplainScaling, "configs/explain_scaling.toml"))
