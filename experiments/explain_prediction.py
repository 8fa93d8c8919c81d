"""Is one prediction explained by what an explanation in words names? Each is checked by taking that away.

An explanation names words of the prompt, a passage that was retrieved, the answer of an earlier prompt of a chain, or a
thought before the answer. What is named is taken away, replaced or spoilt, and the answer should move, and further than
by as much of the rest. Explanations are planted that name what decides the answer, and such that name what does not:
the table tells how well the check tells the two apart (AUC).

    python experiments/explain_prediction.py [--model smollm2.gguf] [--base-url URL] [--out DIR]

A minute on two cores, eight with SmolLM2-135M. On the microworld reasons are known by construction. Of another model
the model's own explanations are checked beside the planted ones: the word that it says decided, its chains and trees of
thought, the passages that it was given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import random
from typing import Any

import local_chat
import numpy as np
import plotly.graph_objects as go
import prediction_real
import prediction_world
import runs
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from interp_jax import config, models


@dataclass(frozen=True)
class Explain:
    model: str
    kinds: tuple[str, ...]  # of explanations
    n: int  # predictions of each kind
    n_tokens: int  # of an answer
    seeds: tuple[int, ...]
    out: Path
    base_url: str = ""  # of an endpoint that has the model


def auc(faithful: Any, unfaithful: Any) -> float:
    """How often a faithful explanation scores higher than an unfaithful one."""
    labels = np.r_[np.ones(len(faithful)), np.zeros(len(unfaithful))]
    return float(roc_auc_score(labels, np.r_[faithful, unfaithful]))


def interval(faithful: np.ndarray, unfaithful: np.ndarray) -> tuple[float, float]:
    """Of the AUC, 95 % over predictions."""
    options = {"vectorized": False, "method": "percentile", "n_resamples": 500, "rng": 0}
    found = bootstrap((faithful, unfaithful), auc, **options).confidence_interval
    return float(found.low), float(found.high)


def study(cfg: Explain, makers: dict[str, Callable], subject: Any, seed: int, begin: Callable[[str], None]) -> dict:
    """By kind of explanation: scores of faithful and unfaithful ones, how well they are told apart, and what beside."""
    found: dict[str, Any] = {}
    for kind in cfg.kinds:
        begin(kind)
        told = makers[kind](subject, random.Random(f"{kind} {seed}"), cfg.n)
        faithful, unfaithful = np.array(told.faithful), np.array(told.unfaithful)
        found[kind] = {
            "faithful": faithful.mean(),
            "unfaithful": unfaithful.mean(),
            "AUC": auc(faithful, unfaithful),
            "interval": np.array(interval(faithful, unfaithful)),
            "beside": told.beside,
        }
    return found


def draw(found: dict) -> go.Figure:
    """How well the check tells planted explanations apart, by kind."""
    values = np.stack([told["AUC"] for told in found.values()], axis=1)
    figure = go.Figure(layout={"title": "Faithful explanations of predictions told from unfaithful ones"})
    figure.add_bar(x=list(found), y=values.mean(0), error_y={"array": runs.spread(values)})
    figure.add_hline(y=0.5, line_dash="dot", annotation_text="by chance")
    return figure.update_yaxes(title="AUC", range=[0, 1.05]).update_xaxes(title="what an explanation names")


def main(cfg: Explain) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    if cfg.model.startswith("microworld") and not cfg.base_url:
        makers, subject = prediction_world.KINDS, models.load(cfg.model, dtype="float32")[0]
    else:
        makers, subject = prediction_real.KINDS, local_chat.speaker(cfg.model, cfg.base_url, cfg.n_tokens)
    if unknown := set(cfg.kinds) - set(makers):
        raise SystemExit(f"kinds: no {sorted(unknown)} for {cfg.model}; there are {', '.join(makers)}")
    found = runs.each(
        cfg.seeds,
        len(cfg.kinds),
        "explanations",
        lambda seed, begin: study(cfg, makers, subject, seed, begin),
        lambda found: runs.write("explain_prediction", cfg, found),
    )
    table = [
        {"explanations by": kind}
        | {name: runs.cell(told[name]) for name in ("faithful", "unfaithful", "AUC")}
        | {f"interval, seed {cfg.seeds[0]}": "[{:.2f}, {:.2f}]".format(*told["interval"][0])}
        for kind, told in found.items()
    ]
    beside = [
        {"beside": f"{kind}, {name}", "": runs.cell(values)}
        for kind, told in found.items()
        for name, values in told["beside"].items()
    ]
    about = (
        f"{cfg.model}: scores of planted explanations that name what decides an answer and of such that do not, in "
        "nats for words and passages, in shares of changes for chains and thoughts; how well they are told apart. "
        f"Mean ± spread over seeds {list(cfg.seeds)}, {cfg.n} predictions of each kind."
    )
    runs.finish("explain_prediction", cfg, found, draw(found), about, runs.table(table), runs.table(beside))
    return found


if __name__ == "__main__":
    main(config.load(Explain, "configs/explain_prediction.toml"))
