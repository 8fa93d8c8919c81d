"""The first microworld: a small word-level language, of whose every sentence the structure and the answer are known.

Words and templates are in `lexicon.py`, its seven phenomena in `phenomena.py`.
"""

from interp_jax.data import lexicon as lex
from interp_jax.data.phenomena import PHENOMENA
from interp_jax.data.world import World

WORLD = World(
    name="microworld",
    about="names and objects, facts in several phrasings, agreement, reviews, opposites in two languages, boxes",
    vocabulary=lex.VOCABULARY,
    phenomena=PHENOMENA,
    mixture={
        "ioi": 1.5,
        "facts": 1.0,
        "agreement": 0.5,
        "sentiment": 0.7,
        "opposites": 0.9,
        "binding": 5.0,
        "repeated": 1.2,
    },
    heldout={
        "ioi": "pairs of names in a template (one in ten), ABBA and BABA",
        "facts": "for every fact, one of its four phrasings",
        "agreement": "pairs of subject and first distractor (one in ten), half of these of the other number",
        "sentiment": "pairs of adjectives (one in ten), some negated",
        "opposites": "for every word, one of the four phrasings in its own language",
        "binding": "the objects in their order (one in ten), three boxes, one question, all wordings",
        "repeated": "the sequence (one in ten); a random word of the second half",
    },
    wanted={"ioi": 0.97, "facts": 0.97, "agreement": 0.97, "sentiment": 0.97, "opposites": 0.97, "repeated": 0.90},
    details={"binding": ("n_boxes", "clause")},
    tags=lex.TAGS,
    entities=lex.ENTITIES,
)

TOKEN_ID = WORLD.token_id
examples, batch, text, tokenizer = WORLD.examples, WORLD.batch, WORLD.text, WORLD.tokenizer
