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
    """One sentence of a world. Positions are word indices, the beginning-of-sequence token not counted.

    words: the whole sentence, the answer included.
    positions: name -> index; always has "end", the last word of the prompt: the answer is the next word.
    corrupted: the prompt's twin, of the same length, whose answer is `distractor`.
    determined: indices of the words that the words before them determine, the answer among them if they do.
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

    The twin has the `changed` slots. `determined`: slots whose words follow from the words before them.
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
    """A number that the parts' words determine, the same on every machine."""
    return zlib.crc32("|".join(map(str, parts)).encode())


def is_heldout(split: str) -> bool:
    """Raises ValueError for a split that is neither "train" nor "heldout"."""
    if split not in ("train", "heldout"):
        raise ValueError(f"split is 'train' or 'heldout', not {split!r}")
    return split == "heldout"


def belongs(split: str, *combination: object) -> bool:
    """Whether the combination is of the split: one in ten is held out, the same ones on every machine."""
    return (stable_hash(*combination) % 10 == 0) == is_heldout(split)


def pick_phrasing(rng: random.Random, split: str, n: int, *fact: object) -> int:
    """A phrasing of a fact: every fact has one phrasing held out, and is known by the others."""
    heldout = stable_hash(*fact) % n
    return heldout if is_heldout(split) else (heldout + rng.randrange(1, n)) % n
