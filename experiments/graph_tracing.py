"""Does a model lay words out as the graph that a walk through them was on?

A text is a random walk on a graph whose nodes are words (Park et al. 2025, https://arxiv.org/abs/2501.00070). Of each
word the mean activation over the last tokens is taken, at several lengths of the context. Told of these means: their
Dirichlet energy on the graph, 1 where the nodes are laid on it at random; and how far their first two principal
components are the graph's spectral embedding, which has the lowest energy. Beside what a whole layer leaves, what its
attention writes. A reader who knows the graph and keeps of each word the mean of its next words is the dotted line: on
a ring of even length and on a grid its energy is above 1, since neighbours then have no next word in common.

    python experiments/graph_tracing.py [--graph grid] [--model path/to/model.gguf] [--n-walks 3 --out DIR]

Half a minute on two cores. It prints energy and agreement by layer and length, the mean and spread over seeds of words
and walks, beside energies of shuffled nodes, and draws the nodes of the first seed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs
from scipy.linalg import orthogonal_procrustes

from interp_jax import config, geometry, models
from interp_jax.data import graphs

SITES = {"stream": "blocks.resid_post", "attention": "blocks.attn_out"}
WORDS = (
    "apple bird milk sand sun plane opera box car house tree dog rock fish chair king door paper music river".split()
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


@dataclass(frozen=True)
class Trace:
    model: str
    graph: Literal["ring", "grid", "days"]  # days: a ring through the days of the week in another order
    side: int  # of the grid; the ring has as many nodes as it takes, less one
    n_walks: int
    lengths: tuple[int, ...]
    window: int
    n_shuffles: int
    seeds: tuple[int, ...]
    out: Path


def walk(cfg: Trace, tokenizer, seed: int) -> graphs.Walks:
    """Walks of one seed, with the words of the world, or ordinary words with a space before them."""
    key, own = jax.random.key(seed), cfg.model.startswith("microworld")
    adjacency = {
        "grid": graphs.grid(cfg.side, cfg.side),
        "ring": graphs.ring(cfg.side**2 - 1),
        "days": graphs.ring(len(DAYS)),
    }[cfg.graph]
    rng = np.random.default_rng(seed)
    words = None if own else rng.choice(WORDS, len(adjacency), replace=False)
    if cfg.graph == "days":
        words = np.roll(DAYS, seed)[3 * np.arange(7) % 7]  # neighbours are three days apart
    named = None if words is None else tuple(f" {word}" for word in words)
    length = max(cfg.lengths) - len(tokenizer.encode(""))
    return graphs.walks(key, tokenizer, cfg.n_walks, graph=adjacency, length=length, words=named)


def known(model, walks: graphs.Walks, lengths: tuple[int, ...]) -> np.ndarray:
    """The probability of the neighbours' words, over the last 20 tokens of each length `[length]`."""
    probs = jax.nn.softmax(models.forward(model, walks.tokens).astype(jnp.float32))[..., walks.ids]
    right = np.asarray((probs * walks.adjacency[walks.nodes]).sum(-1)).mean(0)
    return np.array([right[max(0, length - 20) : length].mean() for length in lengths])


def study(cfg: Trace, model, tokenizer, seed: int, begin) -> dict:
    """Of one seed: by site the energy, its shuffled mean and deviation, the agreement `[layer length]`, the nodes."""
    walks, found = walk(cfg, tokenizer, seed), {}
    for site, where in SITES.items():
        begin(site)
        read = geometry.context_representations(models.forward, where, cfg.lengths, window=cfg.window)
        H = read(model, walks.tokens, walks.ids)
        null = geometry.shuffled_energies(jax.random.key(seed), H, walks.adjacency, cfg.n_shuffles)
        found[site] = {
            "energy": np.asarray(geometry.dirichlet_energy(H, walks.adjacency)),
            "shuffled mean": np.asarray(null.mean(0)),
            "shuffled sd": np.asarray(null.std(0)),
            "agreement": np.asarray(geometry.spectral_agreement(H, walks.adjacency)),
            "scores": np.asarray(geometry.principal_components(H)[0][:, -1]),
        }
    begin("answers")
    next_words = walks.adjacency / walks.adjacency.sum(1, keepdims=True)
    return found | {
        "neighbours": known(model, walks, cfg.lengths),
        "reader": np.asarray(geometry.dirichlet_energy(next_words, walks.adjacency)),
        "adjacency": np.asarray(walks.adjacency),
        "words": np.array(walks.words),
    }


def table(cfg: Trace, found: dict) -> str:
    layers = range(found["stream"]["energy"].shape[1])
    rows = []
    for site in SITES:
        for layer in layers if len(layers) <= 8 else range(0, len(layers), 3):
            one = {name: found[site][name][:, layer] for name in ("energy", "agreement")}
            cells = {f"E {length}": runs.cell(one["energy"][:, t]) for t, length in enumerate(cfg.lengths)}
            plane = {f"plane {length}": runs.cell(one["agreement"][:, t]) for t, length in enumerate(cfg.lengths)}
            ends = {name: plane[name] for name in (f"plane {cfg.lengths[0]}", f"plane {cfg.lengths[-1]}")}
            rows.append({"site, layer": f"{site} {layer}"} | cells | ends)
    right = {f"E {length}": runs.cell(found["neighbours"][:, t]) for t, length in enumerate(cfg.lengths)}
    rows.append({"site, layer": "neighbours' probability"} | right)
    return runs.table(rows)


def clearest(found: dict, site: str) -> int:
    """The layer whose plane is nearest to the spectral embedding at the longest context."""
    return int(found[site]["agreement"][:, :, -1].mean(0).argmax())


def story(cfg: Trace, found: dict) -> str:
    n_nodes = found["adjacency"].shape[-1]
    parts = []
    for site in SITES:
        layer, one = clearest(found, site), found[site]
        energy, fell = one["energy"][:, layer], (one["energy"][:, layer, -1] < one["energy"][:, layer, 0]).sum()
        z = (energy[:, -1] - one["shuffled mean"][:, layer, -1]) / one["shuffled sd"][:, layer, -1]
        parts.append(
            f"{site}: clearest at layer {layer}, plane {runs.cell(one['agreement'][:, layer, -1])} (chance "
            f"{2 / (n_nodes - 1):.2f}), energy from {runs.cell(energy[:, 0])} to {runs.cell(energy[:, -1])} "
            f"(it fell in {fell} of {len(energy)} seeds; {runs.cell(z, 1)} deviations from shuffled nodes)"
        )
    right, last = found["neighbours"], found["stream"]["energy"][:, -1, -1]
    return (
        f"{cfg.model}, {cfg.graph}: neighbours' probability from {runs.cell(right[:, 0])} to {runs.cell(right[:, -1])} "
        f"between {cfg.lengths[0]} and {cfg.lengths[-1]} tokens. "
        + ". ".join(parts)
        + f". The last layer ends at energy "
        f"{runs.cell(last)}, where a reader that keeps next words alone has {found['reader'].mean():.2f}."
    )


def draw(cfg: Trace, found: dict) -> go.Figure:
    titles = [f"{site}: energy by context" for site in SITES] + [
        f"{site}, layer {clearest(found, site)}: nodes of seed {cfg.seeds[0]}" for site in SITES
    ]
    figure = make_subplots(2, 2, subplot_titles=titles, horizontal_spacing=0.08, vertical_spacing=0.12)
    for column, site in enumerate(SITES, start=1):
        energy = found[site]["energy"]
        for layer in range(energy.shape[1]):
            shade = f"rgb({40 + 200 * layer // max(1, energy.shape[1] - 1)}, 80, 160)"
            look = dict(name=f"layer {layer}", legendgroup=layer, showlegend=column == 1, line_color=shade)
            figure.add_scatter(x=cfg.lengths, y=energy[:, layer].mean(0), **look, row=1, col=column)
        figure.add_hline(y=1, line_dash="dash", annotation_text="shuffled nodes", row=1, col=column)
        figure.add_hline(
            y=float(found["reader"].mean()), line_dash="dot", annotation_text="next words", row=1, col=column
        )
        picture(figure, found, site, column)
    figure.update_xaxes(type="log", tickvals=cfg.lengths, title_text="tokens of context", row=1)
    figure.update_layout(title=f"Graph tracing, {cfg.model}, {cfg.graph}", height=950, width=1100)
    return figure


def picture(figure: go.Figure, found: dict, site: str, column: int) -> None:
    """The nodes by their first components, turned to the spectral embedding, with the graph's edges."""
    A, scores = found["adjacency"][0], found[site]["scores"][0, clearest(found, site)]
    turn, _ = orthogonal_procrustes(scores, np.asarray(geometry.spectral_embedding(A)[0]))
    x, y = (scores @ turn).T
    ends = np.argwhere(np.triu(A))
    lines = {
        "x": [v for i, j in ends for v in (x[i], x[j], None)],
        "y": [v for i, j in ends for v in (y[i], y[j], None)],
    }
    figure.add_scatter(**lines, mode="lines", line_color="lightgray", showlegend=False, row=2, col=column)
    look = dict(mode="markers+text", text=found["words"][0], textposition="top center", showlegend=False)
    figure.add_scatter(x=x, y=y, **look, row=2, col=column)


def main(cfg: Trace) -> dict:
    """By site energies, their shuffled means and deviations, and agreements `[seed layer length]`; and the answers."""
    model, tokenizer = models.load(cfg.model, dtype="float32", scan_layers=True)
    found = runs.each(
        cfg.seeds,
        3,
        "walks, seed",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("graph_tracing", cfg, found),
    )
    about = (
        f"{cfg.model}: {cfg.n_walks} walks a seed, window {cfg.window}, seeds {list(cfg.seeds)}. E: energy after so "
        "many tokens, 1 on average of shuffled nodes; plane: squared correlation with the spectral embedding"
    )
    runs.finish("graph_tracing", cfg, found, draw(cfg, found), about, table(cfg, found), story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Trace, "configs/graph_tracing.toml"))
