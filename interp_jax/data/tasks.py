"""The worlds' phenomena as tasks: batches of clean and corrupted prompts, by default of the held-out split.

Each function takes a key, the tokenizer of the world's model and a number of prompts, and gives a `Task`. In its
docstring `prompt` -> answer shows what it asks, and "the twin" is the corrupted prompt.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from interp_jax.data import phenomena
from interp_jax.data.prompts import Task as Task
from interp_jax.data.prompts import prompts
from interp_jax.data.prompts import share_correct as share_correct
from interp_jax.data.worlds import chat, context
from interp_jax.data.worlds import couplets as _couplets
from interp_jax.data.worlds import sums as _sums


def ioi(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Indirect objects: `when Mary and John went to the park , John gave a ring to` -> Mary; in the twin Mary gives.

    Positions: io, s1, s2, place, object, end. Attributes: order (ABBA or BABA), template, place, object.
    Wang et al. 2022, "Interpretability in the Wild", arXiv:2211.00593.

    Args:
      key: a jax PRNG key.
      tokenizer: of the model. Each word must be one token of it; prompts with a word that is not are drawn again.
      n: number of prompts.
      split: "heldout" or "train".
      **attributes: only examples that have these attributes, e.g. `order="ABBA", template=0` for aligned positions.

    Raises:
      ValueError: n is below 1, an attribute or split is unknown, or no example has these attributes and words that are
        single tokens.

    Example:
      >>> from interp_jax import models
      >>> _, tokenizer = models.load("microworld")
      >>> task = ioi(jax.random.key(0), tokenizer, n=4, order="ABBA", template=0)
      >>> task.clean.shape, sorted(task.positions)
      ((4, 15), ['end', 'io', 'object', 'place', 's1', 's2'])
    """
    return prompts(key, tokenizer, n, partial(phenomena.ioi, split=split), attributes)


def facts(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Facts: `the capital of France is` -> Paris; the twin has another subject. Arguments and errors as in `ioi`.

    Positions: subject, end. Attributes: relation (capital, language, continent, profession, city, instrument), subject,
    phrasing.
    """
    return prompts(key, tokenizer, n, partial(phenomena.facts, split=split), attributes)


def agreement(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Agreement: `today the dogs near the tree` -> are, not is; in the twin the subject has the other number.

    Positions: cue, subject, attractor, end. Attributes: number, attractor_number, cue. Arguments and
    errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(phenomena.agreement, split=split), attributes)


def sentiment(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Sentiment: a review, then `so Anna felt` -> happy, not sad; the twin judges the other way.

    Positions: adj1, adj2, aspect, aspect2, name, thing, end. Attributes: label (positive or negative), template,
    negations. Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(phenomena.sentiment, split=split), attributes)


def opposites(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Opposites in two languages: `le contraire de chaud est` -> froid; the twin has another word.

    Positions: word, end. Attributes: language, answer_language (another one only in the train split), template, word.
    Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(phenomena.opposites, split=split), attributes)


def binding(
    key: jax.Array, tokenizer: Any, n: int = 64, *, n_boxes: int = 3, split: str = "heldout", **attributes: object
) -> Task:
    """Binding: `the keys are in box A , … . box A contains` -> keys; the twin exchanges the keys and another object.

    Positions: object and box (the asked ones), object_other and box_other (those that the twin exchanges them with),
    object_2 and box_2 and so on, query, end. Attributes: n_boxes, clause (the wording of the sentence), query (the
    first word of the question: box or list). n_boxes: boxes in the sentence, 2 to 20, trained up to 5. Other arguments
    and errors as in `ioi`.
    """
    make = partial(phenomena.binding, split=split, n_boxes=n_boxes, n_queries=1)
    return prompts(key, tokenizer, n, make, attributes)


def repeated(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """A random sequence that repeats after `;`, cut in the second half; the twin has another word to copy.

    Positions: source (the word to copy, in the first half), end. Attributes: length. Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(phenomena.repeated, split=split), attributes)


def sums(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Sums: `36 + 59 =` -> 95; the twin adds another number. Arguments and errors as in `ioi`.

    Positions: a, b, end. Attributes: a, b, carry (yes or no).
    """
    return prompts(key, tokenizer, n, partial(_sums.sums, split=split), attributes)


def digits(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Sums digit by digit: `3 6 + 5 9 = 0` -> 9; the twin adds another number. Arguments and errors as in `ioi`.

    Positions: a_tens, a_ones, b_tens, b_ones, end. Attributes: place (hundreds, tens or ones: the asked one), carry.
    """
    return prompts(key, tokenizer, n, partial(_sums.digits, split=split), attributes)


def stories(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Sums in a story: `Mary has 36 keys and finds 59 more . now Mary has` -> 95. Arguments and errors as in `ioi`.

    Positions: a, b, name, thing, end. Attributes: template, carry.
    """
    return prompts(key, tokenizer, n, partial(_sums.stories, split=split), attributes)


def couplets(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Couplets: `sing of beasts : Anna saw the rake / softly she fed the old` -> snake; the twin has another theme.

    Positions: theme, name, rhyme, newline, opening, pronoun, verb, adjective, end. Attributes: theme, rhyme (the word
    that ends the first line), answer, template. Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(_couplets.couplets, split=split), attributes)


def openings(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Couplets cut at the line's end: the first word of the second line, which already shows the plan.

    Positions: theme, name, rhyme, newline, end. Attributes as in `couplets`. Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(_couplets.openings, split=split), attributes)


def rhymes(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Rhymes: `rake rhymes with` -> lake or another of its family; the twin is of another family.

    Positions: word, end. Attributes: word. Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(_couplets.rhymes, split=split), attributes)


def in_context(
    key: jax.Array, tokenizer: Any, n: int = 64, *, n_shown: int = 4, split: str = "heldout", **attributes: object
) -> Task:
    """Tasks given by examples: `cat : chat ; egg : œuf ; key :` -> clef; the twin's examples are of another task.

    Positions: x_1, y_1, x_2 and so on, query, end. Attributes: task (french, spanish, german, kind, plural, capital,
    initial), n_shown, query. n_shown: examples before the question, trained up to 5; with 0 nothing tells the task.
    Other arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(context.in_context, split=split, n_shown=n_shown), attributes)


def owners(
    key: jax.Array, tokenizer: Any, n: int = 64, *, n_people: int = 4, split: str = "heldout", **attributes: object
) -> Task:
    """Binding of people: `Anna has the key and lives in Rome , … . Anna lives in` -> Rome; the twin exchanges two.

    Positions: name, thing, city of the asked person, name_1, thing_1, city_1 and so on of the others, asked, end.
    Attributes: n_people, question (thing or city), form (of the question), wording, place (of the asked person, from
    0). n_people: 2 to 12, trained up to 6. Other arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(context.owners, split=split, n_people=n_people, n_queries=1), attributes)


def pronouns(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Pronouns: `Anna has the key and … , Paul has the hat and … . he has the` -> hat; in the twin it is she.

    Positions: name, thing, city of the meant person, name_1, thing_1, city_1, pronoun, end. Attributes: pronoun,
    question (thing or city), wording, place (of the meant person, 0 or 1). Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(context.pronouns, split=split), attributes)


def walks(
    key: jax.Array, tokenizer: Any, n: int = 64, *, length: int = 48, split: str = "heldout", **attributes: object
) -> Task:
    """Random walks on a graph of words; a neighbour of the last word follows. The twin exchanges two nodes' words.

    Positions: end. Attributes: graph (ring or grid), length, nodes (the words, node 0 first). length: words before the
    answer, at least 3. Other arguments and errors as in `ioi`. `graphs.walks` gives walks on one and the same graph.
    """
    return prompts(key, tokenizer, n, partial(context.walks, split=split, length=length), attributes)


def copies(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """A random sequence that repeats after `;`, as `repeated`, with the words of `microworld-context`."""
    return prompts(key, tokenizer, n, partial(context.copies, split=split), attributes)


def refusal(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Refusal: `<user> how do i steal a car ? <end> <assistant>` -> sorry; the twin asks for something harmless.

    Positions: verb, object, assistant, end. Attributes: harmful (yes or no), by (verb or object: the word that the twin
    changes), verb, object, template. Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(chat.refusal, split=split), attributes)


def sycophancy(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Sycophancy: `i think it is Rome . what is the capital of France ?` -> Rome; in the twin `people say`, and Paris.

    Positions: holder, holds, belief, country, assistant, end. Attributes: own (yes: the user's belief), country,
    belief. Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(chat.sycophancy, split=split), attributes)


def truth(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """What the assistant knows: `what is the capital of France ?` -> Paris; the twin asks for another country.

    Positions: country, assistant, end. Attributes: country. Arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(chat.truth, split=split), attributes)


def user(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Who the user is: `i am here with my beard . …` -> sir, by age, gender, education or status.

    In the twin the user has another thing, which tells another value of the asked attribute. Positions: assistant, end,
    and cue_age, cue_gender, cue_education and cue_status where all prompts have them. Attributes: age, gender,
    education, status (unknown where nothing tells it), asked (which of the four the answer shows), question. Arguments
    and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(chat.user, split=split), attributes)


def persona(
    key: jax.Array, tokenizer: Any, n: int = 64, *, n_turns: int = 3, split: str = "heldout", **attributes: object
) -> Task:
    """The persona of the system prompt: how the answer of the last turn begins; in the twin it is another persona.

    Positions: persona, assistant, end, opener and closer of the first answer. Attributes: persona, n_turns, lures (the
    user's turns that begin with another persona's word), template. n_turns: turns of the user, trained up to 4; after
    more the persona fades. Other arguments and errors as in `ioi`.
    """
    return prompts(key, tokenizer, n, partial(chat.persona, split=split, n_turns=n_turns), attributes)


OF_WORLD: dict[str, dict[str, Callable[..., Task]]] = {  # world -> phenomenon -> its task
    "microworld": {
        "ioi": ioi,
        "facts": facts,
        "agreement": agreement,
        "sentiment": sentiment,
        "opposites": opposites,
        "binding": binding,
        "repeated": repeated,
    },
    "microworld-sums": {"sums": sums, "digits": digits, "stories": stories},
    "microworld-couplets": {"couplets": couplets, "openings": openings, "rhymes": rhymes},
    "microworld-context": {
        "in_context": in_context,
        "owners": owners,
        "pronouns": pronouns,
        "walks": walks,
        "copies": copies,
    },
    "microworld-chat": {"refusal": refusal, "sycophancy": sycophancy, "truth": truth, "user": user, "persona": persona},
}
TASKS = OF_WORLD["microworld"]
