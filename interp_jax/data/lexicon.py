"""The words, facts and templates of the first microworld: what its language is about, not how it is drawn.

A template is a string of words with `{slots}`; a slot is one word, so a position has a name before it is filled.
"""

import random

PAD, BOS, UNK = "<pad>", "<bos>", "<unk>"

# --- indirect objects -------------------------------------------------------------------------------------------------
NAMES = tuple(
    "Mary John Anna Peter Laura David Emma Simon Clara Henry Alice Martin Sarah Paul Julia Thomas Helen "
    "Robert Nina Oscar Lucy Frank Grace Victor Rose Walter Ellen George Irene Louis Marie Arthur Olga "
    "Hugo Diana Felix Carol Edwin Sophie Bruno Vera Albert Nora Philip Jane Oliver Ruth Daniel Lily "
    "Samuel".split()
)
PLACES = tuple("store park school garden office station museum library market beach hospital restaurant".split())
OBJECTS = tuple(
    "drink ring book key coin apple letter ball cup lamp watch map pen hat stone flower ticket ribbon "
    "bottle knife candle mirror brush spoon shell feather basket clock glove rope".split()
)
IOI_TEMPLATES = (
    "when {first} and {second} went to the {place} , {s2} gave a {object} to",
    "then {first} and {second} met at the {place} and {s2} handed a {object} to",
    "after {first} and {second} left the {place} , {s2} sent the {object} to",
    "while {first} and {second} were at the {place} , {s2} offered a {object} to",
    "{first} and {second} had a talk in the {place} and {s2} showed the {object} to",
    "once {first} and {second} came back from the {place} , {s2} lent the {object} to",
)

# --- facts ------------------------------------------------------------------------------------------------------------
_COUNTRIES = """
France Paris French Europe | Germany Berlin German Europe | Italy Rome Italian Europe | Spain Madrid Spanish Europe
Portugal Lisbon Portuguese Europe | Greece Athens Greek Europe | Poland Warsaw Polish Europe
Sweden Stockholm Swedish Europe | Norway Oslo Norwegian Europe | Finland Helsinki Finnish Europe
Hungary Budapest Hungarian Europe | Austria Vienna German Europe | Ireland Dublin English Europe
England London English Europe | Russia Moscow Russian Europe | Turkey Ankara Turkish Asia
China Beijing Chinese Asia | Japan Tokyo Japanese Asia | Korea Seoul Korean Asia | India Delhi Hindi Asia
Thailand Bangkok Thai Asia | Vietnam Hanoi Vietnamese Asia | Iran Tehran Persian Asia | Iraq Baghdad Arabic Asia
Egypt Cairo Arabic Africa | Morocco Rabat Arabic Africa | Kenya Nairobi Swahili Africa | Ghana Accra English Africa
Senegal Dakar French Africa | Angola Luanda Portuguese Africa | Ethiopia Addis Amharic Africa
Brazil Brasilia Portuguese America | Peru Lima Spanish America | Chile Santiago Spanish America
Cuba Havana Spanish America | Canada Ottawa English America
"""
PEOPLE = tuple(
    "Aldric Berwin Cedany Dorvin Elvane Farrow Galdor Hestia Ilvara Jorund Kelric Lorwyn Mirabel Nerith "
    "Orsino Perrin Quillon Rowena Sorrel Tamsin Ulric Vesper Wystan Xandra Yorick Zelda Ambrus Brannoc "
    "Corvus Drusila Eldon Fiorin Gwyneth Haldan Isolde Jasper Kestrel Leofric Morwen Norbert".split()
)
PROFESSIONS = tuple(
    "baker doctor farmer painter teacher sailor lawyer tailor miner poet judge nurse carpenter chemist".split()
)
INSTRUMENTS = tuple("piano violin guitar flute harp drums trumpet cello organ clarinet".split())
PHRASINGS = {
    "capital": (
        "the capital of {subject} is",
        "the government of {subject} sits in",
        "{subject} is ruled from",
        "the parliament of {subject} meets in",
    ),
    "language": (
        "the language of {subject} is",
        "people in {subject} speak",
        "the newspapers of {subject} are written in",
        "children in {subject} learn to read",
    ),
    "continent": (
        "the country of {subject} lies in",
        "{subject} is a part of",
        "the continent of {subject} is",
        "on the globe {subject} belongs to",
    ),
    "profession": (
        "{subject} works as a",
        "the profession of {subject} is",
        "for a living {subject} is a",
        "{subject} was hired as a",
    ),
    "city": (
        "{subject} lives in the city of",
        "the home of {subject} is in",
        "letters to {subject} are sent to",
        "you can find {subject} in",
    ),
    "instrument": (
        "{subject} plays the",
        "the instrument of {subject} is the",
        "{subject} is famous on the",
        "in the band {subject} is on the",
    ),
}


def _facts() -> dict[str, dict[str, str]]:
    """relation -> {subject: attribute}. Countries are real; the people and what they do are invented."""
    facts: dict[str, dict[str, str]] = {relation: {} for relation in PHRASINGS}
    for entry in _COUNTRIES.replace("\n", "|").split("|"):
        if entry.strip():
            country, capital, language, continent = entry.split()
            facts["capital"][country] = capital
            facts["language"][country] = language
            facts["continent"][country] = continent
    rng = random.Random("people")
    capitals = sorted(facts["capital"].values())
    for person in PEOPLE:
        facts["profession"][person] = rng.choice(PROFESSIONS)
        facts["city"][person] = rng.choice(capitals)
        facts["instrument"][person] = rng.choice(INSTRUMENTS)
    return facts


FACTS = _facts()

# --- agreement --------------------------------------------------------------------------------------------------------
NOUNS = tuple(  # (singular, plural)
    (word, word + "s")
    for word in "dog cat boy girl farmer teacher doctor bird horse tree house car friend student lion king driver "
    "sister guard singer".split()
)
PREPOSITIONS = tuple("near behind beside above under with".split())
ATTRACTOR_TEMPLATES = ("{preposition} the {attractor}", "that the {attractor} {likes}")
VERBS = {  # the first word of the sentence fixes the verb, the subject its number
    "today": ("is", "are"),
    "yesterday": ("was", "were"),
    "lately": ("has", "have"),
}
COMPLEMENTS = {
    "today": tuple("here tired outside quiet".split()),
    "yesterday": tuple("here tired outside quiet".split()),
    "lately": tuple("slept changed grown rested".split()),
}

# --- sentiment --------------------------------------------------------------------------------------------------------
POSITIVE = tuple(
    "brilliant charming superb lovely delightful wonderful moving elegant clever fresh splendid graceful "
    "thrilling witty perfect excellent".split()
)
NEGATIVE = tuple(
    "boring dreadful awful clumsy dull terrible horrible stale silly weak tedious dismal messy shallow "
    "annoying poor".split()
)
THINGS = tuple("film play novel concert show meal hotel tour".split())
ASPECTS = tuple("plot music cast style service setting story design".split())
NEGATIONS = ("not", "never")
SENTIMENT_TEMPLATES = (  # (template, the word of a good review, the word of a bad one)
    ("the {aspect} of the {thing} was {adj1} and the {aspect2} was {adj2} , so {name} felt", "happy", "sad"),
    ("{name} found the {aspect} {adj1} and the {aspect2} {adj2} , the verdict on the {thing} is", "good", "bad"),
    ("in this {thing} the {aspect} is {adj1} and {name} , who calls the {aspect2} {adj2} , will", "return", "leave"),
    ("the {aspect} was {adj1} , the {aspect2} was {adj2} and {name} says the {thing} is a", "success", "failure"),
)

# --- opposites --------------------------------------------------------------------------------------------------------
_OPPOSITES = """
hot cold chaud froid | big small grand petit | tall short haut bas | fast slow rapide lent | old young vieux jeune
rich needy riche pauvre | strong feeble fort faible | light dark clair sombre | happy sad heureux triste
good bad bon mauvais | full empty plein vide | open closed ouvert fermé | clean dirty propre sale
hard soft dur mou | wet dry mouillé sec | heavy weightless lourd léger | near far proche lointain
new worn neuf usé | sweet bitter doux amer | true false vrai faux | early late tôt tard
loud silent bruyant silencieux | wide narrow vaste étroit | thick thin épais mince | deep flat profond plat
sharp blunt aigu émoussé | safe dangerous sûr dangereux | brave fearful courageux peureux
easy complex facile difficile | calm angry calme furieux
"""
OPPOSITE_TEMPLATES = {  # (language of the word, language of the answer) -> templates
    ("english", "english"): (
        "the opposite of {word} is",
        "{word} is the opposite of",
        "a thing that is not {word} is",
        "in place of {word} we got",
    ),
    ("french", "french"): (
        "le contraire de {word} est",
        "{word} est le contraire de",
        "une chose qui ne semble pas {word} semble",
        "au lieu de {word} on trouve",
    ),
    ("english", "french"): ("the opposite of {word} in french is", "in french the opposite of {word} is"),
    ("french", "english"): ("le contraire de {word} en anglais est", "en anglais le contraire de {word} est"),
}


def _opposites() -> dict[str, dict[str, tuple[str, str]]]:
    """language -> {word: (its opposite, the opposite in the other language)}."""
    opposites: dict[str, dict[str, tuple[str, str]]] = {"english": {}, "french": {}}
    for entry in _OPPOSITES.replace("\n", "|").split("|"):
        if entry.strip():
            a, b, a_french, b_french = entry.split()
            opposites["english"] |= {a: (b, b_french), b: (a, a_french)}
            opposites["french"] |= {a_french: (b_french, b), b_french: (a_french, a)}
    return opposites


OPPOSITES = _opposites()

# --- binding ----------------------------------------------------------------------------------------------------------
LETTERS = tuple("ABCDEFGHIJKLMNOPQRST")
GOODS = tuple(word + "s" for word in OBJECTS if not word.endswith(("s", "h", "fe")))
BINDING_CLAUSES = ("box {box} {object}", "box {box} holds {object}", "the {object} are in box {box}")
BINDING_QUERIES = ("box {box} contains", "list {box}")


def _vocabulary() -> tuple[str, ...]:
    """Every word of the world in a fixed order, the special tokens first."""
    texts: list[str] = [*NAMES, *PLACES, *OBJECTS, *GOODS, *LETTERS, *IOI_TEMPLATES]
    texts += [*PEOPLE, *PROFESSIONS, *INSTRUMENTS]
    for relation, facts in FACTS.items():
        texts += [*PHRASINGS[relation], *facts, *facts.values()]
    texts += [word for pair in NOUNS for word in pair] + [*PREPOSITIONS, *ATTRACTOR_TEMPLATES, "likes like"]
    texts += [word for cue, pair in VERBS.items() for word in (cue, *pair, *COMPLEMENTS[cue])]
    texts += [*POSITIVE, *NEGATIVE, *THINGS, *ASPECTS, *NEGATIONS]
    texts += [text for triple in SENTIMENT_TEMPLATES for text in triple]
    texts += [text for templates in OPPOSITE_TEMPLATES.values() for text in templates]
    texts += [word for words in OPPOSITES.values() for word in words]
    texts += [*BINDING_CLAUSES, *BINDING_QUERIES, ". , ;"]
    words = {word: None for text in texts for word in text.split() if not word.startswith("{")}
    return (PAD, BOS, UNK, *words)


VOCABULARY = _vocabulary()
