"""The seven phenomena of the first microworld: one function each, `(rng, split) -> Example`.

An example names its positions, its right and wrong answer and its attributes, and has a corrupted twin of its prompt,
with the other answer. Splits hold out combinations, never words: each function says what it holds out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
import random

from interp_jax.data import lexicon as lex
from interp_jax.data.examples import Example, belongs, check_within, finish, pick_phrasing
from interp_jax.data.trees import closed, plain

RANDOM_WORDS = tuple(word for word in lex.VOCABULARY if word.isalpha())


def ioi(rng: random.Random, split: str = "train") -> Example:
    """Two people are named, and one of them gives: the indirect object is the other.

    Held out: pairs of names in a template. In the twin the other one gives.
    """
    while True:
        io, s = rng.sample(lex.NAMES, 2)
        number = rng.randrange(len(lex.IOI_TEMPLATES))
        if belongs(split, "ioi", *sorted((io, s)), number):
            break
    order = rng.choice(("ABBA", "BABA"))
    first, second = ("{io}", "{s1}") if order == "ABBA" else ("{s1}", "{io}")
    template = lex.IOI_TEMPLATES[number].replace("{first}", first).replace("{second}", second)
    slots = {"io": io, "s1": s, "s2": s, "place": rng.choice(lex.PLACES), "object": rng.choice(lex.OBJECTS)}
    attributes = {"order": order, "template": str(number), "place": slots["place"], "object": slots["object"]}
    return finish("ioi", template, slots, {"s2": io}, io, s, attributes)


def facts(rng: random.Random, split: str = "train") -> Example:
    """A fact about a country or a person. Held out: of every fact, one phrasing. The twin has another subject."""
    relation = rng.choice(tuple(lex.FACTS))
    known = lex.FACTS[relation]
    subject = rng.choice(tuple(known))
    other = rng.choice([name for name in known if known[name] != known[subject]])
    number = pick_phrasing(rng, split, len(lex.PHRASINGS[relation]), relation, subject)
    attributes = {"relation": relation, "subject": subject, "phrasing": str(number)}
    return finish(
        "facts",
        lex.PHRASINGS[relation][number],
        {"subject": subject},
        {"subject": other},
        known[subject],
        known[other],
        attributes,
    )


def agreement(rng: random.Random, split: str = "train") -> Example:
    """A verb agrees with its subject across one or two other nouns. Held out: pairs of subject and first attractor."""
    while True:
        subject, attractor = rng.choice(lex.NOUNS), rng.choice(lex.NOUNS)
        if subject != attractor and belongs(split, "agreement", subject[0], attractor[0]):
            break
    cue = rng.choice(tuple(lex.VERBS))
    number, attractor_number = rng.randrange(2), rng.randrange(2)
    slots = {"cue": cue, "subject": subject[number], "attractor": attractor[attractor_number]}
    slots |= {"likes": ("likes", "like")[attractor_number], "preposition": rng.choice(lex.PREPOSITIONS)}
    template = "(S (ADVP {cue}) (NP:theme (NP the {subject}) " + rng.choice(lex.ATTRACTOR_TEMPLATES)
    if rng.random() < 0.25:
        template += " (PP {preposition2}/ADP (NP the {attractor2}))"
        slots |= {"preposition2": rng.choice(lex.PREPOSITIONS), "attractor2": rng.choice(rng.choice(lex.NOUNS))}
    template += ") (VP"
    attributes = {
        "number": ("singular", "plural")[number],
        "attractor_number": ("singular", "plural")[attractor_number],
        "cue": cue,
    }
    answer, distractor = lex.VERBS[cue][number], lex.VERBS[cue][1 - number]
    closing = (rng.choice(lex.COMPLEMENTS[cue]), ".")
    return finish(
        "agreement", template, slots, {"subject": subject[1 - number]}, answer, distractor, attributes, closing
    )


def sentiment(rng: random.Random, split: str = "train") -> Example:
    """A review of two judgements that agree, some of them negated, and the word that they lead to.

    Held out: pairs of adjectives.
    """
    positive = rng.random() < 0.5
    while True:
        negated = [rng.random() < 0.2, rng.random() < 0.2]
        pools = [lex.POSITIVE if positive != negation else lex.NEGATIVE for negation in negated]
        adjectives = [rng.choice(pool) for pool in pools]
        if adjectives[0] != adjectives[1] and belongs(split, "sentiment", *sorted(adjectives)):
            break
    number = rng.randrange(len(lex.SENTIMENT_TEMPLATES))
    template, *verdicts = lex.SENTIMENT_TEMPLATES[number]
    aspect, aspect2 = rng.sample(lex.ASPECTS, 2)
    slots = {"thing": rng.choice(lex.THINGS), "aspect": aspect, "aspect2": aspect2, "name": rng.choice(lex.NAMES)}
    changed = {}
    for slot, adjective, negation, pool in zip(("adj1", "adj2"), adjectives, negated, pools, strict=True):
        slots[slot] = adjective
        changed[slot] = rng.choice(lex.NEGATIVE if pool is lex.POSITIVE else lex.POSITIVE)
        if negation:
            template = template.replace("{" + slot + "}", rng.choice(lex.NEGATIONS) + " {" + slot + "}")
    attributes = {
        "label": "positive" if positive else "negative",
        "template": str(number),
        "negations": str(sum(negated)),
    }
    return finish("sentiment", template, slots, changed, verdicts[not positive], verdicts[positive], attributes)


def opposites(rng: random.Random, split: str = "train") -> Example:
    """The opposite of a word, in English, in French, or in the other language, which is in the train split alone.

    Held out: of every word, one of the templates in its own language.
    """
    language = rng.choice(("english", "french"))
    pairs = lex.OPPOSITES[language]
    word, other = rng.sample(tuple(pairs), 2)
    across = split == "train" and rng.random() < 0.3
    to = {"english": "french", "french": "english"}[language] if across else language
    templates = lex.OPPOSITE_TEMPLATES[language, to]
    number = rng.randrange(len(templates)) if across else pick_phrasing(rng, split, len(templates), "opposites", word)
    attributes = {"language": language, "answer_language": to, "template": str(number), "word": word}
    return finish(
        "opposites",
        templates[number],
        {"word": word},
        {"word": other},
        pairs[word][across],
        pairs[other][across],
        attributes,
    )


def binding(
    rng: random.Random, split: str = "train", n_boxes: int | None = None, n_queries: int | None = None
) -> Example:
    """Objects in lettered boxes; what does one box hold? Held out: the objects, in their order, of a sentence.

    In the twin the asked object has changed places with another one of the sentence, so the other one is the answer.

    Args:
      rng, split: as in every phenomenon.
      n_boxes: boxes in the sentence, 2 to 20; by default 2 to 5 at random.
      n_queries: questions about boxes, one after the other; the example asks the last. By default 1 to 3 at random.
    """
    n_boxes = rng.randint(2, 5) if n_boxes is None else n_boxes
    check_within("binding: n_boxes", n_boxes, 2, min(len(lex.GOODS), len(lex.LETTERS)))
    n_queries = n_queries or rng.randint(1, 3)
    while True:
        objects = rng.sample(lex.GOODS, n_boxes)
        if belongs(split, "binding", *objects):
            break
    boxes = rng.sample(lex.LETTERS, n_boxes)
    order = rng.sample(range(n_boxes), n_boxes)  # the asked box first, the one it is exchanged with second
    suffix = {i: f"_{rank}" if rank > 1 else ("", "_other")[rank] for rank, i in enumerate(order)}
    slots = {f"object{suffix[i]}": objects[i] for i in order} | {f"box{suffix[i]}": boxes[i] for i in order}
    number = rng.randrange(len(lex.BINDING_CLAUSES))
    template = " , ".join(_of_box(lex.BINDING_CLAUSES[number], suffix[i]) for i in range(n_boxes)) + " . "
    queries = [(i, rng.choice(lex.BINDING_QUERIES)) for i in (*rng.choices(order, k=n_queries - 1), order[0])]
    asked_at = []
    for i, query in queries[:-1]:
        template += _of_box(query, suffix[i])
        asked_at.append(len(plain(template).split()))
        template = closed(f"{template} {{object{suffix[i]}}}") + " . "
    template += queries[-1][1].replace("{box}", "{query}")
    answer, distractor = slots["object"], slots["object_other"]
    slots["query"] = slots["box"]
    changed = {"object": distractor, "object_other": answer}
    attributes = {"n_boxes": str(n_boxes), "clause": str(number), "query": plain(queries[-1][1]).split()[0]}
    example = finish("binding", template, slots, changed, answer, distractor, attributes)
    return replace(example, determined=(*asked_at, *example.determined))


def _of_box(text: str, suffix: str) -> str:
    """The template with the slots of one box: {object_2} for {object} where the suffix is "_2"."""
    return text.replace("{object}", f"{{object{suffix}}}").replace("{box}", f"{{box{suffix}}}")


def repeated(
    rng: random.Random, split: str = "train", length: int | None = None, words: Sequence[str] = RANDOM_WORDS
) -> Example:
    """Random words, `;`, the same words again. Held out: the sequence of words.

    The example asks for one word of the second half, at random. The twin has another word at its place in the first
    half.

    Args:
      rng, split: as in every phenomenon.
      length: words in one half; by default 4 to 10 at random.
      words: the words to draw from.
    """
    length = rng.randint(4, 10) if length is None else length
    check_within("repeated: length", length, 1, len(words) - 1)
    while True:
        *half, distractor = rng.sample(words, length + 1)
        if belongs(split, "repeated", *half):
            break
    source = rng.randrange(length)
    end = length + source
    sentence = (*half, ";", *half, ".")
    twin = list(sentence[: end + 1])
    twin[source] = distractor
    return Example(
        "repeated",
        sentence,
        {"source": source, "end": end},
        half[source],
        distractor,
        {"length": str(length)},
        tuple(twin),
        tuple(range(length + 1, 2 * length + 1)),
    )


PHENOMENA: dict[str, Callable[..., Example]] = {
    "ioi": ioi,
    "facts": facts,
    "agreement": agreement,
    "sentiment": sentiment,
    "opposites": opposites,
    "binding": binding,
    "repeated": repeated,
}
