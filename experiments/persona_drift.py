"""How long does a chat model stay the persona of its system prompt, and does split-softmax keep it there?

Li et al. 2024, "Measuring and controlling instruction (in)stability in language model dialogs",
https://arxiv.org/abs/2402.10962. The model talks with itself: as a user that has not read the system prompt, and as the
assistant. Told by turn are the share of answers that are the persona's and the attention that the system prompt gets at
the answer's place, over all heads. Split-softmax turns attention to the system prompt by an exponent k; 1 is the model
as it is. Beside it stands the system prompt repeated before the last question. The cost is the perplexity, and of the
microworld the accuracy, of words that the persona has no say in: its answers' between the first and the last, in
dialogs with right answers so far, or of WikiText-2 after the system prompt.

    python experiments/persona_drift.py [--model smollm2.gguf] [--out DIR]

Three minutes on two cores. The microworld's personas last in training for up to 4 turns.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import persona_dialogs as dialogs
import plotly.graph_objects as go
import runs

import interp_jax as ij
from interp_jax import config, models, steering

PATTERN = "blocks.attn.pattern"
TOLD = {"stays": "self-chats", "forced": "right answers so far", "mass": "attention on the prompt"}
PLAIN = ("k 1", "repeated")  # without an edit
PRICED = ("perplexity", "accuracy", "lured", "not lured")


@dataclass(frozen=True)
class Drift:
    model: str
    n: int  # dialogs
    n_turns: int
    exponents: tuple[float, ...]  # k, 1 first
    start: int  # the first token of the system prompt: 1 leaves out that on which heads rest
    user_tokens: int  # of a turn of the user at most
    answer_tokens: int
    temperature: float  # of the user
    seeds: tuple[int, ...]  # of personas, questions and dialogs
    out: Path


Message = dict[str, str]


def say(cfg: Drift, model, tokenizer, some: list[list[Message]], key, k: float) -> tuple[list[str], np.ndarray]:
    """The next turns, an answer with the likeliest words or the user's drawn, and the attention on system prompts."""
    role = "user" if some[0][-1]["role"] == "assistant" else "assistant"
    chat = {"continue_final_message": True} if role == "user" else True
    asked = [[*one, {"role": "user", "content": ""}] if role == "user" else one for one in some]
    tokens, mask, _ = models.tokenize(tokenizer, asked, chat=chat)
    n_new = cfg.user_tokens if role == "user" else cfg.answer_tokens
    mass, edits, drawn = np.zeros(len(some)), {}, {"key": key, "temperature": cfg.temperature}
    if role == "assistant":
        stop, wider = stops(tokenizer, some), ((0, 0), (-tokens.shape[1] % 32, 0))  # few widths: few programs
        mass = np.asarray(attention(model, np.pad(tokens, wider), np.pad(mask, wider), cfg.start, stop))
        edits, drawn = {PATTERN: steering.split_softmax(k, stop, start=cfg.start)}, {}
    stop_at = tokenizer.eos_id
    out = models.generate(model, tokens, n_new, attention_mask=mask, edits=edits, stop=stop_at, **drawn)
    said = []
    for row in np.asarray(out)[:, tokens.shape[1] :].tolist():
        said.append(tokenizer.decode(row[: row.index(stop_at)] if stop_at in row else row).strip() or "...")
    return said, mass


def stops(tokenizer, some: list[list[Message]]) -> np.ndarray:
    """How many tokens stand before the end of each system prompt."""
    return np.array([len(tokenizer.encode(one[:1], chat={"add_generation_prompt": False})) for one in some], np.int32)


@jax.jit
def attention(model, tokens, mask, start, stop):
    """The weight of the system prompt's tokens at the last token, the mean over layers and heads `[batch]`."""
    first = jnp.argmax(mask, -1)[:, None]
    key = jnp.arange(tokens.shape[1]) - first
    inside = (key >= start) & (key < stop[:, None])

    def reduce(pattern):
        return (pattern[:, :, -1] * inside[:, None]).sum(-1)

    acts = ij.capture(models.hidden, {PATTERN: reduce}, output=False)(model, tokens, attention_mask=mask)
    return acts[PATTERN].mean((0, 2))


def talk(cfg: Drift, model, tokenizer, who: list[dialogs.Part], key, k: float, repeat: bool) -> dict[str, np.ndarray]:
    """Whether each answer is the persona's, and the attention that its system prompt had, `[turn]` means."""
    some = [[{"role": "system", "content": one.system}] for one in who]
    stays, masses = [], []
    for turn in range(cfg.n_turns):
        if turn:  # the user has not read the system prompt
            asked, _ = say(cfg, model, tokenizer, [one[1:] for one in some], jax.random.fold_in(key, turn), 1.0)
        else:
            asked = [one.opening for one in who]
        some = [[*one, {"role": "user", "content": text}] for one, text in zip(some, asked, strict=True)]
        told = [[*one[:-1], one[0], one[-1]] for one in some] if repeat and turn else some
        said, mass = say(cfg, model, tokenizer, told, None, k)
        some = [[*one, {"role": "assistant", "content": text}] for one, text in zip(some, said, strict=True)]
        stays.append(np.mean([part.plays(text) for part, text in zip(who, said, strict=True)]))
        masses.append(mass.mean())
    return {"stays": np.array(stays), "mass": np.array(masses)}


@partial(jax.jit, static_argnames="start")
def forced(model, tokens, mask, predicted, stop, k, start):
    """Perplexity and accuracy of the words to be predicted, and the likeliest next word at each place."""
    edits = {PATTERN: steering.split_softmax(k, stop, start=start)}
    logits = ij.intervene(models.forward, edits)(model, tokens, attention_mask=mask)[:, :-1].astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    counted, best = predicted[:, 1:], logits.argmax(-1)
    return jnp.exp(losses.mean(where=counted)), (best == tokens[:, 1:]).mean(where=counted), best


def costs(cfg: Drift, model, some: dialogs.Answers, k: float) -> dict[str, np.ndarray]:
    """Perplexity, accuracy; and whether answers are the persona's after right ones, `[turn]`, and after lures."""
    texts = some.texts
    perplexity, accuracy, best = forced(model, texts.tokens, texts.mask, texts.predicted, some.stop, k, cfg.start)
    right = np.asarray(best) == texts.tokens[:, 1:]
    both = np.take_along_axis(right, some.opens, 1) & np.take_along_axis(right, some.closes, 1)
    told = {"perplexity": float(perplexity), "accuracy": float(accuracy)}
    if both.size:
        told |= {"forced": both.mean(0)}
        told |= {"lured": both.mean(where=some.lured), "not lured": both.mean(where=~some.lured)}
    return {name: np.asarray(value) for name, value in told.items()}


def study(cfg: Drift, model, tokenizer, seed: int, begin) -> dict[str, dict[str, np.ndarray]]:
    """By condition: what `talk` and `costs` tell."""
    who, key = dialogs.parts(cfg.model, tokenizer, cfg.n, seed), jax.random.key(seed)
    texts = dialogs.answers(cfg.model, tokenizer, cfg.n, cfg.n_turns, seed)
    found = {}
    for k in cfg.exponents:
        begin(f"k {k:g}")
        found[f"k {k:g}"] = talk(cfg, model, tokenizer, who, key, k, False) | costs(cfg, model, texts, k)
    begin("repeated")
    return found | {"repeated": talk(cfg, model, tokenizer, who, key, 1.0, True)}


def draw(cfg: Drift, found: dict) -> go.Figure:
    figure = go.Figure(layout={"title": f"Answers that are the persona's, {Path(cfg.model).name} with itself"})
    turns = list(range(1, cfg.n_turns + 1))
    for name, of in found.items():
        runs.curve(figure, of["stays"], x=turns, name=name, mode="lines+markers")
    look = {"name": "attention on the system prompt, k 1", "line": {"dash": "dot"}}
    runs.curve(figure, found["k 1"]["mass"], x=turns, **look)
    return figure.update_layout(xaxis_title="turn", yaxis_title="share")


def story(cfg: Drift, found: dict) -> str:
    plain = found["k 1"]
    late = {name: of["stays"][:, cfg.n_turns // 2 :].mean(1) for name, of in found.items()}
    best = max((name for name in found if name not in PLAIN), key=lambda name: late[name].mean())
    cell = runs.cell
    mass, price = plain["mass"], {name: cell(found[name]["perplexity"], 3) for name in ("k 1", best)}
    return (
        f"In the later half of the turns {cell(late['k 1'])} of answers are the persona's (in the first "
        f"{cell(plain['stays'][:, 0])}); with the system prompt repeated {cell(late['repeated'])}, with split-softmax "
        f"at best {cell(late[best])}, at {best}, where perplexity goes from {price['k 1']} to {price[best]}. The "
        f"system prompt's attention falls from {cell(mass[:, 0], 3)} at the first answer to {cell(mass[:, -1], 3)}."
    )


def main(cfg: Drift) -> dict:
    """What `study` finds by condition, of each seed."""
    model, tokenizer = models.load(cfg.model, dtype="float32", scan_layers=True)  # compiles quicker
    found = runs.each(
        cfg.seeds,
        len(cfg.exponents) + 1,
        "persona, seed",
        lambda seed, begin: study(cfg, model, tokenizer, seed, begin),
        lambda found: runs.write("persona_drift", cfg, found),
    )
    tables = []
    for what, title in TOLD.items():
        of = {name: these[what] for name, these in found.items() if what in these and (what != "mass" or name in PLAIN)}
        rows = [
            {title: name} | {f"turn {i + 1}": runs.cell(turn) for i, turn in enumerate(values.swapaxes(0, 1))}
            for name, values in of.items()
        ]
        tables += [runs.table(rows)] if rows else []
    rows = [
        {"cost": name} | {what: runs.cell(of[what], 3) for what in PRICED if what in of}
        for name, of in found.items()
        if "perplexity" in of
    ]
    about = f"{cfg.model}: {cfg.n} dialogs, seeds {list(cfg.seeds)}, mean ± spread"
    runs.finish("persona_drift", cfg, found, draw(cfg, found), about, *tables, runs.table(rows), story(cfg, found))
    return found


if __name__ == "__main__":
    main(config.load(Drift, "configs/persona_drift.toml"))
