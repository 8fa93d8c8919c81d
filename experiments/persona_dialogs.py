"""Who is to be whom in the dialogs of `persona_drift.py`: system prompts, first questions, and how a persona is judged.

A persona of the microworld begins and ends its every answer with its own words. Other models are asked for a language,
which a small model can keep to, and are judged by its commonest words.
"""

from collections.abc import Callable
from dataclasses import dataclass
import re
from typing import Any

import doses
import jax
import numpy as np

from interp_jax.data import tasks
from interp_jax.data.worlds.chat_words import PERSONAS

LANGUAGES = {
    "English": "the is are to and of it with that this you can for in".split(),
    "French": "le la les un une des est et du dans pour que qui avec vous en".split(),
    "Spanish": "el la los las un una es y del en para que con por su se".split(),
    "Italian": "il la i gli un una è e di che per con del della si in".split(),
    "German": "der die das ein eine ist und von zu mit für den auf es sie in".split(),
}
QUESTIONS = (
    "What is the capital of Italy?",
    "How do I cook rice?",
    "Tell me about the moon.",
    "What do cats eat?",
    "Why is the sky blue?",
    "How do I learn to swim?",
    "What is a computer?",
    "Tell me about your day.",
)


@dataclass(frozen=True)
class Part:
    """A system prompt, the user's first words, and whether an answer is the persona's."""

    system: str
    opening: str
    plays: Callable[[str], bool]


def words_of(persona: str) -> Callable[[str], bool]:
    opener, closer = PERSONAS[persona]
    return lambda said: said.split()[:1] == [opener] and said.split()[-1:] == [closer]


def language(name: str) -> Callable[[str], bool]:
    """More of the commonest words of the language than of English ones."""

    def plays(said: str) -> bool:
        words = re.findall(r"\w+", said.lower())
        mine, english = (sum(word in LANGUAGES[one] for word in words) for one in (name, "English"))
        return mine > english

    return plays


def parts(name: str, tokenizer: Any, n: int, seed: int) -> list[Part]:
    """Whom `n` dialogs are with."""
    if not name.startswith("microworld"):
        pairs = [(one, question) for one in list(LANGUAGES)[1:] for question in QUESTIONS]
        rows = np.random.default_rng(seed).permutation(len(pairs))[:n]
        return [Part(f"Always answer in {pairs[i][0]}.", pairs[i][1], language(pairs[i][0])) for i in rows]
    task = tasks.persona(jax.random.key(seed), tokenizer, n, n_turns=1)
    found = []
    for row, real, who in zip(task.clean, task.mask, task.attributes["persona"], strict=True):
        system, opening = re.findall(r"> ([^<]+) <end>", tokenizer.decode(np.asarray(row)[np.asarray(real)]))
        found.append(Part(system, opening, words_of(str(who))))
    return found


@dataclass(frozen=True)
class Answers:
    """Texts after a system prompt. Of the microworld's dialogs `opens` and `closes` are the places, one a turn, whose
    next word must be the persona's, `[text turn]`; other texts have none.
    """

    texts: doses.Texts  # to be predicted are the words that the persona has no say in
    stop: np.ndarray  # tokens up to the end of the system prompt, `[text]`
    opens: np.ndarray
    closes: np.ndarray
    lured: np.ndarray  # whether the turn's user begins with another persona's word


def answers(name: str, tokenizer: Any, n: int, n_turns: int, seed: int) -> Answers:
    """Dialogs with the right answers, of the microworld; WikiText-2 after the system prompts, of any other."""
    if not name.startswith("microworld"):
        return _after_prompts(name, tokenizer, n, seed)
    task = tasks.persona(jax.random.key(1000 + seed), tokenizer, n, n_turns=n_turns + 1)
    tokens, mask = np.asarray(task.clean), np.asarray(task.mask)
    assistant, user, end = (tokenizer.encode(word, bos=False)[0] for word in ("<assistant>", "<user>", "<end>"))
    opens = np.stack([np.flatnonzero(row == assistant)[:n_turns] for row in tokens])
    asked = np.stack([np.flatnonzero(row == user)[:n_turns] for row in tokens])
    ends = [np.flatnonzero(row == end) for row in tokens]
    stop = np.array([of[0] for of in ends]) + 1 - mask.argmax(1)
    over = np.stack([of[2 : 2 * n_turns + 1 : 2] for of in ends])  # of the answers: after the system's and the user's
    place = np.arange(tokens.shape[1])[:, None]
    predicted = ((place > opens[:, None] + 1) & (place < over[:, None] - 1)).any(-1)
    catchwords = np.array([tokenizer.encode(opener, bos=False)[0] for opener, _ in PERSONAS.values()])
    lured = np.isin(np.take_along_axis(tokens, asked + 1, 1), catchwords)
    return Answers(doses.Texts(tokens, mask, predicted), stop, opens, over - 2, lured)


def _after_prompts(name: str, tokenizer: Any, n: int, seed: int) -> Answers:
    some = doses.texts(name, tokenizer, n)
    who = [[{"role": "system", "content": one.system}] for one in parts(name, tokenizer, n, seed)]
    before = [tokenizer.encode(one, chat={"add_generation_prompt": False}) for one in who]
    stop = np.array([len(one) for one in before])
    width = stop.max() + some.tokens.shape[1]
    tokens, mask, predicted = (np.zeros((n, width), kind) for kind in (np.int32, bool, bool))
    for row, prompt in enumerate(before):
        stays = some.mask[row]
        text = some.tokens[row][stays]
        tokens[row, : len(prompt) + len(text)] = [*prompt, *text]
        mask[row, : len(prompt) + len(text)] = True
        predicted[row, len(prompt) : len(prompt) + len(text)] = some.predicted[row][stays]
    none = np.zeros((n, 0), int)
    return Answers(doses.Texts(tokens, mask, predicted), stop, none, none, none.astype(bool))
