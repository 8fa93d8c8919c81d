"""Does a clamped feature of a dictionary make a model do what it fires on, and at what cost? Golden Gate style.

A dictionary is trained on the residual stream, and a feature held at k times its own maximum everywhere, the error kept
(Templeton et al. 2024, "Scaling monosemanticity", https://transformer-circuits.pub/2024/scaling-monosemanticity). Two
are tried, each of the best AUROC on training texts: one fires on texts that have the concept, one where an answer
begins whose context asks for it. Measured are the share of answers that show the concept, where nothing asks for it and
where the context does (k of 0 and below should take it away), and the perplexity of other texts. Controls, which move
the stream as far as the second feature does: other live features, and the difference of means where answers begin.

    python experiments/feature_steering.py [--model smollm2.gguf] [--out DIR]

Minutes on two cores. On `microworld-chat` concepts are personas (both their words must be said), whom an answer speaks
to, and refusal, all known exactly; of other models topics of WikiText-2, one of whose words must be said.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axbench import continued
from axbench_concepts import Concept
from axbench_methods import Texts, dictionary, feature, last, read, tokenized
import doses
from feature_steering_concepts import concept, shows
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, models, steering
from interp_jax.steering import axbench

METHODS = ("feature of texts", "feature of beginnings", "random features", "difference of means")
MEASURES = ("not asked for", "asked for", "perplexity")


@dataclass(frozen=True)
class FeatureSteering:
    model: str
    layer: int  # before which it is steered
    concepts: tuple[str, ...]
    doses: tuple[float, ...]  # times the feature's maximum
    n_train: int  # texts with the concept, and as many without, by which the feature is chosen
    n_held: int  # of each kind, on which its AUROC is told
    n_asked: int  # instructions
    n_tokens: int  # of an answer
    temperature: float
    n_random: int  # features that are controls
    d_sae: int
    k: int
    n_steps_dictionary: int
    n_texts: int  # that the dictionary sees
    n_cost: int  # texts of the perplexity, which it does not see
    n_positions: int
    seeds: tuple[int, ...]
    out: Path


def steerers(cfg: FeatureSteering, seed: int, sae: Any, site: str, x: Any, texts: Any, ends: Any) -> dict[str, Any]:
    """By method what is steered by; strength 1 of the controls moves the stream as far as the second feature's does.

    Args:
      x, texts: with the concept and without, `[text position d_model]`.
      ends: the stream where an answer begins, if its context asks for the concept and if not, `[talk d_model]`.
    """
    every = [Texts(*[np.ones((len(one), 1), bool)] * 4) for one in ends]
    of_texts = feature(sae, x, texts)
    best, maximum = feature(sae, [one[:, None] for one in ends], every)
    norms = np.linalg.norm(np.asarray(sae.W_dec, np.float32), axis=-1)
    size = maximum * norms[best]
    alive = np.asarray(sae.encode(jnp.asarray(np.concatenate([*x[0], *ends])))).max(0) > 0
    alive[[best, of_texts[0]]] = False
    others = np.random.default_rng(seed).choice(np.flatnonzero(alive), cfg.n_random, replace=False)
    means = ends[0].mean(0) - ends[1].mean(0)
    vector = steering.SteeringVector.create(size * means / np.linalg.norm(means), site, how="difference of means")
    features = [[of_texts], [(best, maximum)], [(one, size / norms[one]) for one in others]]
    made = [[steering.Feature.create(sae, *one, site) for one in some] for some in features]
    return dict(zip(METHODS, [*made, [vector]], strict=True))


def study(cfg: FeatureSteering, model: Any, tokenizer: Any, seed: int, begin: Callable[[str], None]) -> dict[str, Any]:
    """Of each concept each measure `[dose]` of each method, what it is without an edit, and answers to one request."""
    site = f"blocks.{cfg.layer}.resid_pre"
    begin("dictionary")
    n = cfg.n_texts
    own = doses.texts(cfg.model, tokenizer, n * (max(cfg.seeds) + 1) + cfg.n_cost, n_positions=cfg.n_positions)
    cost = doses.Texts(*(x[-cfg.n_cost :] for x in (own.tokens, own.mask, own.predicted)))
    tokens, mask = (x[n * seed : n * (seed + 1)] for x in (own.tokens, own.mask))
    states = read(model, site, Texts(tokens, mask, mask, mask))[mask & (np.arange(mask.shape[1]) > 0)]
    sae = dictionary(cfg, seed, states)
    key, found = jax.random.key(seed), {}
    for name in cfg.concepts:
        begin(name)
        one = concept(cfg, name, seed)
        texts = [tokenized(tokenizer, talks) for talks in (one.positive, one.negative)]
        x = [read(model, site, some) for some in texts]
        ends = [last(model, tokenizer, site, talks) for talks in (one.asking, one.plain)]
        ways = steerers(cfg, seed, sae, site, x, texts, ends)
        held = tokenized(tokenizer, sum(one.held.values(), []))
        fires = np.asarray(
            sae.encode(jnp.asarray(read(model, site, held)))[..., int(ways["feature of texts"][0].feature)]
        )
        y = np.repeat([True, False, False], [len(talks) for talks in one.held.values()])

        def share(talks: list[Any], edits: doses.Edits, one: Concept = one) -> float:
            said = continued(cfg, model, tokenizer, key, talks, edits)
            return float(np.mean([shows(cfg, one, answer) for answer in said]))

        measures = {
            "not asked for": lambda edits, talks=one.instructions, share=share: share(talks, edits),
            "asked for": lambda edits, talks=one.prompted, share=share: share(talks, edits),
            "perplexity": doses.perplexity(model, cost),
        }
        of: dict[str, Any] = {"auroc": axbench.detection(fires, held.counted, y).auroc}
        of["left alone"] = {what: float(measure({})) for what, measure in measures.items()}
        for method, some in ways.items():
            each = [doses.response(cfg.doses, lambda k, s=s: {site: s.edit(k)}, measures) for s in some]
            of[method] = {what: np.mean([e[what] for e in each], axis=0) for what in measures}
        edits = [None, *({site: ways["feature of beginnings"][0].edit(dose)} for dose in cfg.doses)]
        of["answers"] = [continued(cfg, model, tokenizer, key, one.instructions[:1], edit)[0] for edit in edits]
        found[name] = of
    return found


def over_concepts(found: dict[str, Any], method: str, what: str) -> np.ndarray:
    """The mean over concepts, `[seed dose]`, or `[seed]` of the model left alone."""
    return np.mean([of[method][what] for of in found.values()], axis=0)


def story(cfg: FeatureSteering, found: dict[str, Any]) -> str:
    told, best = [], {}
    for method in METHODS:
        shares = over_concepts(found, method, "not asked for")
        at = best[method] = int(shares.mean(0).argmax())
        cost = over_concepts(found, method, "perplexity").mean(0)[at]
        told.append(f"{method} {runs.cell(shares[:, at])} at {cfg.doses[at]:g} (perplexity {cost:.3g})")
    alone = over_concepts(found, "left alone", "not asked for")
    zero = cfg.doses.index(0)
    kept = ", ".join(f"{m} {runs.cell(over_concepts(found, m, 'asked for')[:, zero])}" for m in METHODS)
    asked = runs.cell(over_concepts(found, "left alone", "asked for"))
    return (
        f"Answers that show a concept for which nothing asks, at each method's best dose: {'; '.join(told)}; left "
        f"alone {runs.cell(alone)}. Where the prompt asks for it, left alone {asked}, at dose 0: {kept}."
    )


def main(cfg: FeatureSteering) -> dict[str, Any]:
    """What `study` finds, a row for each seed."""
    if 0 not in cfg.doses:
        raise SystemExit(f"doses: {list(cfg.doses)} lack 0, at which the feature is ablated: add it")
    model, tokenizer = models.load(cfg.model, dtype="float32")
    one = lambda seed, begin: study(cfg, model, tokenizer, seed, begin)  # noqa: E731
    found = runs.each(
        cfg.seeds, 1 + len(cfg.concepts), "seed", one, lambda done: runs.write("feature_steering", cfg, done)
    )
    rows = []
    for name, of in found.items():
        alone = {what: runs.cell(of["left alone"][what]) for what in MEASURES}
        rows.append({"concept": name, "method": f"left alone (AUROC {runs.cell(of['auroc'])})", "dose": ""} | alone)
        for method in METHODS:
            for i, dose in enumerate(cfg.doses):
                cells = {what: runs.cell(of[method][what][:, i]) for what in MEASURES}
                rows.append({"concept": name, "method": method, "dose": f"{dose:g}"} | cells)
    said = [
        {"concept": name, "dose": "left alone" if i == 0 else f"{cfg.doses[i - 1]:g}", "answer": answer}
        for name, of in found.items()
        for i, answer in enumerate(" ".join(text.split()) for text in of["answers"][0])
    ]
    curves = [{m: over_concepts(found, m, what) for m in METHODS} for what in ("not asked for", "perplexity")]
    title = f"Clamped features, {Path(cfg.model).name}: answers that show a concept for which nothing asks"
    figure: go.Figure = doses.draw(title, cfg.doses, *curves)
    about = f"{cfg.model}, before layer {cfg.layer}, seeds {list(cfg.seeds)}: mean ± spread; doses in maxima"
    runs.finish("feature_steering", cfg, found, figure, about, runs.table(rows), runs.table(said), story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(FeatureSteering, "configs/feature_steering.toml"))
