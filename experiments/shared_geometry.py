"""Do the embeddings of two models have one geometry, and does a steering vector of the one steer the other?

Lee et al. 2025, "Shared global and local geometry of language model embeddings" (https://arxiv.org/abs/2503.21073):
tokens lie in similar directions from one another (Pearson of pairwise cosines), are made of their neighbours by
similar weights (locally linear embedding), and have similar intrinsic dimensions; so a linear map fitted on the shared
words carries steering vectors to a model of another width. Here a difference of means found in `--model` is carried to
`--other` and compared with the one found there, with what a map of words in another order makes of it, with a random
one, and with itself, only cut or filled up to the width.

    python experiments/shared_geometry.py [--model SmolLM2.gguf --other gemma-3-270m.gguf] [--out DIR]

One minute on two cores. It prints the geometry beside what chance gives (tokens in another order), and by how much the
log odds of the wanted words rise by each vector, all of one length; mean and spread over seeds.
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
from shared_geometry_steering import Behaviour, Side, of_english, of_microworld

from interp_jax import config, geometry, models

VECTORS = ("carried", "its own", "by a mixed map", "random", "not carried")


COLOURS = ("#0f6fb8", "#d97706", "#7c3aed", "#888888", "#16a34a")
Maps = tuple[geometry.LinearMap, geometry.LinearMap]  # of shared words, and of words in another order


@dataclass(frozen=True)
class Shared:
    model: str
    other: str
    n_words: int  # shared words whose geometry is looked at
    n_fitted: int  # shared words that the map is fitted on
    k: int  # neighbours of locally linear embedding
    k_dimension: int  # neighbours whose dimensions are counted
    n_chosen: int  # words whose dimensions are counted
    depth: float  # of the layer that is read and steered, as a share of the layers
    n_texts: int
    strengths: tuple[float, ...]  # lengths of vectors, as a share of that of the residual stream
    seeds: tuple[int, ...]
    out: Path


def compare(cfg: Shared, a: jax.Array, b: jax.Array, order: np.ndarray) -> dict[str, np.ndarray]:
    """The geometry of the same words in two spaces, each number beside that of words in another order."""
    near, near_too = (geometry.nearest_neighbours(x, cfg.k) for x in (a, b))
    weights, own = geometry.lle_weights(a, near), geometry.lle_weights(b, near_too)
    same, mixed = geometry.lle_weights(b, near), geometry.lle_weights(b[order], near)
    chosen = jnp.arange(min(cfg.n_chosen, len(a)))
    around = (geometry.nearest_neighbours(x, cfg.k_dimension, of=chosen) for x in (a, b))
    sizes = [np.asarray(geometry.intrinsic_dimension(x, n)) for x, n in zip((a, b), around, strict=True)]

    def similar(*other: jax.Array) -> jax.Array:
        return geometry.lle_similarity(near, weights, *other).mean()

    found = {
        "relative orientation": (geometry.relative_orientation(a, b), geometry.relative_orientation(a, b[order])),
        "cosine of LLE weights, own neighbours": (similar(near_too, own), similar(near_too[order], own[order])),
        "cosine of LLE weights, same neighbours": (similar(near, same), similar(near, mixed)),
        "intrinsic dimension": (sizes[0].mean(), np.nan),
        "intrinsic dimension in the other": (sizes[1].mean(), np.nan),
        "rank correlation of intrinsic dimensions": (runs.rank_correlation(*sizes), np.nan),
    }
    return {name: np.array(pair, np.float32) for name, pair in found.items()}


def explained(a: jax.Array, b: jax.Array, order: np.ndarray) -> np.ndarray:
    """The variance that a map explains on a fifth of the words, which is left out; and with words in another order."""
    held = len(a) // 5
    return np.array(
        [geometry.least_squares_map(a[held:], x[held:]).score(a[:held], x[:held]) for x in (b, b[order])], np.float32
    )


def steer(cfg: Shared, source: Side, target: Side, maps: Maps, behaviour: Behaviour, seed: int) -> dict:
    """Log odds `[vector strength prompt]` in the target, and the cosine of each vector with its own."""
    found, own = (side.state_after(behaviour.more) - side.state_after(behaviour.less) for side in (source, target))
    width, length = len(found), len(own)
    cut = jnp.pad(found, (0, max(0, length - width)))[:length]
    random = jax.random.normal(jax.random.key(seed), own.shape)
    vectors = jnp.stack([maps[0](found), own, maps[1](found), random, cut])
    directions = vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return {
        "log odds": target.steered(behaviour, directions, cfg.strengths),
        "cosine with its own": np.asarray(directions @ directions[1]),
    }


def table_of_geometry(found: dict[str, dict[str, np.ndarray]]) -> str:
    """A row for each number; a pair of columns for each space."""
    rows = []
    for name in next(iter(found.values())):
        row = {"shared geometry": name}
        for space, of in found.items():
            values, chance = of[name].T  # [seed]
            row |= {space: runs.cell(values), f"{space} by chance": "" if np.isnan(chance).all() else runs.cell(chance)}
        rows.append(row)
    return runs.table(rows)


def table_of_steering(cfg: Shared, found: dict[str, dict[str, np.ndarray]]) -> str:
    """By how much the log odds rise, for each behaviour and vector; and how many prompts then say the wanted word."""
    rows = []
    for name, of in found.items():
        odds = of["log odds"]  # [seed vector strength prompt]
        turned = (odds > 0).mean(-1)
        rows.append({"behaviour": name, "vector": "none", "wanted": runs.cell(turned[:, 0, 0])})
        for i, vector in enumerate(VECTORS):
            rise = {f"{s}": runs.cell((odds[:, i, j] - odds[:, i, 0]).mean(-1)) for j, s in enumerate(cfg.strengths, 1)}
            cosine = {"cosine": runs.cell(of["cosine with its own"][:, i]), "wanted": runs.cell(turned[:, i, -1])}
            rows.append({"behaviour": name, "vector": vector} | rise | cosine)
    return runs.table(rows)


def story(cfg: Shared, found: dict[str, dict[str, np.ndarray]]) -> str:
    """How much of its own vector's effect the carried one has, at the middle length, and the best of the others."""
    middle, told = 1 + len(cfg.strengths) // 2, []
    for name, of in found.items():
        rise = dict(zip(VECTORS, (of["log odds"][:, :, middle] - of["log odds"][:, :, 0]).mean((0, 2)), strict=True))
        carried, own, *others = rise.values()
        best = max(others)
        told.append(
            f"{name}: the carried vector does {carried / own:.0%} of what its own does, the others {best / own:.0%} at "
            "most"
        )
    return "; ".join(told) + "."


def draw(cfg: Shared, found: dict[str, dict[str, np.ndarray]]) -> go.Figure:
    figure = make_subplots(1, len(found), subplot_titles=list(found))
    for column, of in enumerate(found.values(), start=1):
        odds = of["log odds"].mean(-1)
        for i, vector in enumerate(VECTORS):
            look = {"line_color": COLOURS[i], "row": 1, "col": column}
            runs.curve(figure, odds[:, i], (0.0, *cfg.strengths), name=vector, showlegend=column == 1, **look)
    figure.update_xaxes(title="length of the vector / of the residual stream")
    return figure.update_layout(title=f"{Path(cfg.model).name} to {Path(cfg.other).name}", yaxis_title="log odds")


def main(cfg: Shared) -> dict[str, dict]:
    """The geometry of each space, and steering by behaviour; the seed is the first axis."""
    source, target = (Side.load(name, cfg.depth) for name in (cfg.model, cfg.other))
    ids, other_ids = geometry.shared_words(source.words(), target.words())
    here, there = models.weights(source.model), models.weights(target.model)
    spaces = {"unembedding": (here["W_U"].T, there["W_U"].T)}
    if not (source.model.config.tie_embeddings and target.model.config.tie_embeddings):
        spaces["embedding"] = here["W_E"], there["W_E"]
    behaviours = of_microworld if cfg.model.startswith("microworld") else of_english

    def study(seed: int, begin) -> dict[str, dict]:
        drawn = np.random.default_rng(seed).permutation(len(ids))
        some, many = drawn[: cfg.n_words], drawn[: cfg.n_fitted]
        order, order_too = (np.random.default_rng(1_000 + seed).permutation(len(part)) for part in (some, many))
        begin("geometry")
        found = {}
        for name, (a, b) in spaces.items():
            found[name] = compare(cfg, a[ids[some]], b[other_ids[some]], order)
            found[name]["held-out variance explained by the map"] = explained(
                a[ids[many]], b[other_ids[many]], order_too
            )
        a, b = spaces["unembedding"]
        a, b = a[ids[many]], b[other_ids[many]]
        maps = geometry.least_squares_map(a, b), geometry.least_squares_map(a, b[order_too])
        begin("steering")
        effects = {of.name: steer(cfg, source, target, maps, of, seed) for of in behaviours(seed, cfg.n_texts)}
        return {"geometry": found, "steering": effects}

    found = runs.each(cfg.seeds, 2, "geometry, seed", study, partial(runs.write, "shared_geometry", cfg))
    names = " and ".join(Path(name).name for name in (cfg.model, cfg.other))
    n_words, n_fitted = (min(n, len(ids)) for n in (cfg.n_words, cfg.n_fitted))
    about = (
        f"{names} share {len(ids):,} words: geometry of {n_words:,}, the map fitted on {n_fitted:,}; seeds "
        f"{list(cfg.seeds)}, mean ± spread"
    )
    steering = (
        f"Vectors of layer {source.layer} added at layer {target.layer} of the other: how much the log odds of the "
        f"wanted words rise by their length, and the share of prompts that want them at the longest:"
    )
    effects = found["steering"]
    text = about, table_of_geometry(found["geometry"]), steering, table_of_steering(cfg, effects), story(cfg, effects)
    runs.finish("shared_geometry", cfg, found, draw(cfg, effects), *text)
    return found


if __name__ == "__main__":
    main(config.load(Shared, "configs/shared_geometry.toml"))
