"""`microworld-sums`: addition of two numbers below 100, as a formula, digit by digit and in a story.

A number is one token in formulas and stories, so that a sum is looked up and not spelled; `digits` spells it, largest
digit first, so that a carry must be foreseen. One pair of numbers in ten, in either order, is held out of all three.
"""

from dataclasses import replace
import random

from interp_jax.data.examples import Example, belongs, finish, is_heldout
from interp_jax.data.trees import FUNCTION_WORDS, tagged
from interp_jax.data.world import World, vocabulary

LIMIT = 100
NAMES = tuple("Mary John Anna Peter Laura David Emma Simon Clara Henry Alice Martin".split())
THINGS = tuple("coins books keys stamps shells stones cards pens apples tickets".split())
PLACES = ("hundreds", "tens", "ones")

FORMULA = "{a} + {b} ="
SPELLED = "{a_tens} {a_ones} + {b_tens} {b_ones} ="
STORIES = (
    "(S (NP:owner {name}) (VP has/VERB (NP:theme {a} {thing})) and (S (VP finds (NP:theme {b} more/ADJ)))) . "
    "(S now (NP:owner {name}) (VP has/VERB (NP:theme",
    "(S (NP:owner {name}) (VP has/VERB (NP:theme {a} {thing}))) and "
    "(S (NP:owner {other}) (VP has/VERB (NP:theme {b} {thing}))) . (S together (NP:owner they) (VP have/VERB (NP:theme",
    "(S (NP:agent {name}) (VP bought (NP:theme {a} {thing}) (PP:time on (NP Monday)))) and "
    "(S (VP got (NP:theme {b}) (PP:time on (NP Tuesday)))) , (S so (NP:owner {name}) (VP owns (NP:theme",
)


def numbers(rng: random.Random, split: str) -> tuple[int, int]:
    """Two numbers below 100 whose pair is of the split.

    Sums that a single pair has (0, 1, 197 and 198) are never held out: nothing else in training would tell them.
    """
    while True:
        a, b = rng.randrange(LIMIT), rng.randrange(LIMIT)
        if 1 < a + b < 2 * LIMIT - 3:
            if belongs(split, "sums", *sorted((a, b))):
                return a, b
        elif not is_heldout(split):
            return a, b


def carries(a: int, b: int) -> str:
    """ "yes" if the ones of the two numbers add up to 10 or more, else "no"."""
    return "yes" if a % 10 + b % 10 > 9 else "no"


def sums(rng: random.Random, split: str = "train") -> Example:
    """`36 + 59 =` -> 95; the twin adds another number. Held out: pairs of numbers."""
    a, b = numbers(rng, split)
    other = _another(rng, b)
    attributes = {"a": str(a), "b": str(b), "carry": carries(a, b)}
    slots = {"a": str(a), "b": str(b)}
    return finish("sums", FORMULA, slots, {"b": str(other)}, str(a + b), str(a + other), attributes, (";",))


def digits(rng: random.Random, split: str = "train") -> Example:
    """`3 6 + 5 9 = 0` -> 9; the twin's sum begins alike and differs in the asked digit. Held out: pairs of numbers."""
    asked = rng.randrange(3)
    while True:
        a, b = numbers(rng, split)
        total = f"{a + b:03}"
        others = [f"{a + c:03}" for c in range(LIMIT)]
        others = [o for o in others if o[:asked] == total[:asked] and o[asked] != total[asked]]
        if others:
            break
    other = rng.choice(others)
    slots = _spelled("a", a) | _spelled("b", b)
    slots |= {place: total[i] for i, place in enumerate(PLACES[:asked])}
    template = " ".join([SPELLED, *(f"{{{place}}}" for place in PLACES[:asked])])
    example = finish(
        "digits",
        template,
        slots,
        _spelled("b", int(other) - a),
        total[asked],
        other[asked],
        {"place": PLACES[asked], "carry": carries(a, b)},
        (*total[asked + 1 :], ";"),
    )
    return replace(example, determined=tuple(range(len(example.words) - 4, len(example.words) - 1)))


def stories(rng: random.Random, split: str = "train") -> Example:
    """`Mary has 36 keys and finds 59 more . now Mary has` -> 95. Held out: pairs of numbers."""
    a, b = numbers(rng, split)
    other = _another(rng, b)
    name, other_name = rng.sample(NAMES, 2)
    number = rng.randrange(len(STORIES))
    slots = {"a": str(a), "b": str(b), "name": name, "other": other_name, "thing": rng.choice(THINGS)}
    return finish(
        "stories",
        STORIES[number],
        slots,
        {"b": str(other)},
        str(a + b),
        str(a + other),
        {"template": str(number), "carry": carries(a, b)},
        (slots["thing"], "."),
    )


def _another(rng: random.Random, number: int) -> int:
    """Another number below 100, each as likely."""
    return (number + rng.randrange(1, LIMIT)) % LIMIT


def _spelled(name: str, number: int) -> dict[str, str]:
    return {f"{name}_tens": str(number // 10), f"{name}_ones": str(number % 10)}


_NUMBERS = tuple(map(str, range(2 * LIMIT - 1)))
_HELD_OUT = "the pair of numbers (one in ten), in either order and in all three forms"

WORLD = World(
    name="microworld-sums",
    about="addition of two numbers below 100: as a formula of whole numbers, digit by digit, and in stories",
    vocabulary=vocabulary(*_NUMBERS, *NAMES, *THINGS, FORMULA, *STORIES, ". ;"),
    phenomena={"sums": sums, "digits": digits, "stories": stories},
    mixture={"sums": 3.0, "digits": 0.5, "stories": 1.5},
    heldout=dict.fromkeys(("sums", "digits", "stories"), _HELD_OUT),
    details={"sums": ("carry",), "digits": ("place", "carry"), "stories": ("template",)},
    tags=FUNCTION_WORDS
    | dict.fromkeys(_NUMBERS, "NUM")
    | dict.fromkeys((*NAMES, "Monday", "Tuesday"), "PROPN")
    | dict.fromkeys(THINGS, "NOUN")
    | tagged("VERB finds bought got owns"),
    entities={**dict.fromkeys(NAMES, "PERSON"), **dict.fromkeys(("Monday", "Tuesday"), "DATE")},
)
