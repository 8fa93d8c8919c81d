"""Induction in a two-layer attention-only model, trained here on repeated words: a circuit whose answer is known.

`python experiments/induction.py [--seeds 0 1 2] [--out DIR]`. Elhage et al. 2021, "A mathematical framework"; Olsson et
al. 2022, https://arxiv.org/abs/2209.11895: heads of layer 0 look at the token before; heads of layer 1 look for it by
their keys (K-composition) and copy what they find. Checked by where heads look, by weights, by patching paths into
queries, keys and values, by ablation, and by a circuit of edges. In a twin two words have changed places, so that what
stood after the last word stands after another one. Spread over seeds, each of another model and other words.
"""

from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
import json
from pathlib import Path

from induction_model import Training, sequences, trained, twins
import jax
import jax.numpy as jnp
import numpy as np
from plotly.colors import qualitative
from plotly.subplots import make_subplots

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


def agreement(x: np.ndarray, y: np.ndarray) -> list[float]:
    """Pearson's correlation over heads, by seed."""
    return [float(np.corrcoef(*pair)[0, 1]) for pair in zip(x, y, strict=True)]


def main(cfg: Induction) -> dict[str, np.ndarray]:
    runs = [study(cfg, seed) for seed in cfg.seeds]
    found = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    columns = [name for name, values in found.items() if values.ndim == 3]
    print(f"2 layers of attention, seeds {list(cfg.seeds)}; the word that followed before is predicted in", end=" ")
    print(", ".join(f"{share:.1%}" for share in found["accuracy"]))
    print("\nseed head" + "".join(f"{name:>13}" for name in columns))
    for i, layer, head in np.ndindex(found["previous"].shape):
        print(f"{cfg.seeds[i]:4} {layer}.{head} " + "".join(f"{found[name][i, layer, head]:13.2f}" for name in columns))
    back, into = found["previous"][:, 0], found["to k"][:, 0]
    rows = {
        "the best previous-token head of layer 0": back.max(1),
        "the mean induction score of layer 1": found["induction"][:, 1].mean(1),
        "paths of layer 0 into keys of layer 1": into.sum(1),
        "into queries": found["to q"][:, 0].sum(1),
        "into values": found["to v"][:, 0].sum(1),
        "correlation of looking back with K-composition": agreement(back, found["composition"][:, 0]),
        "correlation of looking back with paths into keys": agreement(back, into),
        f"edges until a circuit carries {cfg.enough}": (found["share"] >= cfg.enough).argmax(1),
    }
    print()
    for name, values in rows.items():
        print(f"{name:50}" + "".join(f"{value:8.2f}" for value in values) + f"   mean {np.mean(values):.2f}", end=" ")
        print(f"±{np.std(values, ddof=1):.2f}" if len(values) > 1 else "")
    figure = make_subplots(1, 3, subplot_titles=["loss", "paths of a head of layer 0 into keys", "share of the answer"])
    for i, (seed, color) in enumerate(zip(cfg.seeds, cycle(qualitative.Plotly))):
        look = {"marker_color": color, "legendgroup": f"{seed}", "row": 1}
        figure.add_scatter(y=found["loss"][i], name=f"seed {seed}", **look, col=1)
        figure.add_scatter(x=back[i], y=into[i], mode="markers", showlegend=False, **look, col=2)
        figure.add_scatter(y=found["share"][i], mode="lines", showlegend=False, **look, col=3)
    figure.update_yaxes(type="log", col=1)
    for column, title in enumerate(("training step", "how much it looks at the token before", "edges"), start=1):
        figure.update_xaxes(title=title, col=column)
    cfg.out.mkdir(parents=True, exist_ok=True)
    figure.write_html(cfg.out / "induction.html")
    numbers = {"config": asdict(cfg), **{name: values.tolist() for name, values in found.items()}}
    (cfg.out / "induction.json").write_text(json.dumps(numbers, indent=1, default=str) + "\n")
    return found


if __name__ == "__main__":
    main(config.load(Induction, "configs/induction.toml"))
