"""What does an induction circuit look like where its answer is known: in two layers of attention, trained here?

The model reads words of which some are said again, so that what stood after a word stands after it again. Elhage et al.
2021, "A mathematical framework for transformer circuits", and Olsson et al. 2022 (https://arxiv.org/abs/2209.11895)
say how it does this: heads of layer 0 look at the token before; heads of layer 1 look for it by their keys
(K-composition), and copy what they find. This is checked by where heads look, by weights, by patching paths into
queries, keys and values, by ablation, and by a circuit of edges. In a twin two words have changed places, so that what
stood after the last word stands after another one.

    python experiments/induction.py [--seeds 0 1 2] [--out DIR]

Two minutes on two cores. It prints every score of every head, and what of the theory holds, mean and spread over seeds,
each of another model and other words.
"""

from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

from induction_model import Training, sequences, trained, twins
import jax
import jax.numpy as jnp
import numpy as np
from plotly.colors import qualitative
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

import interp_jax as ij
from interp_jax import circuits, config, heads, metrics, models, patching, weights
from interp_jax.interventions import at, mean_ablate

HEADS, PATTERN = "blocks.attn.z", "blocks.attn.pattern"


@dataclass(frozen=True)
class Induction:
    seeds: tuple[int, ...]  # of the model and of its sequences
    n: int  # sequences, and pairs, that the heads are judged on
    enough: float  # share of the answer's logit difference that the circuit of edges must carry
    out: Path
    training: Training


def study(cfg: Induction, seed: int) -> dict[str, np.ndarray]:
    """Each score of each head `[layer head]`, paths into layer 1, and the circuit."""
    model, losses = trained(cfg.training, seed)
    of_text, of_pairs = jax.random.split(jax.random.key(10_000 + seed))
    tokens, told = sequences(cfg.training, of_text, cfg.n)
    logits, acts = ij.capture(models.forward, [HEADS, PATTERN])(model, tokens)
    pattern, half = acts[PATTERN], tokens.shape[1] // 2

    def accuracy(logits: jax.Array) -> jax.Array:
        return jnp.mean(logits[:, :-1].argmax(-1) == tokens[:, 1:], where=told)

    def lost(layer: jax.Array, head: jax.Array) -> jax.Array:
        edit = at(mean_ablate(acts[HEADS].mean((1, 2), keepdims=True)), layer=layer, head=head)
        return accuracy(logits) - accuracy(ij.intervene(models.forward, {HEADS: edit})(model, tokens))

    w = weights.centre_unembed(weights.fold_norms(models.weights(model)))
    writes = jnp.einsum("vm,lhmn,nu->lhvu", w["W_E"], weights.ov_circuits(w), w["W_U"])
    found = {
        "previous": heads.previous_token_scores(pattern[..., :half, :half], tokens[:, :half]),  # what may be asked for
        "induction": heads.induction_scores(pattern, tokens),
        "copying": (writes.argmax(-1) == jnp.arange(model.config.d_vocab)).mean(-1),
        "ablation": jax.vmap(jax.vmap(lost, (None, 0)), (0, None))(*map(jnp.arange, acts[HEADS].shape[:4:3])),
    }
    clean, corrupted, answers, distractors = twins(cfg.training, of_pairs, cfg.n)
    f = partial(models.forward, logits_at=jnp.full(cfg.n, clean.shape[1] - 1))
    difference = metrics.logit_diff(answers, distractors)
    metric = metrics.normalized(difference, *(difference(f(model, x)).mean() for x in (clean, corrupted)))
    for kind in "qkv":
        to = [f"{kind} 1.{head}" for head in range(model.config.n_heads)]
        found[f"to {kind}"] = patching.path_patch(f, metric, HEADS, to)(model, clean, corrupted)
    composition = weights.composition_scores(w, "K")[0, :, 1].mean(-1)
    found["composition"] = jnp.stack([composition, jnp.zeros_like(composition)])
    edges = patching.edge_attribution(f, metric, steps=5)(model, clean, corrupted)
    nested = circuits.EdgeCircuit.top(jax.tree.map(jnp.abs, edges), jnp.arange(61))
    share = circuits.faithfulness(f, metric)(model, clean, corrupted, nested).share
    return jax.tree.map(np.asarray, found | {"accuracy": accuracy(logits), "loss": losses, "share": share})


def correlations(x: np.ndarray, y: np.ndarray) -> list[float]:
    """Pearson's correlation over heads, by seed."""
    return [float(np.corrcoef(*pair)[0, 1]) for pair in zip(x, y, strict=True)]


def table_of_heads(cfg: Induction, found: dict[str, np.ndarray]) -> str:
    """A row for each head of each seed's model."""
    scores = {name: values for name, values in found.items() if values.ndim == 3}  # [seed layer head]
    return runs.table(
        [
            {"seed": cfg.seeds[i], "head": f"{layer}.{head}"}
            | {name: f"{values[i, layer, head]:z.2f}" for name, values in scores.items()}
            for i, layer, head in np.ndindex(found["previous"].shape)
        ]
    )


def table_of_claims(cfg: Induction, found: dict[str, np.ndarray]) -> str:
    """What the theory says, in numbers: by seed, and mean and spread."""
    looks_back, into_keys = found["previous"][:, 0], found["to k"][:, 0]  # [seed head], of layer 0
    claims = {
        "the best previous-token head of layer 0": looks_back.max(1),
        "the mean induction score of layer 1": found["induction"][:, 1].mean(1),
        "paths of layer 0 into keys of layer 1": into_keys.sum(1),
        "into queries": found["to q"][:, 0].sum(1),
        "into values": found["to v"][:, 0].sum(1),
        "correlation of looking back with K-composition": correlations(looks_back, found["composition"][:, 0]),
        "correlation of looking back with paths into keys": correlations(looks_back, into_keys),
        f"edges until a circuit carries {cfg.enough}": (found["share"] >= cfg.enough).argmax(1),
    }
    rows = []
    for claim, values in claims.items():
        by_seed = {f"seed {seed}": f"{value:z.2f}" for seed, value in zip(cfg.seeds, values, strict=True)}
        rows.append({"what holds": claim} | by_seed | {"mean": runs.cell(values)})
    return runs.table(rows)


def draw(cfg: Induction, found: dict[str, np.ndarray]) -> go.Figure:
    """How each model learned, which heads tell the keys, and how many edges it takes; a colour for each seed."""
    figure = make_subplots(1, 3, subplot_titles=["loss", "paths of a head of layer 0 into keys", "share of the answer"])
    for i, (seed, colour) in enumerate(zip(cfg.seeds, cycle(qualitative.Plotly))):
        look = {"marker_color": colour, "legendgroup": f"{seed}", "row": 1}
        figure.add_scatter(y=found["loss"][i], name=f"seed {seed}", **look, col=1)
        looks_back, into_keys = found["previous"][i, 0], found["to k"][i, 0]
        figure.add_scatter(x=looks_back, y=into_keys, mode="markers", showlegend=False, **look, col=2)
        figure.add_scatter(y=found["share"][i], mode="lines", showlegend=False, **look, col=3)
    figure.update_yaxes(type="log", col=1)
    for column, title in enumerate(("training step", "how much it looks at the token before", "edges"), start=1):
        figure.update_xaxes(title=title, col=column)
    return figure


def main(cfg: Induction) -> dict[str, np.ndarray]:
    """Every score, each with the seed as its first axis."""

    def one(seed: int, begin) -> dict[str, np.ndarray]:
        begin("trained and studied")
        return study(cfg, seed)

    found = runs.each(cfg.seeds, 1, "induction, seed", one, partial(runs.write, "induction", cfg))
    told = ", ".join(f"{share:.1%}" for share in found["accuracy"])
    about = f"2 layers of attention, seeds {list(cfg.seeds)}; the word that followed before is predicted in {told}"
    text = about, table_of_heads(cfg, found), table_of_claims(cfg, found)
    runs.finish("induction", cfg, found, draw(cfg, found), *text)
    return found


if __name__ == "__main__":
    main(config.load(Induction, "configs/induction.toml"))
