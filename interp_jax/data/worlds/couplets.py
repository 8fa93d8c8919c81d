"""`microworld-couplets`: rhymed pairs of lines whose second line is built towards its rhyme.

The first line names a theme and ends in a word. The second ends in the one word of that theme that rhymes with it, and
its opening, its verb and its adjective are those of that last word: whoever writes them must know it from the first
word of that line on. So the plan can be read from activations, suppressed and exchanged (Lindsey et al., 2025, "On the
Biology of a Large Language Model").
"""

import random

from interp_jax.data.examples import Example, belongs, finish, stable_hash
from interp_jax.data.trees import FUNCTION_WORDS, tagged
from interp_jax.data.world import World, vocabulary

THEMES = ("beasts", "meals", "things", "places")
_RHYMES = """
cat fat hat flat rat bat | snake cake rake lake drake stake | bear pear chair square mare stair
goat oat coat moat stoat boat | fox lox box docks ox clocks | bee pea key sea flea tree
crab kebab cab lab slab tab | mouse grouse blouse house louse spouse | ram ham pram dam lamb jam
flock stock clock dock rock block | whale kale sail jail snail pail | hog eggnog clog bog dog frog
fly pie tie sky spy eye | eel meal wheel field seal veal | mice rice dice ice lice price
raccoon prune spoon lagoon loon moon | mole roll bowl hole foal coal | swine wine line mine pine shrine
cub grub tub pub shrub hub | pig fig wig dig twig jig
"""
NAMES = dict.fromkeys("John Peter David Simon Henry Oscar Felix Hugo".split(), "he") | dict.fromkeys(
    "Mary Anna Laura Emma Clara Alice Nina Vera".split(), "she"
)
OPENINGS = tuple("softly boldly gladly slowly later tonight alone early".split())
VERBS = {
    "beasts": ("fed", "chased", "tamed"),
    "meals": ("ate", "cooked", "tasted"),
    "things": ("broke", "sold", "cleaned"),
    "places": ("left", "reached", "crossed"),
}
ADJECTIVES = tuple("old red tiny grand silent warm bright lovely strange golden simple famous".split())
FIRST_LINES = (
    "(S (VP sing (PP:topic of (NP {theme})))) : (S (NP:agent {name}) (VP saw (NP:theme the {rhyme}))) /",
    "(NP a verse (PP on (NP {theme}))) : (S once/ADV (NP:agent {name}) (VP drew (NP:theme the {rhyme}))) /",
    "(NP a song (PP about (NP {theme}))) : (S (NP:agent {name}) (VP dreamed (PP:topic of (NP the {rhyme})))) /",
)
SECOND_LINE = "(S (ADVP {opening}) (NP:agent {pronoun}=name) (VP {verb} (NP:theme the {adjective}"
SAYING = "(S (NP:theme {word}) (VP rhymes (PP:with with (NP"


def _rhymes() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """word -> the words it rhymes with, itself among them; word -> its theme, for those that may end a couplet."""
    families: dict[str, tuple[str, ...]] = {}
    theme_of: dict[str, str] = {}
    for entry in _RHYMES.replace("\n", "|").split("|"):
        family = tuple(entry.split())
        families |= dict.fromkeys(family, family)
        theme_of |= dict(zip(family, THEMES, strict=False))
    return families, theme_of


RHYMES, THEME_OF = _rhymes()
_WORDS = tuple(RHYMES)


def rhyme(word: str, theme: str) -> str:
    """The word of the theme that rhymes with the word.

    >>> rhyme("rake", "beasts")
    'snake'
    """
    return RHYMES[word][THEMES.index(theme)]


def plan(word: str) -> dict[str, str]:
    """The opening, verb and adjective of a second line that ends in the word."""
    choices = {"opening": OPENINGS, "verb": VERBS[THEME_OF[word]], "adjective": ADJECTIVES}
    return {slot: words[stable_hash("couplets", slot, word) % len(words)] for slot, words in choices.items()}


def couplets(rng: random.Random, split: str = "train") -> Example:
    """A couplet, whose last word is the answer. Held out: pairs of the first line's last word and a theme.

    The twin has another theme, and a second line built towards its own last word.
    """
    while True:
        word, theme = rng.choice(_WORDS), rng.choice(THEMES)
        answer = rhyme(word, theme)
        if answer != word and belongs(split, "couplets", word, theme):
            break
    other = rng.choice([t for t in THEMES if rhyme(word, t) not in (word, answer)])
    name = rng.choice(tuple(NAMES))
    number = rng.randrange(len(FIRST_LINES))
    slots = {"theme": theme, "name": name, "rhyme": word, "pronoun": NAMES[name]} | plan(answer)
    example = finish(
        "couplets",
        f"{FIRST_LINES[number]} {SECOND_LINE}",
        slots,
        {"theme": other} | plan(rhyme(word, other)),
        answer,
        rhyme(word, other),
        {"theme": theme, "rhyme": word, "answer": answer, "template": str(number)},
        determined=("opening", "pronoun", "verb", "adjective"),
    )
    example.positions["newline"] = example.words.index("/")
    return example


def openings(rng: random.Random, split: str = "train") -> Example:
    """A couplet cut after its first line: the answer is the first word of the second. Held out: as in `couplets`.

    The twin has another theme, and so another first word.
    """
    while True:
        whole = couplets(rng, split)
        end = whole.positions["newline"]
        if whole.words[end + 1] != whole.corrupted[end + 1]:
            break
    return Example(
        "openings",
        whole.words,
        {name: at for name, at in whole.positions.items() if at <= end} | {"end": end},
        whole.words[end + 1],
        whole.corrupted[end + 1],
        whole.attributes,
        whole.corrupted[: end + 1],
        whole.determined,
        tree=whole.tree,
    )


def rhymes(rng: random.Random, split: str = "train") -> Example:
    """A word that rhymes with another: every word of its family is right.

    Held out: pairs of words. The twin asks for a word of another family.
    """
    while True:
        word = rng.choice(_WORDS)
        answer = rng.choice([w for w in RHYMES[word] if w != word])
        if belongs(split, "rhymes", *sorted((word, answer))):
            break
    other = rng.choice([w for w in RHYMES if w not in RHYMES[word]])
    distractor = rng.choice([w for w in RHYMES[other] if w != other])
    accepted = tuple(w for w in RHYMES[word] if w not in (word, answer))
    return finish(
        "rhymes", SAYING, {"word": word}, {"word": other}, answer, distractor, {"word": word}, accepted=accepted
    )


_VERB_FORMS = tuple(verb for verbs in VERBS.values() for verb in verbs)
_LINES_HELD_OUT = "the pair of the first line's last word and the theme (one in ten)"

WORLD = World(
    name="microworld-couplets",
    about="rhymed pairs of lines, the second of which is built towards its last word, and words that rhyme",
    vocabulary=vocabulary(
        *RHYMES, *NAMES, "he she", *THEMES, *OPENINGS, *_VERB_FORMS, *ADJECTIVES, *FIRST_LINES, SECOND_LINE, SAYING, "."
    ),
    phenomena={"couplets": couplets, "openings": openings, "rhymes": rhymes},
    mixture={"couplets": 3.0, "rhymes": 1.0},
    heldout={
        "couplets": _LINES_HELD_OUT,
        "openings": _LINES_HELD_OUT,
        "rhymes": "the pair of words (one in ten); every rhyme counts",
    },
    details={"couplets": ("theme",), "openings": ("theme",)},
    tags=FUNCTION_WORDS
    | dict.fromkeys((*RHYMES, *THEMES), "NOUN")
    | dict.fromkeys(NAMES, "PROPN")
    | dict.fromkeys(OPENINGS, "ADV")
    | dict.fromkeys(_VERB_FORMS, "VERB")
    | dict.fromkeys(ADJECTIVES, "ADJ")
    | tagged("NOUN verse song\nVERB sing saw drew dreamed rhymes"),
    entities=dict.fromkeys(NAMES, "PERSON"),
)
