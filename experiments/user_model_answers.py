"""The users of `user_model.py` and how a model answers them: what an answer shows, under edits.

`microworld-chat`'s answer has a word for each attribute, which is known. Another model finishes "I think the age of
this user is", and what counts is which of the values' names is the likeliest. Edits act on the last token of a prompt
and on all that stands after it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import concepts
import depths
import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import models
from interp_jax.data import tasks
from interp_jax.data.worlds.chat_words import ADVICE, STYLE
from interp_jax.interventions import at, chain

SITE = "blocks.resid_post"
SHOWN = {"age": 0, "gender": 1, "education": 3, "status": 5}  # attribute -> the place of its word in an answer
N_WORDS = 6
NAMES = {  # label of TalkTuner -> what is said of such a user
    "older adult": "older",
    "someschool": "elementary",
    "highschool": "high",
    "collegemore": "college",
    "low": "lower",
    "high": "upper",
}


@dataclass(frozen=True)
class Users:
    """Prompts that end where the answer begins, and what each user is."""

    tokens: np.ndarray
    mask: np.ndarray
    labels: list[str]
    names: tuple[str, ...]  # of all values
    styles: dict[str, np.ndarray]  # attribute -> the word of a right answer, of each user; {} where none is known
    advice: list[dict[str, str]]  # status -> the word that advises it, of each user
    reading: tuple[np.ndarray, np.ndarray]  # tokens and mask of the place where the reading probe reads


def users(cfg: Any, tokenizer: Any, attribute: str, these: concepts.Concept, seed: int) -> Users:
    """Users that no probe was trained on."""
    if these.chat is not None:
        rows = np.flatnonzero(~concepts.split(these, seed))[: cfg.n_users]
        tokens, mask, _ = models.tokenize(tokenizer, [these.prompts[i] for i in rows], chat=these.chat)
        labels = [these.names[these.y[i]] for i in rows]
        both = (np.asarray(tokens), np.asarray(mask))
        return Users(*both, labels, these.names, {}, [], both)
    task = tasks.user(jax.random.key(2000 + seed), tokenizer, cfg.n_users, asked=attribute)
    tokens, mask = np.asarray(task.clean), np.asarray(task.mask)
    advice = [list(ADVICE.values())[int(question)] for question in task.attributes["question"]]
    known = {name: list(map(str, task.attributes[name])) for name in SHOWN}
    styles = {name: np.array([STYLE[name][value] for value in known[name]]) for name in STYLE}
    styles["status"] = np.array([of[value] for of, value in zip(advice, known["status"], strict=True)])
    begins = np.asarray(task.columns["assistant"])
    texts = [
        tokenizer.decode(row[real & (np.arange(len(row)) <= begin)][1:])
        for row, real, begin in zip(tokens, mask, begins, strict=True)
    ]
    start, start_mask, _ = models.tokenize(tokenizer, texts)
    return Users(
        np.asarray(start), np.asarray(start_mask), known[attribute], these.names, styles, advice, (tokens, mask)
    )


@jax.jit
def _last(model: Any, tokens: Any, mask: Any, edits: Any) -> Any:
    last = jnp.full(len(tokens), tokens.shape[1] - 1, jnp.int32)
    return ij.intervene(partial(models.forward, logits_at=last), edits)(model, tokens, attention_mask=mask)


@dataclass(frozen=True)
class Run:
    """A model that answers some users, one of whose attributes is to be a value."""

    model: Any
    tokenizer: Any
    users: Users
    attribute: str
    wanted: str

    def judge(self, edit: Any) -> tuple[float, float]:
        """Of the users that are not so: how many are answered as if they were, and whether the rest is as it was."""
        other = np.array([label != self.wanted for label in self.users.labels])
        if not self.users.styles:
            told = np.array([name == self.wanted for name in self.said(edit)])
            return float(told[other].mean()), float("nan")
        words = np.array([text.split() for text in self.said(edit)])  # [user word]
        aim = STYLE[self.attribute][self.wanted] if self.attribute in STYLE else None
        wanted = np.array([aim or of[self.wanted] for of in self.users.advice])
        rest = [words[:, place] == self.users.styles[name] for name, place in SHOWN.items() if name != self.attribute]
        hit, kept = words[:, SHOWN[self.attribute]] == wanted, np.all(rest, 0)
        return float(hit[other].mean()), float(kept[other].mean())

    def said(self, edit: Any) -> list[str]:
        """The answers; of another model than the microworld's the value whose name is the likeliest."""
        users = self.users
        last = at(edit, position=users.mask.sum(1) - 1)
        if users.styles:
            edits = {SITE: chain(last, at(edit, position="generated"))}
            out = models.generate(self.model, users.tokens, N_WORDS, attention_mask=users.mask, edits=edits)
            return [self.tokenizer.decode(row) for row in np.asarray(out)[:, users.tokens.shape[1] :]]
        logits = np.asarray(_last(self.model, users.tokens, users.mask, {SITE: last}))
        firsts = [self.tokenizer.encode(" " + NAMES.get(name, name), bos=False)[0] for name in users.names]
        return [users.names[i] for i in logits[:, firsts].argmax(-1)]

    def read(self, probe: Any, layer: int, edit: Any) -> np.ndarray:
        """What a probe after a layer tells of each user, as probabilities `[user value]`, under edits."""
        tokens, mask = self.users.reading
        late = mask & (mask.cumsum(1) >= self.users.mask.sum(1)[:, None])
        run = ij.intervene(models.hidden, {SITE: at(edit, mask=late)})
        read = ij.capture(run, {SITE: lambda x: x[:, -1]}, output=False)
        x = depths.of_one_size(np.asarray(read(self.model, tokens, attention_mask=mask)[SITE][layer]))
        return np.asarray(jax.nn.softmax(x @ probe.W[layer + 1].T + probe.b[layer + 1]))
