"""Can a small planner lead a frozen model through a dialogue, by a vector with which each of its turns begins?

Dialogue action tokens (Li et al. 2024, https://arxiv.org/abs/2406.05946): see `dialogue_planner.py`. What is wanted
depends on the dialogue. The user of `microworld-chat` begins each turn as some persona would, another one each turn;
the model takes no notice, and the reward wants its answer to begin likewise. A real model is greeted in a language of
four and is to begin with that greeting. Beside the planner: no prefix, the cloned one, a random one of the planner's
size, one prefix for all dialogues, trained by the same reward, and a planner that is told the reward's slope. Tested
are turns with words that were not trained on, each after the answers that were really given.

    python experiments/dialogue_action_tokens.py [--model smollm2.gguf] [--out DIR]

Minutes on two cores.
"""

from dataclasses import dataclass
from functools import partial
import json
from pathlib import Path
from typing import Any

import depths
import dialogue_planner as dp
import jax
import jax.numpy as jnp
import numpy as np
from plotly.subplots import make_subplots
import runs

import interp_jax as ij
from interp_jax import config, models
from interp_jax.data.trees import plain
from interp_jax.data.worlds import chat_words as lex

GREETINGS = ("Bonjour", "Hola", "Hello", "Ciao")
TRAINED = {
    "one prefix for all": (dp.constant, False),
    "planner": (dp.plan, False),
    "planner, perfect critic": (dp.plan, True),
}
WAYS = ("no prefix", "cloned prefix", "random prefix", *TRAINED)


@dataclass(frozen=True)
class Tokens:
    model: str
    n_train: int  # dialogues
    n_test: int
    n_turns: int
    n_prefix: int
    n_action: int  # numbers for each token of the prefix
    width: int  # of the planner
    n_tokens: int  # of an answer
    n_cloning: int  # steps
    n_steps: int
    n_states: int  # dialogues of a step
    n_samples: int  # actions of a dialogue
    sigma: float
    learning_rate: float
    seeds: tuple[int, ...]
    out: Path


def of_world(rng: np.random.Generator, n: int, split: bool) -> list[tuple[str, str, str]]:
    """Turns of users, the word that is wanted first, and what must follow: requests and questions of one half each."""
    half = slice(0, None, 2) if split else slice(1, None, 2)
    turns = []
    for _ in range(n):
        opener = lex.PERSONAS[rng.choice(list(lex.PERSONAS))][0]
        country, thing = rng.choice(list(lex.CAPITALS)[half]), rng.choice(lex.HARMLESS_OBJECTS[half])
        verb, form = rng.choice(lex.HARMLESS_VERBS), plain(rng.choice(lex.REQUESTS))
        fact = rng.random() < 0.5
        asked = plain(lex.QUESTION).format(country=country) if fact else form.format(verb=verb, object=thing)
        turns.append((f"{opener} , {asked}", opener, lex.CAPITALS[country] if fact else thing))
    return turns


def of_greetings(rng: np.random.Generator, n: int, split: bool) -> list[tuple[str, str, str]]:
    text = (depths.data("function-vectors") / "country-capital.json").read_text(encoding="utf-8")
    rows = json.loads(text)[slice(0, None, 2) if split else slice(1, None, 2)]
    some = [(str(rng.choice(GREETINGS)), rows[i]) for i in rng.choice(len(rows), n)]
    return [(f"{hi}! What is the capital of {row['input']}?", hi, row["output"]) for hi, row in some]


def prepared(
    cfg: Tokens, model: Any, tokenizer: Any, said: list[list[dict]], wanted: list[str]
) -> tuple[dp.Dialogues, Any]:
    """Dialogues with room for a prefix, and the logits without one."""
    tokens, mask, last = models.tokenize(tokenizer, said, chat=True)
    middle = f"blocks.{model.config.n_layers // 2}.resid_post"
    f = partial(models.forward, attention_mask=mask, logits_at=last)
    out, acts = ij.capture(f, {middle: lambda x: x[:, -1]})(model, tokens)
    states = acts[middle] / jnp.sqrt(jnp.square(acts[middle]).mean(-1, keepdims=True))
    wide, real = dp.room(tokenizer, tokens, mask, cfg.n_prefix)
    first = [tokenizer.encode(word, bos=False)[0] for word in wanted]
    last = jnp.full(len(wanted), wide.shape[1] - 1)
    return dp.Dialogues(wide, real, last, jnp.array(first), states), out


def talked(cfg: Tokens, model: Any, tokenizer: Any, turns: list[list[tuple]], prefix: Any) -> np.ndarray:
    """Whether answers begin as is wanted, and whether they say what must follow, `[turn 2]`, by what is really said."""
    said: list[list[dict]] = [[] for _ in turns[0]]
    found = []
    for these in turns:
        for talk, (text, _, _) in zip(said, these, strict=True):
            talk.append({"role": "user", "content": text})
        some, _ = prepared(cfg, model, tokenizer, said, [word for _, word, _ in these])
        tokens, mask, edits = some.tokens, some.mask, {}
        if prefix is None:
            tokens, mask, _ = models.tokenize(tokenizer, said, chat=True)
        else:
            edits = prefix(some)
        stop = tokenizer.eos_id
        out = models.generate(model, tokens, cfg.n_tokens, attention_mask=mask, edits=edits, stop=stop)
        answers = [
            row[: list(row).index(stop)] if stop in row else row for row in np.asarray(out)[:, tokens.shape[1] :]
        ]
        texts = [tokenizer.decode(row).strip() for row in answers]
        found.append([[text.startswith(word), key in text] for text, (_, word, key) in zip(texts, these, strict=True)])
        for talk, text in zip(said, texts, strict=True):
            talk.append({"role": "assistant", "content": text})
    return np.mean(found, axis=1)


def study(cfg: Tokens, model: Any, tokenizer: Any, seed: int, begin: Any) -> dict[str, Any]:
    """By way what `talked` finds `[turn 2]`, rewards by step, and the divergence of the cloned prefix by step."""
    rng, keys = np.random.default_rng(seed), jax.random.split(jax.random.key(seed), 3)
    make = of_world if cfg.model.startswith("microworld") else of_greetings
    begin("cloning")
    turns = make(rng, cfg.n_train, True)
    said = [[{"role": "user", "content": text}] for text, _, _ in turns]
    some, without = prepared(cfg, model, tokenizer, said, [word for _, word, _ in turns])
    U = dp.components(models.weights(model)["W_E"], cfg.n_action)
    base = jnp.zeros((cfg.n_prefix, U.shape[-1]))
    space = dp.Space(base, jnp.tile(U, (cfg.n_prefix, 1, 1)), int(tokenizer.bos_id is not None))
    part = slice(cfg.n_states * cfg.n_samples)
    space, divergence = dp.cloned(model, space, some.rows(part), without[part], cfg.n_cloning)
    shape = (cfg.n_prefix, cfg.n_action)
    start = dp.new(keys[0], some.states.shape[-1], cfg.width, shape)
    sizes: dict[str, Any] = {"n_steps": cfg.n_steps, "n_states": cfg.n_states, "n_samples": cfg.n_samples}
    sizes |= {"sigma": cfg.sigma, "learning_rate": cfg.learning_rate}
    found: dict[str, Any] = {"divergence": np.asarray(divergence), "reward": {}}
    policies: dict[str, Any] = {"no prefix": None, "cloned prefix": lambda s: jnp.zeros((len(s), *shape))}
    for name, (policy, through) in TRAINED.items():
        begin(name)
        sizes["n_samples"] = 1 if through else cfg.n_samples
        made, found["reward"][name] = dp.trained(model, space, start, policy, some, keys[1], through=through, **sizes)
        policies[name] = partial(policy, made)
    size = jnp.sqrt(jnp.square(policies["planner"](some.states)).mean())
    policies["random prefix"] = lambda s: size * jax.random.normal(keys[2], (len(s), *shape))
    begin("talking")
    tested = [make(rng, cfg.n_test, False) for _ in range(cfg.n_turns)]
    for name in WAYS:
        policy = policies[name]
        prefix = None if policy is None else lambda some, policy=policy: dp.edits(space, policy(some.states))
        found[name] = talked(cfg, model, tokenizer, tested, prefix)
    return found


def main(cfg: Tokens) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    one = lambda seed, begin: study(cfg, model, tokenizer, seed, begin)  # noqa: E731
    found = runs.each(cfg.seeds, 5, "dialogues", one, lambda found: runs.write("dialogue_action_tokens", cfg, found))
    rows = []
    for name in WAYS:
        row = {"way": name} | {f"turn {i + 1}": runs.cell(found[name][:, i, 0]) for i in range(cfg.n_turns)}
        rows.append(row | {"right answers": runs.cell(found[name][..., 1].mean(1))})
    about = f"{cfg.model}: answers that begin as is wanted, mean ± spread over seeds {list(cfg.seeds)}"
    gained = {name: np.stack([x[:, :10].mean(1), x[:, -10:].mean(1)]) for name, x in found["reward"].items()}
    story = "; ".join(f"{name}: {runs.cell(x[0])} to {runs.cell(x[1])}" for name, x in gained.items())
    story = (
        f"Cloning leaves {runs.cell(found['divergence'][:, -1], 3)} nats between the model with its prefix and without "
        f"it. Reward in nats over the first ten steps and the last, with noise: {story}."
    )
    titles = ("answers that begin as is wanted", "reward by step, nats")
    figure = make_subplots(cols=2, subplot_titles=titles)
    for name in WAYS:
        values = found[name][..., 0].mean(1)
        figure.add_bar(x=[name], y=[values.mean()], error_y={"array": [runs.spread(values)]}, showlegend=False)
    for name, values in found["reward"].items():
        figure.add_scatter(y=values.mean(0), name=name, row=1, col=2)
    figure.update_layout(title=f"Prefixes chosen for {Path(cfg.model).name}").update_xaxes(title_text="step", col=2)
    runs.finish("dialogue_action_tokens", cfg, found, figure, about, runs.table(rows), story)
    return found


if __name__ == "__main__":
    main(config.load(Tokens, "configs/dialogue_action_tokens.toml"))
