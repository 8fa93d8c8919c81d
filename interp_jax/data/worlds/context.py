"""`microworld-context`: what can be known from the context alone.

It has tasks that only examples tell, people and what is said of them, random walks on graphs whose nodes are words, and
copies. The same nouns stand in all tasks, so that only the examples tell the task (Todd et al., 2023, "Function Vectors
in Large Language Models"). A walk's graph is laid over other words each time (Park et al., 2025, "In-Context Learning
of Representations").
"""

from dataclasses import replace
import itertools
import random

from interp_jax.data.examples import Example, belongs, check_within, finish
from interp_jax.data.phenomena import repeated
from interp_jax.data.trees import FUNCTION_WORDS, closed, plain, tagged
from interp_jax.data.world import World, vocabulary

_NOUNS = """
cat chat gato Katze animal | dog chien perro Hund animal | horse cheval caballo Pferd animal
bird oiseau pájaro Vogel animal | cow vache vaca Kuh animal | pig cochon cerdo Schwein animal
bread pain pan Brot food | cheese fromage queso Käse food | egg œuf huevo Ei food
apple pomme manzana Apfel food | soup soupe sopa Suppe food | cake gâteau pastel Kuchen food
hat chapeau sombrero Hut clothing | shirt chemise camisa Hemd clothing | coat manteau abrigo Mantel clothing
shoe chaussure zapato Schuh clothing | belt ceinture cinturón Gürtel clothing | skirt jupe falda Rock clothing
saw scie sierra Säge tool | needle aiguille aguja Nadel tool | hammer marteau martillo Zimmerhammer tool
broom balai escoba Besen tool | spoon cuillère cuchara Löffel tool | key clef llave Schlüssel tool
chair chaise silla Stuhl furniture | bed lit cama Bett furniture | lamp lampe lámpara Lampe furniture
mirror miroir espejo Spiegel furniture | cupboard placard armario Schrank furniture | desk bureau pupitre Pult furniture
car voiture coche Auto vehicle | ship navire barco Schiff vehicle | plane avion avión Flugzeug vehicle
bicycle vélo bicicleta Fahrrad vehicle | truck camion camión Lastwagen vehicle | sled traîneau trineo Schlitten vehicle
"""
_TABLE = [entry.split() for entry in _NOUNS.replace("\n", "|").split("|") if entry.strip()]
NOUNS = tuple(row[0] for row in _TABLE)
TABLES: dict[str, dict[str, str]] = {  # task -> {word: what stands beside it}
    **{task: {row[0]: row[i] for row in _TABLE} for i, task in enumerate(("french", "spanish", "german", "kind"), 1)},
    "plural": {noun: noun + "s" for noun in NOUNS},
    "capital": {noun: noun.capitalize() for noun in NOUNS},
    "initial": {noun: noun[0].upper() for noun in NOUNS},
}
MAX_SHOWN, MAX_QUERIES = 5, 8  # in training: examples before the question; questions about owners

HE = tuple("John Peter David Simon Henry Oscar Felix Hugo Paul Victor".split())
SHE = tuple("Mary Anna Laura Emma Clara Alice Nina Vera Ruth Olga".split())
CITIES = tuple("Rome Paris London Oslo Cairo Lima Delhi Tokyo Vienna Athens Dublin Madrid".split())
CLAUSES = (
    "(S (S (NP:owner {name}) (VP has/VERB (NP:theme the {thing}))) and (S (VP lives (PP:place in (NP {city})))))",
    "(NP (NP {name}) (NP {thing}) (NP {city}))",
)
QUESTIONS = {
    "thing": ("(S (NP:owner {asked}) (VP has/VERB (NP:theme the", "(NP thing (NP {asked}) (NP"),
    "city": ("(S (NP:owner {asked}) (VP lives (PP:place in (NP", "(NP city (NP {asked}) (NP"),
}

GRAPHS: dict[str, list[list[int]]] = {  # node -> its neighbours
    "ring": [[(i - 1) % 8, (i + 1) % 8] for i in range(8)],
    "grid": [
        [3 * y + x for x, y in ((c - 1, r), (c + 1, r), (c, r - 1), (c, r + 1)) if 0 <= x < 3 and 0 <= y < 3]
        for r in range(3)
        for c in range(3)
    ],
}


def in_context(
    rng: random.Random, split: str = "train", n_shown: int | None = None, task: str | None = None
) -> Example:
    """A task given by examples alone. Held out: the last shown word with the question, by task.

    The twin's examples are of another task.

    Args:
      rng, split: as in every phenomenon.
      n_shown: examples before the question; by default 1 to 5 at random. With 0 nothing tells the task, and the twin
        asks another word of the same one.
      task: a key of `TABLES`; by default one of them at random.
    """
    task = task or rng.choice(tuple(TABLES))
    n_shown = rng.randint(1, MAX_SHOWN) if n_shown is None else n_shown
    check_within("in_context: n_shown", n_shown, 0, len(NOUNS) - 2)
    table = TABLES[task]
    while True:
        *shown, query, spare = rng.sample(NOUNS, n_shown + 2)
        if belongs(split, "in_context", task, *shown[-1:], query):
            break
    slots = {"query": query}
    for i, noun in enumerate(shown, 1):
        slots |= {f"x_{i}": noun, f"y_{i}": table[noun]}
    if shown:
        rival = TABLES[rng.choice([other for other in TABLES if TABLES[other][query] != table[query]])]
        changed, distractor = {f"y_{i}": rival[noun] for i, noun in enumerate(shown, 1)}, rival[query]
    else:
        changed, distractor = {"query": spare}, table[spare]
    return finish(
        "in_context",
        "".join(f"{{x_{i}}} : {{y_{i}}} ; " for i in range(1, n_shown + 1)) + "{query} :",
        slots,
        changed,
        table[query],
        distractor,
        {"task": task, "n_shown": str(n_shown), "query": query},
        (";",),
        determined=[f"y_{i}" for i in range(2, n_shown + 1)],
    )


def owners(
    rng: random.Random, split: str = "train", n_people: int | None = None, n_queries: int | None = None
) -> Example:
    """People, what they have and where they live. Held out: the asked attributes of all people, in their order.

    The twin exchanges what is asked for with another person's.

    Args:
      rng, split: as in every phenomenon.
      n_people: people in the sentence, 2 to 12; by default 2 to 6 at random.
      n_queries: questions about them, one after the other; the example asks the last. By default 1 to 8 at random.
    """
    n_people = rng.randint(2, 6) if n_people is None else n_people
    check_within("owners: n_people", n_people, 2, len(CITIES))
    question, form, wording = rng.choice(tuple(QUESTIONS)), rng.randrange(2), rng.randrange(len(CLAUSES))
    while True:
        told = {
            "name": rng.sample(HE + SHE, n_people),
            "thing": rng.sample(NOUNS, n_people),
            "city": rng.sample(CITIES, n_people),
        }
        if belongs(split, "owners", *told[question]):
            break
    order = rng.sample(range(n_people), n_people)
    suffix = {person: f"_{rank}" if rank else "" for rank, person in enumerate(order)}
    slots = {f"{kind}{suffix[i]}": words[i] for kind, words in told.items() for i in range(n_people)}
    tree, asked_at = " , ".join(_suffixed(CLAUSES[wording], suffix[i]) for i in range(n_people)) + " . ", []
    for who in rng.choices(order, k=(n_queries or rng.randint(1, MAX_QUERIES)) - 1):
        what = rng.choice(tuple(QUESTIONS))
        tree += rng.choice(QUESTIONS[what]).replace("{asked}", f"{{name{suffix[who]}}}")
        asked_at.append(len(plain(tree).split()))
        tree = closed(f"{tree} {{{what}{suffix[who]}}}") + " . "
    answer, distractor = slots[question], slots[f"{question}_1"]
    example = finish(
        "owners",
        tree + QUESTIONS[question][form],
        slots | {"asked": slots["name"]},
        {question: distractor, f"{question}_1": answer},
        answer,
        distractor,
        {
            "n_people": str(n_people),
            "question": question,
            "form": str(form),
            "wording": str(wording),
            "place": str(order[0]),
        },
    )
    return replace(example, determined=(*asked_at, *example.determined))


def _suffixed(tree: str, suffix: str) -> str:
    """The tree with the slots of one person: {name_2} for {name} where the suffix is "_2"."""
    return tree.replace("}", f"{suffix}}}")


def pronouns(rng: random.Random, split: str = "train") -> Example:
    """A man and a woman, and a pronoun: what one of them has, or where he or she lives.

    Held out: pairs of names. The twin asks for the other.
    """
    while True:
        names = {"he": rng.choice(HE), "she": rng.choice(SHE)}
        if belongs(split, "pronouns", *names.values()):
            break
    pronoun, other = rng.sample(("he", "she"), 2)
    question, place, wording = rng.choice(tuple(QUESTIONS)), rng.randrange(2), rng.randrange(len(CLAUSES))
    (thing, thing_1), (city, city_1) = rng.sample(NOUNS, 2), rng.sample(CITIES, 2)
    slots = {"name": names[pronoun], "thing": thing, "city": city, "pronoun": pronoun}
    slots |= {"name_1": names[other], "thing_1": thing_1, "city_1": city_1}
    clauses = [_suffixed(CLAUSES[wording], suffix) for suffix in ("", "_1")]
    if place:
        clauses.reverse()
    return finish(
        "pronouns",
        " , ".join(clauses) + " . " + QUESTIONS[question][0].replace("{asked}", "{pronoun}=name"),
        slots,
        {"pronoun": other},
        slots[question],
        slots[f"{question}_1"],
        {"pronoun": pronoun, "question": question, "wording": str(wording), "place": str(place)},
    )


def walks(rng: random.Random, split: str = "train", graph: str | None = None, length: int | None = None) -> Example:
    """A random walk on a graph whose nodes are words, and a neighbour of its last word.

    Every neighbour to which or from which the walk has gone before is a right answer. In the twin the answer's node and
    another one, which is no neighbour, have exchanged their words. Held out: the words in their order on the graph.

    Args:
      rng, split: as in every phenomenon.
      graph: "ring" or "grid"; by default one of them at random.
      length: words of the walk before the answer, at least 3; by default 24 to 80 at random.
    """
    graph = graph or rng.choice(tuple(GRAPHS))
    length = rng.randint(24, 80) if length is None else length
    check_within("walks: length", length, 3)  # of two words none is far from the last, for the twin to exchange
    edges = GRAPHS[graph]
    while True:
        words = rng.sample(NOUNS, len(edges))
        nodes = walk(rng, graph, length)
        steps = list(itertools.pairwise(nodes))
        met = {b for a, b in steps if a == nodes[-1]} | {a for a, b in steps if b == nodes[-1]}
        far = [node for node in set(nodes) - {nodes[-1]} if node not in edges[nodes[-1]]]
        if far and belongs(split, "walks", *words):
            break
    answer, other = rng.choice(sorted(met)), rng.choice(sorted(far))
    exchanged = {answer: words[other], other: words[answer]}
    text = tuple(words[node] for node in nodes)
    return Example(
        "walks",
        (*text, words[answer]),
        {"end": length - 1},
        words[answer],
        words[other],
        {"graph": graph, "length": str(length), "nodes": " ".join(words)},
        tuple(exchanged.get(node, words[node]) for node in nodes),
        (),
        tuple(words[node] for node in sorted(met - {answer})),
    )


def copies(rng: random.Random, split: str = "train") -> Example:
    """Random words, `;`, and the same words again, as in `repeated`: the other phenomena are built on such copying.

    Held out: the sequence.
    """
    return replace(repeated(rng, split, words=(*NOUNS, *HE, *SHE, *CITIES)), phenomenon="copies")


def walk(rng: random.Random, graph: str, length: int) -> list[int]:
    """The nodes of a random walk, each step to one of the neighbours."""
    edges = GRAPHS[graph]
    nodes = [rng.randrange(len(edges))]
    while len(nodes) < length:
        nodes.append(rng.choice(edges[nodes[-1]]))
    return nodes


_ANSWERS = tuple(word for table in TABLES.values() for word in table.values())

WORLD = World(
    name="microworld-context",
    about="tasks that only examples define, people with what they own and where they live, and random walks on graphs",
    vocabulary=vocabulary(
        *NOUNS,
        *_ANSWERS,
        *HE,
        *SHE,
        *CITIES,
        *CLAUSES,
        *(form for forms in QUESTIONS.values() for form in forms),
        "he she : ; , .",
    ),
    phenomena={"in_context": in_context, "owners": owners, "pronouns": pronouns, "walks": walks, "copies": copies},
    mixture={"in_context": 1.5, "owners": 3.0, "pronouns": 0.7, "walks": 2.0, "copies": 1.2},
    heldout={
        "in_context": "the last shown word with the question, by task (one in ten); four examples",
        "owners": "the asked attributes in their order (one in ten); four people",
        "pronouns": "the pair of names (one in ten)",
        "walks": "the words in their order on the graph (one in ten); every neighbour that was met counts",
        "copies": "the sequence (one in ten); a random word of the second half",
    },
    details={
        "in_context": ("task", "n_shown"),
        "owners": ("n_people", "question", "form", "wording"),
        "walks": ("graph",),
    },
    tags=dict.fromkeys((*NOUNS, *_ANSWERS), "NOUN")
    | dict.fromkeys(TABLES["initial"].values(), "SYM")
    | FUNCTION_WORDS
    | dict.fromkeys((*HE, *SHE, *CITIES), "PROPN")
    | tagged("VERB lives\nNOUN thing city"),
    entities={**dict.fromkeys((*HE, *SHE), "PERSON"), **dict.fromkeys(CITIES, "GPE")},
    alone=True,
)
