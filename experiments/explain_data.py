"""What tells the classes of a data set apart, in words: a linear model and a tree whose features are explanations.

Explanations are proposed (by token statistics, or by a language model that sees a few examples), computed for each
text, and a sparse logistic regression takes few of them; beside it a shallow tree on the same features, a bag of all
words, the length and the commoner class. What is taken is then checked against a process that labels texts: where the
words that an explanation names are deleted, does it change its mind as told, and further than for other words?

    python experiments/explain_data.py [--data SST2-FOLDER] [--model smollm2.gguf] [--base-url URL] [--out DIR]

Seconds offline; eight minutes with SmolLM2-135M. Without `--data`, sentences of the microworld whose rule is planted: a
class says one of a few objects, and a place goes along with it in training, not in the held-out texts (a decoy): the
process is the rule, and the check is to tell the two apart. On SST-2 the process is a bag of words trained on other
reviews; with a language model, that model's own judgement.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import data_classes as classes
import data_explanations as explaining
import local_chat
import numpy as np
import plotly.graph_objects as go
import runs
from scipy.stats import bootstrap
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from interp_jax import config

OFFLINE = "statistics"
SHOWN = 12  # explanations in the table and the figure


@dataclass(frozen=True)
class Explain:
    model: str  # what proposes: token statistics, or a language model
    n_train: int  # texts
    n_test: int
    n_proposed: int
    n_features: int  # that the linear model may take
    least: int  # texts that a word stands in to be proposed
    depth: int  # of the tree
    n_shown: int  # texts of a class that a language model sees
    n_checked: int  # texts by which an explanation is checked
    n_rule: int  # objects of the planted rule
    together: float  # share of one class that has the decoy in training; of the other it has a tenth of that
    noise: float  # share of wrong labels in training
    n_tokens: int  # of an answer
    seeds: tuple[int, ...]
    out: Path
    data: Path | None = None  # the folder of SST-2; by default the microworld's sentences
    base_url: str = ""  # of an endpoint that has the model


def sparse(x: np.ndarray, y: np.ndarray, most: int) -> LogisticRegression:
    """The logistic regression with the weakest L1 penalty, of a path, that takes no more than so many features."""
    path = [LogisticRegression(l1_ratio=1.0, solver="liblinear", C=c).fit(x, y) for c in np.geomspace(1e-3, 10, 25)]
    return [one for one in path if (one.coef_ != 0).sum() <= most][-1]


def right(found: np.ndarray, true: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Accuracy and its interval, 95 % over texts."""
    hits = (np.asarray(found) == true).astype(float)
    if np.ptp(hits) == 0:
        return (float(hits.mean()),) * 3
    told = bootstrap((hits,), np.mean, method="percentile", rng=seed, n_resamples=1000)
    return float(hits.mean()), *map(float, told.confidence_interval)


def study(
    cfg: Explain, speaker: local_chat.Speaker | None, found: list, seed: int, begin: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """Of each model its accuracy, the interval and how many features it has; `found` gets what was checked."""
    begin("texts")
    source = classes.reviews(cfg, seed, speaker) if cfg.data else classes.planted(cfg, seed)
    train, test = source.train, source.test
    begin("proposals")
    if speaker is None:
        proposed = explaining.by_statistics(train.sentences, train.labels, cfg.n_proposed, cfg.least)
        compute = partial(explaining.present, proposed)
    else:
        rng = np.random.default_rng(seed)
        asking = train.sentences, train.labels, cfg.n_proposed, cfg.n_shown, rng
        proposed = explaining.by_asking(speaker.ask, *asking)
        compute = partial(explaining.asked, partial(local_chat.odds, speaker, yes="Yes", no="No"), proposed)
    begin("features")
    x, y = (compute(some.sentences) for some in (train, test))
    center, scale = (x.mean(0), x.std(0) + 1e-9) if speaker else (0.0, 1.0)  # a word is there or not
    x, y = (x - center) / scale, (y - center) / scale
    linear = sparse(x, train.labels, cfg.n_features)
    tree = DecisionTreeClassifier(max_depth=cfg.depth, random_state=seed).fit(x, train.labels)
    taken = np.flatnonzero(linear.coef_[0])
    lengths = [np.array([[len(text.split())] for text in some.sentences]) for some in (train, test)]
    words = classes.bag(train)
    told = {
        "explanations, linear": (linear.predict(y), len(taken)),
        "explanations, tree": (tree.predict(y), len(set(tree.tree_.feature[tree.tree_.feature >= 0].tolist()))),
        "bag of words": (words.predict(test.sentences), len(words[0].vocabulary_)),
        "length": (LogisticRegression().fit(lengths[0], train.labels).predict(lengths[1]), 1),
        "commoner class": (np.full(len(test), train.labels.mean() >= 0.5), 0),
        "the process itself": (source.process(test.sentences) > 0, 0),
    }
    rows, weights = [], linear.coef_[0]
    passed: list[int] = []
    for i in taken[np.argsort(-np.abs(weights[taken]))]:
        fires = np.flatnonzero(y[:, i] > 0)
        fires = fires[np.argsort(-y[fires, i], kind="stable")][: cfg.n_checked]
        if not len(fires):
            continue
        texts = [test.sentences[j] for j in fires]
        one = partial(lambda i, some: compute(some)[:, i], i)
        named = [proposed[i].words or explaining.decisive(one, text) for text in texts]
        check = explaining.checked(source.process, texts, named, weights[i], seed)
        passed += [i] * (check.low > 0)
        row = {"says": proposed[i].text, "kind": classes.kind(source, proposed[i]), "weight": float(weights[i])}
        rows.append(row | check._asdict())
    found.append(rows)
    begin("believed")
    if passed:
        few = LogisticRegression().fit(x[:, passed], train.labels).predict(y[:, passed])
        told["linear, of those that pass"] = few, len(passed)
    else:
        told["linear, of those that pass"] = told["commoner class"]
    return {name: np.array([*right(said, test.labels, seed), n]) for name, (said, n) in told.items()}


def passing(rows: list[list[dict]], of: str) -> str:
    """How many explanations of a kind passed the check, of how many, over all seeds."""
    some = [row["low"] > 0 for run in rows for row in run if row["kind"] == of]
    return f"{sum(some)} of {len(some)}"


def draw(rows: list[dict]) -> go.Figure:
    """How far the process moves as told, by explanation."""
    figure = go.Figure(layout={"title": "Words deleted: how far the process moves as the explanation tells"})
    for column, name in (("named", "those that are named"), ("others", "as many others")):
        figure.add_bar(x=[row["says"][:40] for row in rows], y=[row[column] for row in rows], name=name)
    return figure.update_yaxes(title="change of the process, towards what is told")


def main(cfg: Explain) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`, and `explanations`, all that was checked."""
    speaker = None if cfg.model == OFFLINE else local_chat.speaker(cfg.model, cfg.base_url, cfg.n_tokens)
    rows: list[list[dict[str, Any]]] = []
    found = runs.each(
        cfg.seeds,
        4,
        "explanations of data",
        partial(study, cfg, speaker, rows),
        lambda found: runs.write("explain_data", cfg, {"accuracy": found, "explanations": rows}),
    )
    table = [
        {
            "model": name,
            "accuracy": runs.cell(told[:, 0]),
            f"interval, seed {cfg.seeds[0]}": f"[{told[0, 1]:.2f}, {told[0, 2]:.2f}]",
            "features": f"{told[:, 3].mean():.0f}",
        }
        for name, told in found.items()
    ]
    columns = ("weight", "named", "others", "low", "high")
    checks = [
        {f"explanation, seed {cfg.seeds[0]}": row["says"][:60], "texts": row["n"]}
        | {column: f"{row[column]:+.2f}" for column in columns}
        | {"faithful": "yes" if row["low"] > 0 else "no"}
        for row in rows[0][:SHOWN]
    ]
    about = (
        f"{cfg.data or 'planted rule'}, explanations by {cfg.model}: accuracy on held-out texts, mean ± spread over "
        f"seeds {list(cfg.seeds)}, with its interval over texts. Below: how far the process moves as told when the "
        "words that an explanation names are deleted, and how far either way when others are; faithful where the "
        "interval of the difference is above 0."
    )
    kinds = [of for of in ("rule", "decoy") if any(row["kind"] == of for run in rows for row in run)]
    story = (
        "Faithful: " + "; ".join(f"{passing(rows, of)} of the {of}" for of in kinds) + "."
        if kinds
        else (f"Faithful: {passing(rows, 'neither')} explanations.")
    )
    parts = (about, runs.table(table), *([runs.table(checks)] if checks else []), story)
    told = {"accuracy": found, "explanations": rows}
    runs.finish("explain_data", cfg, told, draw(rows[0][:SHOWN]), *parts)
    return told


if __name__ == "__main__":
    main(config.load(Explain, "configs/explain_data.toml"))
