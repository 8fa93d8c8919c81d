"""Does a model lay words out as the graph that a walk through them was on?

A text is a random walk on a graph whose nodes are words (Park et al. 2025, https://arxiv.org/abs/2501.00070). Of each
word the mean activation over the last tokens is taken, at several lengths of the context. Told of these means: their
Dirichlet energy on the graph, 1 where the nodes are laid on it at random; and how far their first principal components
are the graph's spectral embedding, which has the lowest energy. Beside what a layer leaves, what its attention writes.

Two controls. On a walk neighbours stand near one another, so that the mean of the last few words would do; therefore
the same is asked "in any order": after the walk come its words in random orders, and the means are over these alone.
And a reader who keeps of each word the mean of its next words is the dotted line: its energy is below 1 where
neighbours share next words, as in two groups, and above 1 on a grid and a ring of even length, where they share none.

    python experiments/graph_tracing.py [--graph ring] [--model path/to/model.gguf] [--out DIR]

A minute on two cores. It prints energy and agreement by layer and length, mean and spread over seeds of the walks.
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

from interp_jax import config, geometry, models
from interp_jax.data import graphs

SITES = {
    "stream": "blocks.resid_post",
    "attention": "blocks.attn_out",
    "stream, any order": "blocks.resid_post",
    "attention, any order": "blocks.attn_out",
}
WORDS = (
    "apple bird milk sand sun plane opera box car house tree dog rock fish chair king door paper music river".split()
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
GROUPS = np.kron(np.eye(2), np.ones((4, 4))) - np.eye(
    8
)  # all of a group are neighbours, and one of each with the other
GROUPS[0, 4] = GROUPS[4, 0] = 1


@dataclass(frozen=True)
class Trace:
    model: str
    graph: Literal["groups", "ring", "grid", "days"]  # days: a ring through the days of the week in another order
    side: int  # of the grid; the ring has a node less
    n_walks: int
    lengths: tuple[int, ...]
    window: int  # the means are over so many last words of a walk
    n_orders: int  # random orders of all nodes after the walk
    n_shuffles: int
    seeds: tuple[int, ...]
    out: Path

    @property
    def n_components(self) -> int:
        """Of the spectral embedding: with two groups it is the first alone that tells them apart."""
        return 1 if self.graph == "groups" else 2


def walk(cfg: Trace, tokenizer, seed: int) -> graphs.Walks:
    """Walks of one seed, with the words of the world, or ordinary words with a space before them."""
    adjacency = {
        "groups": GROUPS,
        "grid": graphs.grid(cfg.side, cfg.side),
        "ring": graphs.ring(cfg.side**2 - 1),
        "days": graphs.ring(len(DAYS)),
    }[cfg.graph]
    words = None
    if cfg.graph == "days":
        words = np.roll(DAYS, seed)[3 * np.arange(7) % 7]  # neighbours are three days apart
    elif not cfg.model.startswith("microworld"):
        words = np.random.default_rng(seed).choice(WORDS, len(adjacency), replace=False)
    named = None if words is None else tuple(f" {word}" for word in words)
    length = max(cfg.lengths) - len(tokenizer.encode(""))
    return graphs.walks(jax.random.key(seed), tokenizer, cfg.n_walks, graph=adjacency, length=length, words=named)


def means(cfg: Trace, model, walks: graphs.Walks, where: str, seed: int, any_order: bool) -> jax.Array:
    """The nodes' means at a site after each length `[layer length node d]`, on the walk or in any order after it."""
    if not any_order:
        read = geometry.context_representations(models.forward, where, cfg.lengths, window=cfg.window)
        return read(model, walks.tokens, walks.ids)
    keys = jax.random.split(jax.random.key(seed), (cfg.n_walks, cfg.n_orders))
    orders = jax.vmap(jax.vmap(lambda key: jax.random.permutation(key, walks.ids)))(keys).reshape(cfg.n_walks, -1)
    n, texts = orders.shape[1], [jnp.concatenate([walks.tokens[:, :length], orders], axis=1) for length in cfg.lengths]
    reads = [geometry.context_representations(models.forward, where, (x.shape[1],), window=n) for x in texts]
    return jnp.concatenate([read(model, x, walks.ids) for read, x in zip(reads, texts, strict=True)], axis=1)


def study(cfg: Trace, model, tokenizer, seed: int, begin) -> dict:
    """Of one seed: by site the energy, its shuffled mean and deviation, the agreement `[layer length]`, the nodes."""
    walks, found = walk(cfg, tokenizer, seed), {}
    for site, where in SITES.items():
        begin(site)
        H = means(cfg, model, walks, where, seed, "any order" in site)
        null = geometry.shuffled_energies(jax.random.key(seed), H, walks.adjacency, cfg.n_shuffles)
        found[site] = {
            "energy": np.asarray(geometry.dirichlet_energy(H, walks.adjacency)),
            "shuffled mean": np.asarray(null.mean(0)),
            "shuffled sd": np.asarray(null.std(0)),
            "agreement": np.asarray(geometry.spectral_agreement(H, walks.adjacency, cfg.n_components)),
            "nodes": np.asarray(geometry.principal_components(H)[0][:, -1]),
        }
    begin("answers")
    probs = jax.nn.softmax(models.forward(model, walks.tokens).astype(jnp.float32))[..., walks.ids]
    right = np.asarray((probs * walks.adjacency[walks.nodes]).sum(-1)).mean(0)  # of the neighbours' words
    next_words = walks.adjacency / walks.adjacency.sum(1, keepdims=True)
    return found | {
        "neighbours": np.array([right[max(1, length - 20) : length].mean() for length in cfg.lengths]),
        "reader": np.asarray(geometry.dirichlet_energy(next_words, walks.adjacency)),
        "adjacency": np.asarray(walks.adjacency),
        "words": np.array(walks.words),
    }


def table(cfg: Trace, found: dict) -> str:
    n_layers, rows = found["stream"]["energy"].shape[1], []
    for site in SITES:
        for layer in range(0, n_layers, 1 if n_layers <= 8 else 3):
            energy, near = (found[site][name][:, layer] for name in ("energy", "agreement"))
            cells = {f"E {length}": runs.cell(energy[:, t]) for t, length in enumerate(cfg.lengths)}
            cells |= {f"R2 {cfg.lengths[t]}": runs.cell(near[:, t]) for t in (0, -1)}
            rows.append({"site, layer": f"{site} {layer}"} | cells)
    return runs.table(rows)


def clearest(found: dict, site: str) -> int:
    """The layer that is nearest to the spectral embedding at the longest context."""
    return int(found[site]["agreement"][:, :, -1].mean(0).argmax())


def story(cfg: Trace, found: dict) -> list[str]:
    """A paragraph on the answers and on each site."""
    right, chance = found["neighbours"], cfg.n_components / (found["adjacency"].shape[-1] - 1)
    lines = [
        f"Neighbours' probability: {runs.cell(right[:, 0])} after {cfg.lengths[0]} tokens, {runs.cell(right[:, -1])} "
        f"after {cfg.lengths[-1]}. A reader that keeps next words alone has energy {found['reader'].mean():.2f}."
    ]
    for site in SITES:
        for layer in sorted({clearest(found, site), found[site]["energy"].shape[1] - 1}):
            one = {name: values[:, layer] for name, values in found[site].items()}
            early, late = one["energy"][:, 0], one["energy"][:, -1]
            z = (late - one["shuffled mean"][:, -1]) / one["shuffled sd"][:, -1]
            lines.append(
                f"{site}, layer {layer}: energy {runs.cell(early)} -> {runs.cell(late)}, lower in "
                f"{(late < early).sum()} of {len(z)} seeds, {runs.cell(z, 1)} deviations from shuffled nodes; R2 "
                f"{runs.cell(one['agreement'][:, -1])} (chance {chance:.2f})"
            )
    return lines


def draw(cfg: Trace, found: dict) -> go.Figure:
    """Above energies by context, below the nodes of the first seed by their first two components, with edges."""
    titles = [f"{site}: energy" for site in SITES] + [f"{site}, layer {clearest(found, site)}" for site in SITES]
    figure = make_subplots(2, len(SITES), subplot_titles=titles, horizontal_spacing=0.05, vertical_spacing=0.12)
    for column, site in enumerate(SITES, start=1):
        energy, up, down = found[site]["energy"], dict(row=1, col=column), dict(row=2, col=column)
        for layer in range(energy.shape[1]):
            shade = f"rgb({40 + 200 * layer // max(1, energy.shape[1] - 1)}, 80, 160)"
            look = dict(name=f"layer {layer}", legendgroup=layer, showlegend=column == 1, line_color=shade)
            figure.add_scatter(x=cfg.lengths, y=energy[:, layer].mean(0), **look, **up)
        figure.add_hline(y=1, line_dash="dash", annotation_text="shuffled nodes", **up)
        figure.add_hline(y=float(found["reader"].mean()), line_dash="dot", annotation_text="next words", **up)
        nodes = found[site]["nodes"][0, clearest(found, site)]
        for i, j in np.argwhere(np.triu(found["adjacency"][0])):
            figure.add_scatter(x=nodes[[i, j], 0], y=nodes[[i, j], 1], line_color="lightgray", showlegend=False, **down)
        look = dict(mode="markers+text", text=found["words"][0], textposition="top center", showlegend=False)
        figure.add_scatter(x=nodes[:, 0], y=nodes[:, 1], **look, **down)
    figure.update_xaxes(type="log", tickvals=cfg.lengths, title_text="tokens of context", row=1)
    return figure.update_layout(title=f"Graph tracing, {Path(cfg.model).stem}, {cfg.graph}", height=850, width=1900)


def main(cfg: Trace) -> dict:
    """By site energies, their shuffled means and deviations, and agreements `[seed layer length]`; and the answers."""
    model, tokenizer = models.load(cfg.model, dtype="float32", scan_layers=True)
    found = runs.each(
        cfg.seeds,
        len(SITES) + 1,
        "walks, seed",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("graph_tracing", cfg, found),
    )
    about = (
        f"{cfg.model}, {cfg.graph}: {cfg.n_walks} walks a seed, window {cfg.window}, seeds {list(cfg.seeds)}. E: "
        "energy after so many tokens, 1 of shuffled nodes; R2: squared correlation with the spectral embedding"
    )
    runs.finish("graph_tracing", cfg, found, draw(cfg, found), about, table(cfg, found), *story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Trace, "configs/graph_tracing.toml"))
