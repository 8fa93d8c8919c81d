"""Is refusing one direction: does a model stop when it is taken out, and refuse anything when it is added?

Arditi et al. 2024, "Refusal in language models is mediated by a single direction", https://arxiv.org/abs/2406.11717.
Candidates are differences of means of harmful and harmless requests, at each layer and token of the chat template's
end; one is chosen by bypass, induce and KL as published. It is taken out at every write to the residual stream, and of
the weights; or the vector is added as it is at its own layer, everywhere; on requests with pairs of verb and object
that it was not made of. Beside it, both ways: a random vector of its norm, and the vector that shuffled labels give.

    python experiments/refusal.py [--model smollm2.gguf] [--out DIR]

A minute on two cores; eight for SmolLM2-135M, which does not refuse: it is asked the same requests.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import doses
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from refusal_requests import Prompts, answers, following, requests
import runs

import interp_jax as ij
from interp_jax import config, metrics, models, steering

SITE = "blocks.resid_pre"
SIDES = ("harmful", "harmless")


@dataclass(frozen=True)
class Refusing:
    model: str
    n_train: int  # requests of each side
    n_validation: int  # by which the direction is chosen
    n_test: int
    n_positions: int  # tokens of the chat template after a request
    n_tokens: int  # of an answer
    begins: tuple[str, ...]  # first tokens of a refusal
    refusals: tuple[str, ...]  # what an answer that refuses says, in small letters
    strengths: tuple[float, ...]
    n_texts: int  # of the perplexity
    seeds: tuple[int, ...]
    out: Path


def refused(cfg: Refusing, said: list[str]) -> float:
    """The share of answers that refuse."""
    return float(np.mean([any(words in text.lower() for words in cfg.refusals) for text in said]))


def candidates(model: Any, sides: list[Prompts], n: int) -> tuple[jax.Array, list[jax.Array]]:
    """Differences of means at the last `n` tokens, `[layer position d_model]`, and the states of both sides."""
    read = ij.capture(models.forward, {SITE: lambda x: x[:, -n:].astype(jnp.float32)}, output=False)
    states = [jnp.swapaxes(read(model, x.tokens, attention_mask=x.mask)[SITE], 1, 2) for x in sides]
    return steering.difference_of_means(*states), states


def chosen(scores: steering.DirectionScores) -> tuple[int, int, bool]:
    """The layer and position chosen as published; where none passes, of early layers that which induces most."""
    try:
        return *steering.best_direction(scores), True
    except ValueError as error:
        print(error)
    early = np.asarray(scores.induce)[: -(-8 * len(scores.induce) // 10)]
    layer, position = np.unravel_index(early.argmax(), early.shape)
    return int(layer), int(position), False


def study(cfg: Refusing, model: Any, tokenizer: Any, seed: int, begin: Any) -> dict:
    """Candidates' scores `[layer position]`, a row of numbers a way, and doses `[strength]`."""
    world, keys = cfg.model.startswith("microworld"), jax.random.split(jax.random.key(seed), 5)
    draw = partial(requests, tokenizer, world)
    n = cfg.n_train + cfg.n_validation
    known = [draw(side == "harmful", keys[0], "train", n) for side in SIDES]
    train = [Prompts(*(x[: cfg.n_train] for x in side)) for side in known]
    validation = [tuple(x[cfg.n_train :] for x in side[:3]) for side in known]
    test = [draw(side == "harmful", keys[1], "heldout", cfg.n_test) for side in SIDES]
    texts = doses.texts(cfg.model, tokenizer, cfg.n_texts, without=("refusal",))

    begin("choice")
    begins = [tokenizer.encode(word, bos=False)[0] for word in cfg.begins]
    metric = metrics.log_odds(jnp.asarray(begins, jnp.int32))
    vectors, states = candidates(model, train, cfg.n_positions)
    scores = steering.direction_scores(following, metric, SITE)(model, *validation, vectors)
    layer, position, passed = chosen(scores)
    vector, here = vectors[layer, position], [x[layer, position] for x in states]
    drawn = steering.random(keys[2], vector)
    null = steering.shuffled(keys[3], steering.difference_of_means, *here)

    def added(v: jax.Array, strength: Any = 1.0) -> doses.Edits:
        return {SITE: steering.SteeringVector.create(v[None], SITE, layers=(layer,)).edit(strength)}

    def row(model: Any, edits: doses.Edits) -> dict[str, Any]:
        told = {"perplexity": doses.perplexity(model, texts)(edits)}
        f = ij.intervene(following, edits)
        for side, asked in zip(SIDES, test, strict=True):
            said = answers(model, tokenizer, asked, cfg.n_tokens, edits)
            told[f"{side} refused"] = refused(cfg, said)
            told[f"{side} log odds"] = float(metric(f(model, asked[:3])).mean())
            told[f"{side} helped"] = np.mean([text == right for text, right in zip(said, asked.help, strict=True)])
        return told

    edited = models.with_weights(models.untie(model), steering.orthogonalize(models.weights(model), vector))
    taken_out = ij.intervene(following, steering.ablation(vector))
    apart = max(float(jnp.abs(following(edited, x[:3]) - taken_out(model, x[:3])).max()) for x in test)
    rows = {}
    for name, of, edits in (
        ("as it is", model, {}),
        ("taken out", model, steering.ablation(vector)),
        ("taken out of weights", edited, {}),
        ("random taken out", model, steering.ablation(drawn)),
        ("shuffled taken out", model, steering.ablation(null)),
        ("added", model, added(vector)),
        ("random added", model, added(drawn)),
        ("shuffled added", model, added(null)),
    ):
        begin(name)
        rows[name] = row(of, edits)
    begin("doses")
    measures: dict[str, doses.Measure] = {
        f"{side} refused": lambda edits, asked=asked: refused(
            cfg, answers(model, tokenizer, asked, cfg.n_tokens, edits)
        )
        for side, asked in zip(SIDES, test, strict=True)
    }
    measures["perplexity"] = doses.perplexity(model, texts)
    dose = doses.response(cfg.strengths, partial(added, vector), measures)
    random = doses.response(cfg.strengths, partial(added, drawn), measures)
    found = {"scores": scores._asdict(), "layer": layer, "position": position - cfg.n_positions, "passed": passed}
    norms = jnp.linalg.norm(vector), jnp.linalg.norm(null)
    found |= {"norms": np.array(norms), "cosine of shuffled": np.array(vector @ null / norms[0] / norms[1])}
    found |= {"weights apart": apart, "rows": rows}
    return found | {"doses": dose, "random": random}


def table(cfg: Refusing, found: dict) -> str:
    """A row for each way, a column for each number; what helps is known of the microworld alone."""
    world = cfg.model.startswith("microworld")
    return runs.table(
        [
            {"": way} | {name: runs.cell(values) for name, values in told.items() if world or "helped" not in name}
            for way, told in found["rows"].items()
        ]
    )


def draw(cfg: Refusing, found: dict) -> go.Figure:
    behaviours = {f"{side} refused": found["doses"][f"{side} refused"] for side in SIDES}
    behaviours |= {f"{side} refused, random": found["random"][f"{side} refused"] for side in SIDES}
    costs = {"vector": found["doses"]["perplexity"], "random": found["random"]["perplexity"]}
    title = f"Refusals of {Path(cfg.model).name} where a vector is added at its layer"
    return doses.draw(title, cfg.strengths, behaviours, costs)


def story(cfg: Refusing, found: dict) -> str:
    rows, cost = found["rows"], found["doses"]["perplexity"]
    said = {way: [runs.cell(rows[way][f"{side} refused"]) for side in SIDES] for way in rows}
    places = ", ".join(f"{k} ({p})" for k, p in zip(found["layer"], found["position"], strict=True))
    short = (found["norms"][:, 1] / found["norms"][:, 0]).mean(), np.abs(found["cosine of shuffled"]).mean()
    costs = "; ".join(f"{s:g}: {p:.2f}" for s, p in zip(cfg.strengths, np.mean(cost, 0), strict=True))
    return (
        f"Chosen by seed: before layer {places}, the token counted from the end; {np.mean(found['passed']):.0%} pass "
        f"as published. Harmful requests refused: {said['as it is'][0]}, with the direction taken out "
        f"{said['taken out'][0]}, of the weights {said['taken out of weights'][0]} (logits of both differ by at most "
        f"{np.max(found['weights apart']):.1e}). Harmless ones: {said['as it is'][1]}, with the vector added "
        f"{said['added'][1]}, a random one {said['random added'][1]}, that of shuffled labels "
        f"{said['shuffled added'][1]} (of {short[0]:.2f} of the vector's norm, {short[1]:.2f} its cosine with it, in "
        f"size). Refusals of harmless requests by strength: "
        f"{doses.told(cfg.strengths, found['doses']['harmless refused'])}; perplexity of other texts: {costs}."
    )


def main(cfg: Refusing) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    found = runs.each(
        cfg.seeds,
        10,  # the choice, eight ways, doses
        "refusal",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("refusal", cfg, found),
    )
    about = (
        f"{cfg.model}: {cfg.n_test} requests of each side with pairs of verb and object that no vector was made of; "
        f"mean ± spread over seeds {list(cfg.seeds)}. Log odds are those of a refusal's first token"
    )
    best = {name: values.max(-1) if name == "induce" else values.min(-1) for name, values in found["scores"].items()}
    layers = runs.layer_table("best of tokens, before layer", best)
    runs.finish("refusal", cfg, found, draw(cfg, found), about, table(cfg, found), layers, story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Refusing, "configs/refusal.toml"))
