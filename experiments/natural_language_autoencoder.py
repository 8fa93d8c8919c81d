"""What is in an activation, in words: do they keep it, and are they true? A natural-language autoencoder in small.

A verbaliser takes an activation of the microworld in the place of one token and writes a text, a reconstructor makes
the activation of the text ("Natural language autoencoders", 2026): the fraction of variance explained (FVE) is what the
words keep of its direction. Both are trained on texts of contexts, then by reward, -2 (1 - cos). Each context has
planted facts (who, where, with what, ...), so what a text states can be checked: a stated fact that the context does
not have is a confabulation. Beside them: the true text as the upper bound, the same with each fact exchanged for
another, its last word alone, the text of another activation, and a linear probe that is told how many facts there are.

    python experiments/natural_language_autoencoder.py [--model microworld-narrow] [--out DIR]

Six minutes on two cores. Contexts that are measured hold out combinations of words.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
import verbal_contexts as contexts
import verbalisers

from interp_jax import config, models
from interp_jax.data import microworld
from interp_jax.explain import embedding_norm, fve, reward

WORLD = microworld.WORLD
COLUMNS = ("FVE", "stated", "right", "said", "confabulated", "texts with a confabulation")
CHANCE = "another's text"


@dataclass(frozen=True)
class Autoencoder:
    model: str
    layer: int  # K, after which activations are read
    n_train: int  # contexts
    n_test: int
    n_tokens: int  # of a text, at most
    n_steps: int  # of the warm start
    n_steps_reward: int
    batch_size: int
    n_samples: int  # texts of an activation: of a group, and of which the best is taken
    learning_rate: float
    learning_rate_reward: float
    penalty: float  # of a nat by which a word's distribution drifts from the warm start's
    l2: float  # of the probe
    seeds: tuple[int, ...]
    out: Path


def unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def facts_of(tokens: jax.Array) -> list[set[str]]:
    """What texts `[text position]` state."""
    rows = np.asarray(tokens)[:, contexts.START :]
    return [contexts.facts(contexts.words_of(row, WORLD)) for row in rows]


def probe(cfg: Autoencoder, x: jax.Array, y: jax.Array, train: list[set[str]], test: list[set[str]]) -> list[set[str]]:
    """As many facts of each context as it has, those that a ridge regression finds the likeliest."""
    words = list(contexts.KIND_OF)
    present = np.array([[word in facts for word in words] for facts in train], np.float32)
    likely = Ridge(alpha=cfg.l2).fit(np.asarray(x), present).predict(np.asarray(y))
    order = np.argsort(-likely, axis=1)
    return [{words[i] for i in row[: len(facts)]} for row, facts in zip(order, test, strict=True)]


def study(cfg: Autoencoder, model: Any, seed: int, begin: Any) -> dict:
    """By way of speaking and column a number; and by kind of fact."""
    begin("contexts")
    train = contexts.draw(WORLD, seed, cfg.n_train, "train")
    test = contexts.draw(WORLD, seed, cfg.n_test, "heldout")
    site = f"blocks.{cfg.layer}.resid_post"
    norm = embedding_norm(models.forward, model, train.tokens, attention_mask=train.mask)
    head = (WORLD.token_id["<bos>"], WORLD.token_id["<unk>"])
    place = verbalisers.Place(site, head, WORLD.token_id["."], cfg.n_tokens, norm)
    x, y = (verbalisers.states(model, site, some) for some in (train, test))
    mean = unit(x).mean(0)
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    begin("warm start")
    warm = verbalisers.begun(model, place, train, x, cfg, rng)
    begin("reward")
    tuned, told = verbalisers.rewarded(warm, place, x, cfg, rng, key)
    found: dict[str, Any] = {"reward": told}
    true = test.facts

    def tell(name: str, speech: verbalisers.Speech, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """Puts down how texts do, and gives the reward of each."""
        heard = verbalisers.vectors_of(speech.reconstructor, place, tokens, mask)
        said = facts_of(tokens)
        found[name] = {"FVE": float(fve(unit(y), unit(heard), mean)), **contexts.judged(said, true)}
        found[f"{name}, kinds"] = {kind: contexts.judged(said, true, kind) for kind in contexts.KINDS}
        return reward(y, heard)

    for stage, speech in {"warm start": warm, "by reward": tuned}.items():
        begin(f"{stage}: texts")
        tokens, mask = verbalisers.said(speech.verbaliser, place, y)
        value = tell(stage, speech, tokens, mask)
        if stage == "by reward":
            wrong = [bool(said - facts) for said, facts in zip(facts_of(tokens), true, strict=True)]
            found["warning"] = roc_auc_score(wrong, -np.asarray(value)) if 0 < sum(wrong) < len(wrong) else np.nan
            tell(CHANCE, speech, jnp.roll(tokens, 1, axis=0), jnp.roll(mask, 1, axis=0))
        drawn = [
            verbalisers.said(speech.verbaliser, place, y, jax.random.fold_in(key, i)) for i in range(cfg.n_samples)
        ]
        hear = partial(verbalisers.vectors_of, speech.reconstructor, place)
        values = jnp.stack([reward(y, hear(*one)) for one in drawn])
        tell(f"{stage}, sampled", speech, *drawn[0])
        best = values.argmax(0)
        tokens, mask = (jnp.stack(parts)[best, jnp.arange(len(y))] for parts in zip(*drawn, strict=True))
        tell(f"{stage}, best of {cfg.n_samples}", speech, tokens, mask)
    begin("bounds")
    tell("the true text", warm, *verbalisers.rows(place, test.texts))
    wrong = [contexts.exchanged(text, WORLD, random.Random(f"{seed} {i}")) for i, text in enumerate(test.texts)]
    tell("with other facts", warm, *verbalisers.rows(place, wrong))
    tell("its last word", warm, *verbalisers.rows(place, [text[-3:] for text in test.texts]))
    found["probe"] = {"FVE": np.nan, **contexts.judged(probe(cfg, x, y, train.facts, true), true)}
    return found


def draw(found: dict, names: list[str]) -> go.Figure:
    """What words keep beside what they confabulate."""
    figure = go.Figure()
    for column in ("FVE", "right", "said"):
        values = [found[name][column] for name in names]
        error = {"array": [runs.spread(value) for value in values]}
        figure.add_bar(x=names, y=[np.mean(value) for value in values], error_y=error, name=column)
    figure.update_layout(title="Activations in words: what is kept, and what is true", barmode="group")
    return figure.update_yaxes(range=[min(-0.1, *(np.mean(found[name]["FVE"]) for name in names)) - 0.05, 1.05])


def main(cfg: Autoencoder) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    if not cfg.model.startswith("microworld"):
        raise SystemExit(f"{cfg.model}: facts are planted in the microworld's language alone; give a microworld")
    model, _ = models.load(cfg.model, dtype="float32")
    found = runs.each(
        cfg.seeds,
        6,
        "activations in words",
        lambda seed, begin: study(cfg, model, seed, begin),
        lambda found: runs.write("natural_language_autoencoder", cfg, found),
    )
    names = [name for name in found if isinstance(found[name], dict) and "FVE" in found[name]]
    table = [{"texts": name} | {column: runs.cell(found[name][column]) for column in COLUMNS} for name in names]
    kinds = [
        {"by reward": kind}
        | {column: runs.cell(found["by reward, kinds"][kind][column]) for column in ("stated", "right", "said")}
        | {"right by chance": runs.cell(found[f"{CHANCE}, kinds"][kind]["right"])}
        for kind in contexts.KINDS
    ]
    about = (
        f"{cfg.model}, blocks.{cfg.layer}.resid_post, contexts with held-out combinations, mean ± spread over seeds "
        f"{list(cfg.seeds)}: variance explained; facts stated a text, the share of these that are right, the share "
        "of the facts there that are said."
    )
    story = (
        f"The mean reward goes from {runs.cell(found['reward'][:, :5].mean(1), 3)} over the first five steps to "
        f"{runs.cell(found['reward'][:, -5:].mean(1), 3)} over the last. That a text is heard badly warns of a "
        f"confabulation with an AUC of {runs.cell(found['warning'])}."
    )
    figure = draw(found, [name for name in names if name != "probe"])
    runs.finish("natural_language_autoencoder", cfg, found, figure, about, runs.table(table), runs.table(kinds), story)
    return found


if __name__ == "__main__":
    main(config.load(Autoencoder, "configs/natural_language_autoencoder.toml"))
