"""One sentence of a world with all that is known of it, and how phenomena make it from templates.

A phenomenon is a function `(rng, split) -> Example`. Splits hold out combinations, never words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
import random
import zlib

from interp_jax.data.trees import plain

PAD, BOS, UNK = "<pad>", "<bos>", "<unk>"


@dataclass(frozen=True)
class Example:
    """One sentence of a world, with a prompt, its answer, and all that is known of it.

    Positions are indices of words; the beginning-of-sequence token is not counted.

    Attributes:
      phenomenon: the name of the phenomenon that made it.
      words: the whole sentence, the answer included.
      positions: name -> index; always has "end", the last word of the prompt: the answer is the next word.
      answer: the word that the prompt is to go on with.
      distractor: the answer of the corrupted prompt.
      attributes: name -> value, what else is known, such as the template's number.
      corrupted: the prompt's twin, of the same length, whose answer is `distractor`.
      determined: indices of the words that follow from the words before them; of the answer too, if it does.
      accepted: other right answers, where there are several.
      tree: the sentence's grammar, as `interp_jax.data.trees` writes it; "" where it has none.
    """

    phenomenon: str
    words: tuple[str, ...]
    positions: dict[str, int]
    answer: str
    distractor: str
    attributes: dict[str, str]
    corrupted: tuple[str, ...]
    determined: tuple[int, ...]
    accepted: tuple[str, ...] = ()
    tree: str = ""

    @property
    def prompt(self) -> tuple[str, ...]:
        """The words before the answer."""
        return self.words[: self.positions["end"] + 1]


Phenomenon = Callable[..., Example]  # (rng, split) -> an example of the split "train" or "heldout"


@lru_cache(maxsize=8192)
def _words_and_slots(template: str) -> tuple[tuple[str, ...], tuple[tuple[int, str], ...]]:
    words = tuple(plain(template).split())
    return words, tuple((i, word[1:-1]) for i, word in enumerate(words) if word[0] == "{")


def fill(template: str, slots: Mapping[str, str]) -> tuple[list[str], dict[str, int]]:
    """The template's words with every {slot} filled, and the first position of each slot.

    >>> fill("(NP the {thing} (PP of (NP {name}", {"thing": "key", "name": "Anna"})
    (['the', 'key', 'of', 'Anna'], {'thing': 1, 'name': 3})
    """
    pattern, where = _words_and_slots(template)
    words, positions = list(pattern), {}
    for index, slot in where:
        positions.setdefault(slot, index)
        words[index] = slots[slot]
    return words, positions


def finish(
    phenomenon: str,
    template: str,
    slots: Mapping[str, str],
    changed: Mapping[str, str],
    answer: str,
    distractor: str,
    attributes: dict[str, str],
    closing: Sequence[str] = (".",),
    determined: Sequence[str] = (),
    accepted: tuple[str, ...] = (),
) -> Example:
    """An example from a prompt's template, which ends right before the answer.

    Args:
      phenomenon, answer, distractor, attributes, accepted: as in `Example`.
      template: a tree with slots, as `fill` takes it.
      slots: slot -> its word in the prompt.
      changed: slot -> its word in the corrupted prompt, for the slots that differ there.
      closing: the words after the answer.
      determined: slots whose words follow from the words before them. The answer is always one of the determined words.
    """
    prompt, positions = fill(template, slots)
    corrupted, _ = fill(template, {**slots, **changed})
    positions["end"] = len(prompt) - 1
    return Example(
        phenomenon,
        (*prompt, answer, *closing),
        positions,
        answer,
        distractor,
        attributes,
        tuple(corrupted),
        (*(positions[slot] for slot in determined), len(prompt)),
        accepted,
        " ".join((template, answer, *closing)),
    )


def stable_hash(*parts: object) -> int:
    """A number that follows from the text of the parts, the same on every machine and in every process."""
    return zlib.crc32("|".join(map(str, parts)).encode())


def is_heldout(split: str) -> bool:
    """Whether the split is "heldout" and not "train". Raises ValueError for any other."""
    if split not in ("train", "heldout"):
        raise ValueError(f"split is 'train' or 'heldout', not {split!r}")
    return split == "heldout"


def belongs(split: str, *combination: object) -> bool:
    """Whether the combination is of the split. One combination in ten is held out, the same ones on every machine."""
    return (stable_hash(*combination) % 10 == 0) == is_heldout(split)


def pick_phrasing(rng: random.Random, split: str, n: int, *fact: object) -> int:
    """The index of one of a fact's n phrasings: of every fact one is held out, and the others are for training."""
    heldout = stable_hash(*fact) % n
    return heldout if is_heldout(split) else (heldout + rng.randrange(1, n)) % n


def check_within(name: str, number: int, least: int, most: int | None = None) -> None:
    """Raises ValueError where a number of things is out of range.

    >>> check_within("binding: n_boxes", 1, 2, 20)
    Traceback (most recent call last):
    ValueError: binding: n_boxes=1: give at least 2 and at most 20
    """
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name}={number}: give at least {least}{'' if most is None else f' and at most {most}'}")
