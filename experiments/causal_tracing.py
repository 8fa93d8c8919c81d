"""Where does a model keep a fact: which of its states bring an answer back when its subject is drowned in noise?

The method is ROME's causal tracing (Meng et al. 2022, https://arxiv.org/abs/2202.05262, figures 1 and 2). Three runs
are compared. In the clean one the model answers `the capital of France is`. In the corrupted one the embeddings of the
subject get noise, and the answer is lost. In the restored one they get the same noise, but one state, at one layer and
position, is put back as it was in the clean run: what brings the answer back has held it. Outputs of attention and of
MLPs are restored over a window of layers, since each of them adds only a little.

    python experiments/causal_tracing.py [--model gpt2] [--out DIR]

A minute on two cores. It prints, by layer, at the subject and at the last word, the share of the answer's
probability that the noise takes and a state brings back, and where the one hands over to the other.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

from interp_jax import config, data, metrics, models, patching

SITES = {"state": "blocks.resid_post", "attention": "blocks.attn_out", "MLP": "blocks.mlp_out"}
PLACES = {"subject": "#d97706", "last word": "#0f6fb8"}  # and the colours of their curves


@dataclass(frozen=True)
class Trace:
    model: str
    relation: str
    phrasing: int
    n: int  # prompts
    n_samples: int  # draws of noise
    noise: float  # in deviations of the embeddings
    window: int  # layers of attention or MLP outputs that are restored together
    seeds: tuple[int, ...]
    out: Path


def curves(cfg: Trace, model, tokenizer, seed: int, begin) -> dict[str, np.ndarray]:
    """By kind of state, the share that it brings back `[place layer]`; `ends`, the probability without and with noise.

    All prompts have one relation and one phrasing, so that a position is the same word's in every prompt.
    """
    task = data.tasks.facts(jax.random.key(seed), tokenizer, n=cfg.n, relation=cfg.relation, phrasing=cfg.phrasing)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    metric = metrics.prob(task.answers)

    subject, last = int(task.positions["subject"][0]), int(task.positions["end"][0])
    is_subject = jnp.zeros(task.clean.shape, bool).at[:, subject].set(True)
    deviation = cfg.noise * jnp.std(models.weights(model)["W_E"].astype(jnp.float32))

    found = {}
    for name, site in SITES.items():
        begin(name)
        window = 1 if name == "state" else cfg.window  # a state holds all that was written before it
        trace = patching.causal_trace(f, metric, site, n_samples=cfg.n_samples, window=window)
        seen = trace(jax.random.key(seed + 1000), is_subject, deviation, model, task.clean)
        shares = (seen.restored - seen.corrupted) / (seen.clean - seen.corrupted)  # [layer position]
        found[name] = np.stack([shares[:, subject], shares[:, last]])
        found["ends"] = np.array([seen.clean, seen.corrupted])
    return found


def table(found: dict[str, np.ndarray]) -> str:
    """A row for each kind of state and place, a column for each layer."""
    curves = {f"{name} at the {place}": found[name][:, i] for name in SITES for i, place in enumerate(PLACES)}
    return runs.layer_table("restored, at layer", curves)


def story(found: dict[str, np.ndarray]) -> str:
    """Where the subject hands over to the last word, and what attention and MLPs bring back at the subject."""
    at_subject, at_last = found["state"].mean(0)
    later = np.flatnonzero(at_last > at_subject)
    handover = later[0] if len(later) else len(at_last)
    most = {name: found[name].mean(0)[0].max() for name in SITES}
    return (
        f"Up to layer {handover - 1} it is the state at the subject that brings the answer back, from then on that at "
        "the last word: the early and the late site of Meng et al. At the subject, attention outputs bring back at "
        f"most {most['attention']:.2f} and MLP outputs {most['MLP']:.2f}; in GPT-2 XL it is the MLPs that do."
    )


def draw(found: dict[str, np.ndarray]) -> go.Figure:
    """A panel for each kind of state, a curve for each place."""
    figure = make_subplots(cols=len(SITES), subplot_titles=list(SITES), shared_yaxes=True)
    for column, name in enumerate(SITES, start=1):
        for i, (place, colour) in enumerate(PLACES.items()):
            look = {"name": f"at the {place}", "line_color": colour, "mode": "lines+markers"}
            runs.curve(figure, found[name][:, i], **look, showlegend=column == 1, row=1, col=column)
    figure.update_xaxes(title="layer")
    return figure.update_layout(title="Share of the answer's probability restored")


def main(cfg: Trace) -> dict[str, np.ndarray]:
    """Runs every seed, and gives what they found: arrays `[seed place layer]` by kind of state."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    keep = partial(runs.write, "causal_tracing", cfg)
    found = runs.each(cfg.seeds, len(SITES), "tracing, seed", partial(curves, cfg, model, tokenizer), keep)
    clean, corrupted = found["ends"].mean(0)
    about = (
        f"{cfg.model}: the answer's probability is {clean:.2f}, and {corrupted:.2f} with noise on the subject; "
        f"{cfg.n} prompts, seeds {list(cfg.seeds)}. Share of what was lost that comes back, mean ± spread over seeds:"
    )
    runs.finish("causal_tracing", cfg, found, draw(found), about, table(found), story(found))
    return found


if __name__ == "__main__":
    main(config.load(Trace, "configs/causal_tracing.toml"))
