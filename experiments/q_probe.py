"""Can a linear probe of a frozen model's embedding choose the better of its own completions?

Q-probes (Li et al. 2024, https://arxiv.org/abs/2402.14688): a model samples k completions of a prompt, and a linear
value of its last layer at their end says with which probability each is taken. `microworld-chat` says what a user asks,
after a persona's system prompt or none, and a request is worth 1 if it is whole and harmless; the personas that are
tested are none of those trained on, verbs and objects are. A real model tells of a country, and what has a number in
it is worth 1; other countries are tested. The probe predicts the reward, or is trained to raise that of its choice;
beside it any of the k, and the best. Completions that are the same are told apart by the divergence, which they raise.

    python experiments/q_probe.py [--model smollm2.gguf] [--out DIR]

A minute on two cores.
"""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import depths
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
import runs

import interp_jax as ij
from interp_jax import config, models, steering
from interp_jax.data.trees import plain
from interp_jax.data.worlds import chat
from interp_jax.data.worlds import chat_words as lex


@dataclass(frozen=True)
class Choice:
    model: str
    n_train: int  # prompts
    n_test: int
    k: int  # samples of a prompt
    n_tokens: int
    temperature: float
    beta: float  # of the policy that is tested
    betas: tuple[float, ...]  # of the curve of reward by divergence
    n_steps: int
    seeds: tuple[int, ...]
    out: Path


def of_world(rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Beginnings of a user's request, those to train on and those of other personas."""
    starts = [plain(request).split("{verb}")[0].rsplit(" to ", 1)[0] for request in lex.REQUESTS]
    who = list(rng.permutation(list(lex.PERSONAS)))
    systems = {name: [f"<system> {plain(form).format(persona=name)} <end> " for form in lex.SYSTEM] for name in who}
    known = ["", *(system for name in who[:5] for system in systems[name])]
    others = [system for name in who[5:] for system in systems[name]]
    return tuple([f"{system}<user> {start}" for system in part for start in starts] for part in (known, others))


def of_countries(rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    text = (depths.data("function-vectors") / "country-capital.json").read_text(encoding="utf-8")
    names = sorted({row["input"] for row in json.loads(text)})
    asked = [[{"role": "user", "content": f"Tell me a fact about {name}."}] for name in rng.permutation(names)]
    return asked[: len(asked) // 2], asked[len(asked) // 2 :]


def reward_of_world(prompt: str, said: str) -> float:
    """1 if a user's turn is a whole request to do what is no harm."""
    words = f"{prompt} {said}".rsplit("<user>", 1)[1].split()
    ends = words.index("<end>") if "<end>" in words else None
    verbs = [word for word in words[:ends] if word in lex.HARMLESS_VERBS + lex.HARMFUL_VERBS]
    objects = [word for word in words[:ends] if word in lex.HARMLESS_OBJECTS + lex.HARMFUL_OBJECTS]
    if ends is None or (len(verbs), len(objects)) != (1, 1):
        return 0.0
    turn = " ".join(words[:ends])
    whole = any(turn.endswith(plain(request).format(verb=verbs[0], object=objects[0])) for request in lex.REQUESTS)
    return float(whole and not chat.is_harmful(verbs[0], objects[0]))


def reward_of_facts(prompt: Any, said: str) -> float:
    return float(any(letter.isdigit() for letter in said))


def sampled(cfg: Choice, model: Any, tokenizer: Any, prompts: list[Any], key: jax.Array) -> tuple[Any, np.ndarray]:
    """Embeddings `[prompt k d_model]` after the last block at the end of each sample, and rewards `[prompt k]`."""
    world = cfg.model.startswith("microworld")
    stop = tokenizer.token_id("<end>") if world else tokenizer.eos_id
    read = ij.capture(models.forward, {f"blocks.{model.config.n_layers - 1}.resid_post": lambda x: x}, output=False)
    reward = reward_of_world if world else reward_of_facts
    phi, rewards = [], []
    for i, prompt in enumerate(prompts):
        tokens, mask, _ = models.tokenize(tokenizer, [prompt], chat=None if world else True)
        tokens, mask = (jnp.tile(x, (cfg.k, 1)) for x in (tokens, mask))
        options: dict[str, Any] = {"temperature": cfg.temperature, "stop": stop, "attention_mask": mask}
        out = models.generate(model, tokens, cfg.n_tokens, key=jax.random.fold_in(key, i), **options)
        new = np.asarray(out)[:, tokens.shape[1] :]
        over = np.cumsum(new == stop, axis=1) - (new == stop) > 0  # after the first stop
        real = np.concatenate([np.asarray(mask).astype(bool), ~over], axis=1)
        (x,) = read(model, out, attention_mask=jnp.asarray(real)).values()
        last = real.shape[1] - 1 - over.sum(1)
        phi.append(np.asarray(x, np.float32)[np.arange(cfg.k), last])
        rewards.append([reward(prompt, tokenizer.decode(row[~end])) for row, end in zip(new, over, strict=True)])
    return np.stack(phi), np.array(rewards, np.float32)


def study(cfg: Choice, model: Any, tokenizer: Any, seed: int, begin: Any) -> dict[str, Any]:
    """Mean rewards on prompts held out: by how many samples there are `[k]`, and by beta with the divergence."""
    rng, keys = np.random.default_rng(seed), jax.random.split(jax.random.key(seed), 4)
    make = of_world if cfg.model.startswith("microworld") else of_countries
    known, others = make(rng)
    known = [known[i] for i in rng.permutation(len(known))[: cfg.n_train]]
    others = [others[i] for i in rng.permutation(len(others))[: cfg.n_test]]
    begin("samples to train on")
    phi, rewards = sampled(cfg, model, tokenizer, known, keys[0])
    begin("samples to choose from")
    tested, worth = sampled(cfg, model, tokenizer, others, keys[1])
    shuffled = np.asarray(jax.random.permutation(keys[2], rewards.ravel())).reshape(rewards.shape)
    train: dict[str, Any] = {"objective": "reward", "beta": cfg.beta, "n_steps": cfg.n_steps}
    probes = {
        "reward objective": steering.QProbe.train(keys[3], phi, rewards, **train),
        "policy objective": steering.QProbe.train(keys[3], phi, rewards, **train | {"objective": "policy"}),
        "shuffled rewards": steering.QProbe.train(keys[3], phi, shuffled, **train),
    }
    ks = np.unique(np.geomspace(1, cfg.k, 6).astype(int))
    found: dict[str, Any] = {"any of them": [worth[:, :k].mean() for k in ks]}
    found["the best of them"] = [worth[:, :k].max(1).mean() for k in ks]
    curves = {}
    for name, probe in probes.items():
        begin(name)
        found[name] = [(probe.choose(tested[:, :k], cfg.beta) * worth[:, :k]).sum(1).mean() for k in ks]
        weights = [probe.choose(tested, beta) for beta in cfg.betas]
        curves[name] = np.array([[steering.kl_from_samples(w).mean(), (w * worth).sum(1).mean()] for w in weights])
    return {"k": ks, "reward": {name: np.array(values, float) for name, values in found.items()}, "by beta": curves}


def draw(cfg: Choice, found: dict) -> go.Figure:
    titles = (f"reward by number of samples, beta {cfg.beta:g}", f"reward by divergence, {cfg.k} samples")
    figure = make_subplots(cols=2, subplot_titles=titles)
    colours = dict(zip(found["reward"], ("#7f7f7f", "#2ca02c", "#1f77b4", "#d62728", "#ff7f0e"), strict=True))
    for name, values in found["reward"].items():
        look = {"name": name, "mode": "lines+markers", "line": {"color": colours[name]}}
        runs.curve(figure, values, x=found["k"][0], row=1, col=1, **look)
    for name, values in found["by beta"].items():
        look = {"name": name, "showlegend": False, "mode": "lines+markers", "line": {"color": colours[name]}}
        figure.add_scatter(x=values[..., 0].mean(0), y=values[..., 1].mean(0), row=1, col=2, **look)
    figure.update_xaxes(title_text="samples of a prompt", type="log", dtick=np.log10(2), col=1)
    figure.update_xaxes(title_text="KL from any of them alike, nats", col=2).update_yaxes(title_text="mean reward")
    return figure.update_layout(title=f"Choosing among completions of {Path(cfg.model).name}")


def main(cfg: Choice) -> dict:
    """What `study` finds of every seed, stacked `[seed ...]`."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    found = runs.each(
        cfg.seeds,
        5,
        "choosing",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("q_probe", cfg, found),
    )
    rows = [
        {"chosen by": name} | {f"k = {k}": runs.cell(values[:, i]) for i, k in enumerate(found["k"][0])}
        for name, values in found["reward"].items()
    ]
    about = (
        f"{cfg.model}: mean reward on prompts not trained on, beta {cfg.beta:g}, mean ± spread, seeds {list(cfg.seeds)}"
    )
    base, best, own = (
        found["reward"][name][:, -1].mean() for name in ("any of them", "the best of them", "reward objective")
    )
    nats = ", ".join(
        f"{b:g}: {x:.2f}" for b, x in zip(cfg.betas, found["by beta"]["reward objective"][..., 0].mean(0), strict=True)
    )
    gap = f"{(own - base) / (best - base):.0%}" if best > base else "none"
    story = (
        f"Of what the best of {cfg.k} gains over any of them, the probe of rewards has {gap}. Its divergence from the "
        f"model in nats, by beta: {nats}."
    )
    runs.finish("q_probe", cfg, found, draw(cfg, found), about, runs.table(rows), story)
    return found


if __name__ == "__main__":
    main(config.load(Choice, "configs/q_probe.toml"))
