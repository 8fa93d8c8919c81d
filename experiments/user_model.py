"""Whom does a chat model take its user for, and can that be changed? Probes that read it, and probes that control it.

Chen et al. 2024, "Designing a dashboard for transparency and control of conversational AI" (TalkTuner),
https://arxiv.org/abs/2406.07882. A reading probe is trained where the model is about to say what the user is: after "I
think the age of this user is", or at the word of `microworld-chat`'s answer that shows it; a control probe at the
user's last token. Control adds N times the direction of the wanted value at unit norm, at each of a range of layers, to
the last token and to all that is generated. Beside both stand random directions and probes of shuffled labels.

    python experiments/user_model.py [--model smollm2.gguf] [--out DIR]

Two minutes on two cores. `microworld-chat` answers users with pairs of thing and question that it has not seen: a
success is the wanted value's word, and what else the answer shows must stay. Another model is asked for a name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import concepts
import doses
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
import runs
import user_attributes
import user_model_answers as answers
from user_model_answers import SITE

from interp_jax import config, models, probes, steering

KINDS = ("reading", "control", "random", "shuffled")


@dataclass(frozen=True)
class Control:
    model: str
    n: int  # conversations that probes are trained on
    n_users: int  # that are controlled
    n_messages: int  # of a real conversation, as in user_attributes.py
    n_positions: int
    n_texts: int  # of perplexity
    attributes: tuple[str, ...]
    l2: float
    layers: tuple[int, int]  # the first and the last at which the vector is added
    strengths: tuple[float, ...]  # N, 0 first
    seeds: tuple[int, ...]  # of splits and users
    out: Path


def last_of_user(these: concepts.Concept) -> concepts.Concept:
    """The same conversations up to the last token of the user's last turn."""
    if these.chat is None:
        prompts = [text.rpartition(" <assistant>")[0] for text in these.prompts]
        return concepts.Concept(prompts, these.y, these.names, these.groups)
    prompts = [messages[:-1] for messages in these.prompts]
    return concepts.Concept(prompts, these.y, these.names, these.groups, {"add_generation_prompt": False})


def fitted(
    cfg: Control, x: dict, these: concepts.Concept, seed: int
) -> dict[str, tuple[probes.LinearProbe, np.ndarray]]:
    """Each kind of probe of every layer, and its accuracy `[layer]` on other users."""
    train = concepts.split(these, seed)
    found = {kind: concepts.fit(x[kind], these.y, train, cfg.l2) for kind in ("reading", "control")}
    shuffled = np.random.default_rng(seed).permutation(these.y)
    return found | {"shuffled": concepts.fit(x["control"], shuffled, train, cfg.l2)}


def directions(probe: probes.LinearProbe, value: int) -> jax.Array:
    """Of each block, the unit vector along which a value grows likelier than the others `[layer d_model]`."""
    theta = probe.W[1:, value] - np.delete(np.asarray(probe.W[1:]), value, axis=1).mean(1)  # without the embeddings
    return theta / jnp.linalg.norm(theta, axis=-1, keepdims=True)


def study(cfg: Control, model, tokenizer, attribute: str, these: concepts.Concept, begin) -> dict[str, np.ndarray]:
    """Of each seed, kind of vector and strength, the mean over values: success, the rest kept, perplexity."""
    begin("states")
    x = {"reading": concepts.states(model, tokenizer, these)}
    x["control"] = concepts.states(model, tokenizer, last_of_user(these))
    texts = doses.texts(cfg.model, tokenizer, cfg.n_texts, without=("user",))
    measure, layers = doses.perplexity(model, texts), range(cfg.layers[0], cfg.layers[1] + 1)
    told, accuracy = [], []
    for seed in cfg.seeds:
        begin(f"seed {seed}")
        fits = fitted(cfg, x, these, seed)
        accuracy.append([fits[kind][1] for kind in ("reading", "control")])
        asked = answers.users(cfg, tokenizer, attribute, these, seed)
        of_values = []
        for value, name in enumerate(these.names):
            vectors = {kind: directions(fits[kind][0], value) for kind in fits}
            key = jax.random.fold_in(jax.random.key(seed), value)
            vectors["random"] = steering.random(key, vectors["control"])
            run = answers.Run(model, tokenizer, asked, attribute, name)
            of_values.append([dose(cfg, run, vectors[kind], layers, measure) for kind in KINDS])
        told.append(np.mean(of_values, 0))  # [kind strength 3]
    success, kept, perplexity = np.moveaxis(np.array(told), -1, 0)
    found = {"success": success, "kept": kept, "perplexity": perplexity, "accuracy": np.array(accuracy)}
    return found | {"labels": list(these.names), "board": board(cfg, run, fits, told[-1], layers)}


def dose(cfg: Control, run: answers.Run, vectors: jax.Array, layers: range, measure: Callable) -> np.ndarray:
    """Success, the rest kept, and perplexity of texts steered all over, `[strength 3]`."""
    vector = steering.SteeringVector.create(vectors, SITE).at_layers(*layers)
    rows = []
    for strength in cfg.strengths:
        edit = vector.edit(strength)
        rows.append((*run.judge(edit), measure({SITE: edit})))
    return np.array(rows)


def board(cfg: Control, run: answers.Run, fits: dict, told: np.ndarray, layers: range) -> list[dict[str, str]]:
    """What stands in a dashboard: of a few users what is read and answered before, and after control to another value.

    The kind of probe and the strength are the best of `told` `[kind strength 3]`, the rest kept.
    """
    scores = told[:2, :, 0] * np.nan_to_num(told[:2, :, 1], nan=1.0)
    best, dosed = np.unravel_index(scores.argmax(), scores.shape)
    names = run.users.names
    vectors = directions(fits[KINDS[best]][0], names.index(run.wanted))
    edit = steering.SteeringVector.create(vectors, SITE).at_layers(*layers).edit
    edits = edit(0.0), edit(cfg.strengths[dosed])
    before, after = (run.read(fits["reading"][0], layers[-1], one) for one in edits)
    said = [run.said(one) for one in edits]
    return [
        {
            "user": run.users.labels[i],
            "read": f"{names[before[i].argmax()]} {before[i].max():.2f}",
            "answer": said[0][i],
            "set to": f"{run.wanted} ({KINDS[best]}, N {cfg.strengths[dosed]:g})",
            "read after": f"{names[after[i].argmax()]} {after[i].max():.2f}",
            "answer after": said[1][i],
        }
        for i in np.flatnonzero(np.array(run.users.labels) != run.wanted)[:3]
    ]


def draw(cfg: Control, found: dict[str, dict]) -> go.Figure:
    title = f"Control of the user, {Path(cfg.model).name}, layers {cfg.layers[0]} to {cfg.layers[1]}"
    behaviours = {kind: np.mean([of["success"][:, i] for of in found.values()], 0) for i, kind in enumerate(KINDS)}
    costs = {kind: np.mean([of["perplexity"][:, i] for of in found.values()], 0) for i, kind in enumerate(KINDS)}
    return doses.draw(title, cfg.strengths, behaviours, costs)


def story(cfg: Control, found: dict[str, dict]) -> str:
    success = np.mean([of["success"] for of in found.values()], 0)  # [seed kind strength]
    said = [f"{kind} {doses.told(cfg.strengths, success[:, i])}" for i, kind in enumerate(KINDS)]
    return f"The share of answers with the wanted value, over all attributes: {'; '.join(said)}."


def main(cfg: Control) -> dict[str, dict]:
    """What `study` finds of each attribute, by its name."""
    model, tokenizer = models.load(cfg.model, dtype="float32", scan_layers=True)  # compiles quicker
    world = cfg.model.startswith("microworld")
    told = user_attributes.Users(cfg.model, cfg.n, cfg.n_messages, cfg.n_positions, cfg.l2, cfg.seeds, cfg.out)
    sets = (user_attributes.of_world if world else user_attributes.of_people)(told, tokenizer)
    found: dict[str, dict] = {}

    def one(attribute: str, begin) -> dict:
        found[attribute] = study(cfg, model, tokenizer, attribute, sets[attribute], begin)
        runs.write("user_model", cfg, found)
        return {}

    runs.each(list(cfg.attributes), 1 + len(cfg.seeds), "attributes", one, lambda _: None)
    about = (
        f"{cfg.model}: users whose {' or '.join(cfg.attributes)} is set to another value by N times a unit vector, "
        f"layers {cfg.layers[0]} to {cfg.layers[1]}, seeds {list(cfg.seeds)}: the wanted answer / the rest kept"
    )
    rows, boards = [], []
    for attribute, of in found.items():
        boards += of["board"]
        for i, kind in enumerate(KINDS):
            row = {"": f"{attribute}, {kind}"}
            if i < 2:
                row["read"] = runs.cell(of["accuracy"][:, i, cfg.layers[1] + 1])
            for j, strength in enumerate(cfg.strengths):
                row[f"N {strength:g}"] = f"{runs.cell(of['success'][:, i, j])} / {of['kept'][:, i, j].mean():.2f}"
            rows.append(row | {"perplexity": " ".join(f"{x:.2f}" for x in of["perplexity"][:, i].mean(0))})
    dashboard = runs.table(boards)
    runs.finish("user_model", cfg, found, draw(cfg, found), about, runs.table(rows), dashboard, story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Control, "configs/user_model.toml"))
