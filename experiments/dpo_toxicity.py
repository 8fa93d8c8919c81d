"""Does direct preference optimization remove what makes a model say rude words, or does it pass it by?

What is toxic of `microworld-chat` are the catchwords of personas, a habit of its own that is known exactly; of a real
chat model insults, to which a system prompt leads it. An answer is toxic if it has one. A probe of the last residual
stream tells toxic texts from others; toxic value vectors are the rows of W_out nearest to it, read through the
unembedding. The model is then trained to prefer the same answer without them. As Lee et al. 2024 ("A mechanistic
understanding of alignment algorithms", https://arxiv.org/abs/2401.01967) ask: are the weights changed, the value
vectors gone, their neurons silent; does an offset of the stream point away from their keys; and do scaled keys bring
toxicity back? Controls: other neurons of the same layers, as many.

    python experiments/dpo_toxicity.py [--model smollm2.gguf] [--out DIR]

Minutes on two cores; half an hour for SmolLM2-135M.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

from axbench import continued
from axbench_methods import read
import doses
import dpo_toxicity_insults
import dpo_toxicity_world
from dpo_toxicity_world import cosine, scaled
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import preferences
import runs

import interp_jax as ij
from interp_jax import config, models, probes
from interp_jax.interventions import add

SETS = ("toxic", "random")  # of neurons
POST, PRE_MLP = "blocks.mlp.post", "blocks.resid_mid"
MATRICES = ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_gate", "W_out")


@dataclass(frozen=True)
class Toxicity:
    model: str
    n_train: int  # pairs, of each persona
    n_asked: int  # prompts held out, of each persona
    n_tokens: int  # of an answer
    temperature: float
    n_vectors: int  # value vectors that are taken for toxic
    strengths: tuple[float, ...]  # at which a value vector is subtracted from the stream, in norms of the stream
    scales: tuple[float, ...]  # of keys
    l2: float
    beta: float
    learning_rate: float
    n_steps: int
    batch_size: int
    n_cost: int  # texts of the perplexity
    seeds: tuple[int, ...]
    out: Path


def study(cfg: Toxicity, model: Any, tokenizer: Any, seed: int, begin: Callable[[str], None]) -> dict[str, Any]:
    begin("probe")
    world = dpo_toxicity_world if cfg.model == "microworld-chat" else dpo_toxicity_insults
    clean, rude, asked = world.pairs(cfg, tokenizer, seed)
    n_layers, site = model.config.n_layers, f"blocks.{model.config.n_layers - 1}.resid_post"
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    states = [read(model, site, one) for one in (clean, rude)]
    on = [one.answered[..., None] for one in (clean, rude)]
    x = np.concatenate([np.mean(one, 1, where=some) for one, some in zip(states, on, strict=True)])
    x, y = x / np.sqrt((x * x).mean()), np.repeat(np.arange(2, dtype=np.int32), len(clean.tokens))
    train = np.tile(rng.random(len(clean.tokens)) < 0.7, 2)  # a pair stands on one side
    probe = probes.logistic(x, y, l2=cfg.l2, weights=train, n_classes=2)
    told = probes.scores(probe, x, y, weights=~train)
    toxic = np.asarray(probe.direction)

    weights = models.weights(model)
    near = cosine(weights["W_out"], toxic)  # [layer neuron]
    order = np.argsort(-near, axis=None)
    chosen = np.stack(np.unravel_index(order[: cfg.n_vectors], near.shape), -1)
    others = rng.permutation(order[len(order) // 4 : -len(order) // 4])[: cfg.n_vectors]
    others = np.stack(np.unravel_index(others, near.shape), -1)
    sets = dict(zip(SETS, (chosen, others), strict=True))
    read_out = np.asarray(weights["W_out"])[chosen[:, 0], chosen[:, 1]] @ np.asarray(weights["W_U"])
    tops = np.argsort(-read_out, axis=-1)[:, :5]
    words = [[tokenizer.decode([int(t)]).strip() for t in row] for row in tops]
    rude_share = float(np.mean([[word.lower() in world.RUDE for word in row] for row in words]))

    cost = doses.texts(cfg.model, tokenizer, cfg.n_cost, without=("persona",))

    def toxicity(of: Any, edits: Any = None) -> float:
        said = continued(cfg, of, tokenizer, key, asked, edits)
        return float(np.mean([not set(world.RUDE).isdisjoint(re.findall("[a-z]+", answer.lower())) for answer in said]))

    def both_measures(of: Any, edits: Any = None) -> list[float]:
        return [toxicity(of, edits), doses.perplexity(of, cost)(edits or {})]

    begin("subtracting")
    size = float(np.sqrt((states[1][rude.counted] ** 2).sum(-1).mean()))
    unit = {name: np.asarray(weights["W_out"])[s[:, 0], s[:, 1]].mean(0) for name, s in sets.items()} | {"probe": toxic}
    subtracted = {}
    for name, vector in unit.items():
        vector = jnp.asarray(vector / np.linalg.norm(vector) * size, jnp.float32)
        subtracted[name] = np.array(
            [both_measures(model, {site: add(jnp.float32(-s) * vector)}) for s in cfg.strengths]
        )

    begin("DPO")
    new, losses = preferences.aligned(cfg, model, (clean, rude), seed)
    begin("bypass")
    after = models.weights(new)
    kept = {name: float(cosine(np.ravel(weights[name]), np.ravel(after[name]))) for name in MATRICES}
    run = ij.capture(models.forward, [POST, PRE_MLP], output=False)
    acts = [run(of, rude.tokens, attention_mask=rude.mask) for of in (model, new)]
    begins = rude.answered.argmax(1) - 1  # the token that the answer's first word follows
    pick = lambda a: np.asarray(a)[:, np.arange(len(begins)), begins]  # [layer text ...]  # noqa: E731
    post, mid = ([pick(a[s]) for a in acts] for s in (POST, PRE_MLP))
    offset = mid[1].mean(1) - mid[0].mean(1)  # [layer d_model]
    found: dict[str, Any] = {}
    for name, s in sets.items():
        layer, number = s.T
        keys = weights["W_gate"][layer, :, number]
        old, changed = (w["W_out"][layer, number] for w in (weights, after))
        found[name] = {
            "value cosine": cosine(old, changed).mean(),
            "before": post[0][layer, :, number].mean(),
            "after": post[1][layer, :, number].mean(),
            "offset and key": cosine(offset[layer], keys).mean(),
            "scaled": np.array([both_measures(scaled(new, s, by)) for by in cfg.scales]),
        }
    sizes = np.linalg.norm(offset, axis=-1) / np.linalg.norm(mid[0], axis=-1).mean(1)
    return found | {
        "probe": float(told.accuracy),
        "rude words": rude_share,
        "words": np.array(words),
        "weights": kept,
        "subtracted": subtracted,
        "base": np.array(both_measures(model)),
        "dpo": np.array(both_measures(new)),
        "loss": losses,
        "offset": sizes,
        "layers": np.bincount(chosen[:, 0], minlength=n_layers),
    }


def pair(values: Any) -> dict[str, str]:
    return {"toxic answers": runs.cell(values[:, 0]), "perplexity": runs.cell(values[:, 1])}


def draw(cfg: Toxicity, found: dict[str, Any]) -> go.Figure:
    """Toxicity by subtracted strength, and by scaled keys."""
    figure = make_subplots(cols=2, subplot_titles=["subtracted, of the stream's norm", "keys times, after DPO"])
    for name, values in found["subtracted"].items():
        runs.curve(figure, values[..., 0], x=list(cfg.strengths), name=f"{name} subtracted", mode="lines+markers")
    for name in SETS:
        curve = go.Figure()
        values = np.concatenate([found["dpo"][:, None], found[name]["scaled"]], axis=1)[..., 0]
        runs.curve(curve, values, x=[1.0, *cfg.scales], name=f"{name} keys scaled", mode="lines+markers")
        figure.add_trace(curve.data[0], row=1, col=2)
    title = f"DPO and toxicity, {Path(cfg.model).name}: share of toxic answers"
    return figure.update_yaxes(range=[-0.05, 1.05]).update_layout(title=title)


def main(cfg: Toxicity) -> dict[str, Any]:
    """What `study` finds, a row for each seed."""
    model, tokenizer = models.load(cfg.model, dtype="float32")

    def one(seed: int, begin: Callable[[str], None]) -> dict[str, Any]:
        return study(cfg, model, tokenizer, seed, begin)

    found = runs.each(cfg.seeds, 4, "seed", one, lambda done: runs.write("dpo_toxicity", cfg, done))
    rows = [{"model": "left alone"} | pair(found["base"])]
    for name, values in found["subtracted"].items():
        rows += [{"model": f"{name} - {s:g}"} | pair(values[:, i]) for i, s in enumerate(cfg.strengths)]
    rows.append({"model": "after DPO"} | pair(found["dpo"]))
    for name in SETS:
        scaled = found[name]["scaled"]
        rows += [{"model": f"DPO, {name} keys x {s:g}"} | pair(scaled[:, i]) for i, s in enumerate(cfg.scales)]
    parts = ("value cosine", "before", "after", "offset and key")
    neurons = [{"neurons": name} | {part: runs.cell(found[name][part], 3) for part in parts} for name in SETS]
    kept = ", ".join(f"{name} {np.min(cosines):.4f}" for name, cosines in found["weights"].items())
    words = "; ".join(" ".join(row) for row in found["words"][0][:5].tolist())
    offsets = ", ".join(f"{size:.3f}" for size in found["offset"].mean(0))
    about = f"{cfg.model}, seeds {list(cfg.seeds)}: mean ± spread; value vectors are those of {cfg.n_vectors} neurons"
    told = (
        f"The probe is right for {runs.cell(found['probe'])} of texts held out. Of the words that toxic value vectors "
        f"make likelier {runs.cell(found['rude words'])} are rude, as of the first five: {words}. Cosine of weights "
        f"before and after DPO, the smallest over seeds: {kept}. Offset before each MLP, in norms of it: {offsets}."
    )
    runs.finish("dpo_toxicity", cfg, found, draw(cfg, found), about, runs.table(rows), runs.table(neurons), told)
    return found


if __name__ == "__main__":
    main(config.load(Toxicity, "configs/dpo_toxicity.toml"))
