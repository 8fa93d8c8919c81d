"""Which method detects a concept, which steers towards it, and is any as good as asking for it? AxBench in small.

Every method learns from texts with and without a concept, at one layer. Detection: AUROC of its largest activation over
a held-out text, hard negatives among the negatives. Steering: a factor times that largest activation is added while the
model answers instructions; a judge scores concept, instruction and fluency from 0 to 2; the harmonic mean, 0 if any is
0, chooses the factor on one half of the instructions and is reported on the other (Wu et al. 2025,
https://arxiv.org/abs/2501.17148). Beside them: the prompt that asks for the concept, and the model left alone.

    python experiments/axbench.py [--model smollm2.gguf] [--out DIR]

Minutes on two cores. On `microworld-chat` concepts are personas and whom an answer speaks to, and judges are exact; the
prompt is the persona's, or a user who betrays himself. Of other models concepts are topics of WikiText-2, judged by
words that are counted and by the model's own perplexity.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axbench_concepts import Concept, asked
from axbench_methods import Method, Texts, dictionary, jacobian_lens, last, methods, read, tokenized
import axbench_topics
import axbench_world
import doses
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs

from interp_jax import config, models
from interp_jax.steering import axbench

COLUMNS = ("auroc", "hard", "factor", "concept", "instruction", "fluency", "harmonic")


@dataclass(frozen=True)
class AxBench:
    model: str
    layer: int  # before which it is steered
    concepts: tuple[str, ...]
    n_train: int  # texts with the concept, and as many without
    n_held: int  # texts with it, without, and hard ones
    n_asked: int  # instructions, half of which choose the factor
    n_tokens: int  # of a continuation
    temperature: float
    every: int  # every how many of the published factors
    n_steps: int  # of ReFT
    batch_size: int
    top: int  # tokens of a text that tell ReFT-r1 how strongly it has the concept
    rank: int  # of LoReFT
    l2: float  # of the probe, of states whose entries have a root mean square of 1
    d_sae: int
    k: int
    n_steps_dictionary: int
    n_texts: int  # that the dictionary sees, and each seed's first `n_lens` of them the Jacobian lens
    n_lens: int
    n_positions: int
    skip_first: int
    fluent: tuple[float, float]  # nats a token of a fluent continuation at most, and of one that can be read
    seeds: tuple[int, ...]
    out: Path


def continued(cfg: AxBench, model: Any, tokenizer: Any, key: Any, asked: list[Any], edits: Any = None) -> list[str]:
    """What the model answers to each conversation, up to the end of its turn, which the microworld's judge sees."""
    tokens, mask, _ = models.tokenize(tokenizer, asked, chat=True)
    options = {"temperature": cfg.temperature, "key": key} if cfg.temperature else {}
    stop = tokenizer.eos_id
    out = models.generate(model, tokens, cfg.n_tokens, attention_mask=mask, edits=edits, stop=stop, **options)
    texts = []
    for row in np.asarray(out)[:, tokens.shape[1] :].tolist():
        end = row.index(stop) + 1 if stop in row else len(row)
        texts.append(tokenizer.decode(row[:end], skip_special=not cfg.model.startswith("microworld")))
    return texts


def scored(concept: Concept, factors: tuple[float, ...], said: list[list[str]]) -> axbench.Outcome:
    """The outcome of what was said at each factor to each instruction."""
    instructions = [asked(talk) for talk in concept.instructions]
    return axbench.score(factors, axbench.judged(concept.judge, instructions, said, concept.name))


def steered(cfg: AxBench, run: Callable, concept: Concept, method: Method) -> axbench.Outcome:
    """The method's outcome; `run` continues the instructions under edits."""
    factors = method.factors[cfg.every - 1 :: cfg.every]
    edits = [{method.steerer.site: method.steerer.edit(factor * method.maximum)} for factor in factors]
    return scored(concept, factors, [run(concept.instructions, edit) for edit in edits])


def study(cfg: AxBench, model: Any, tokenizer: Any, seed: int, begin: Callable[[str], None]) -> dict[str, Any]:
    """By method and column a number for each concept."""
    sizes, site = (cfg.n_train, cfg.n_held, cfg.n_asked, seed), f"blocks.{cfg.layer}.resid_pre"
    if cfg.model.startswith("microworld"):
        some = [axbench_world.concept(name, *sizes) for name in cfg.concepts]
    else:
        fluent = axbench_topics.fluency(model, tokenizer, cfg.fluent)
        some = [axbench_topics.concept(name, *sizes, fluent) for name in cfg.concepts]
    begin("dictionary and Jacobian lens")
    own = doses.texts(cfg.model, tokenizer, cfg.n_texts * (seed + 1), n_positions=cfg.n_positions)
    tokens, mask = own.tokens[cfg.n_texts * seed :], own.mask[cfg.n_texts * seed :]
    states = read(model, site, Texts(tokens, mask, mask, mask))[mask & (np.arange(mask.shape[1]) > 0)]
    lens = jacobian_lens(model, [(tokens[[i]], mask[[i]]) for i in range(cfg.n_lens)], cfg.skip_first)
    shared = dictionary(cfg, seed, states), lens
    found: dict[str, dict[str, list[float]]] = {}
    talks = [talk for concept in some for talk in sum(concept.held.values(), concept.positive + concept.negative)]
    width = max(len(tokenizer.encode(talk, chat=True)) for talk in talks)  # one for all: few shapes compile
    for number, concept in enumerate(some):
        begin(f"{concept.name}: training")
        texts = [tokenized(tokenizer, talks, width) for talks in (concept.positive, concept.negative)]
        x = [read(model, site, one) for one in texts]
        ends = [last(model, tokenizer, site, talks) for talks in (concept.asking, concept.plain)]
        words = jnp.array([tokenizer.encode(f" {word}", bos=False)[0] for word in concept.words], jnp.int32)
        each = methods(cfg, 100 * seed + number, model, site, x, texts, ends, shared, words)
        held = tokenized(tokenizer, sum(concept.held.values(), []), width)
        kind = np.repeat(list(concept.held), [len(talks) for talks in concept.held.values()])
        states = read(model, site, held)
        key = jax.random.key(100 * seed + number)

        def run(asked: list[Any], edits: Any = None, key: Any = key) -> list[str]:
            return continued(cfg, model, tokenizer, key, asked, edits)

        def tell(name: str, *numbers: float) -> None:
            for column, value in zip(COLUMNS, numbers, strict=True):
                found.setdefault(name, {}).setdefault(column, []).append(float(value))

        for name, method in each.items():
            begin(f"{concept.name}: {name}")
            detected = (np.nan, np.nan)
            if method.detect is not None:
                detected = axbench.detection(method.detect(states), held.counted, kind == "positive", kind == "hard")
            tell(name, *detected, *steered(cfg, run, concept, method)[:-1])
        for name, talks in (("prompt", concept.prompted), ("left alone", concept.instructions)):
            tell(name, np.nan, np.nan, np.nan, *scored(concept, (1.0,), [run(talks)])[1:-1])
    return {name: {column: np.array(values) for column, values in of.items()} for name, of in found.items()}


def story(found: dict[str, Any]) -> str:
    total = {name: of["harmonic"].mean() for name, of in found.items()}
    tells = {name: of["auroc"].mean() for name, of in found.items() if np.isfinite(of["auroc"]).all()}
    best = max((name for name in total if name not in ("prompt", "left alone")), key=lambda name: total[name])
    detects = max(tells, key=lambda name: tells[name])
    steers = f"{best} steers best, {total[best]:.2f} of 2" if total[best] else "No method steers"
    return (
        f"{steers}, where the prompt comes to {total['prompt']:.2f}, a random "
        f"direction to {total['random']:.2f} and the model left alone to {total['left alone']:.2f}. {detects} detects "
        f"best, at {tells[detects]:.2f}; shuffled labels give {tells['shuffled labels']:.2f}."
    )


def draw(cfg: AxBench, found: dict[str, Any], order: list[str]) -> go.Figure:
    figure = go.Figure(layout={"title": f"AxBench in small, {Path(cfg.model).name}", "barmode": "group"})
    for column in ("concept", "instruction", "fluency", "harmonic"):
        values = [found[name][column].mean(1) for name in order]
        bars = {"y": [one.mean() for one in values], "error_y": {"array": [runs.spread(one) for one in values]}}
        figure.add_bar(x=order, name=column, **bars)
    return figure.update_yaxes(title="score on the other half of the instructions, 0 to 2", range=[0, 2.1])


def main(cfg: AxBench) -> dict[str, Any]:
    """What `study` finds, `[seed concept]` by method and column."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    steps = 1 + len(cfg.concepts) * 13
    found = runs.each(
        cfg.seeds,
        steps,
        "AxBench, seed",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda done: runs.write("axbench", cfg, done),
    )
    order = sorted(found, key=lambda name: -found[name]["harmonic"].mean())
    rows = [
        {"method": name}
        | {column: "" if np.isnan(v := found[name][column]).any() else runs.cell(v.mean(1)) for column in COLUMNS}
        for name in order
    ]
    about = (
        f"{cfg.model}, before layer {cfg.layer}: {', '.join(cfg.concepts)}, seeds {list(cfg.seeds)}, mean "
        "over concepts ± spread over seeds; detection against all and against hard negatives; scores 0 to 2 on the "
        "instructions that did not choose the factor"
    )
    runs.finish("axbench", cfg, found, draw(cfg, found, order), about, runs.table(rows), story(found))
    return found


if __name__ == "__main__":
    main(config.load(AxBench, "configs/axbench.toml"))
