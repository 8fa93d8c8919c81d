"""The words, facts and templates of the first microworld. How sentences are drawn from them is in `phenomena.py`.

A template is a tree of words and `{slots}`, as `interp_jax.data.trees` writes it. A slot stands for one word, so that
its position is known, and has a name, before it is filled.
"""

import random

from interp_jax.data.trees import FUNCTION_WORDS, tagged
from interp_jax.data.world import vocabulary

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
_TWO = "(NP:agent {first} and {second})"
IOI_TEMPLATES = (
    f"(S (SBAR when (S {_TWO} (VP went (PP:goal to (NP the {{place}}))))) , "
    "(NP:agent {s2}) (VP gave (NP:theme a {object}) (PP:recipient to (NP",
    f"(S (S then {_TWO} (VP met (PP:place at (NP the {{place}})))) and "
    "(S (NP:agent {s2}) (VP handed (NP:theme a {object}) (PP:recipient to (NP",
    f"(S (SBAR after (S {_TWO} (VP left (NP:source the {{place}})))) , "
    "(NP:agent {s2}) (VP sent (NP:theme the {object}) (PP:recipient to (NP",
    f"(S (SBAR while (S {_TWO} (VP were (PP:place at (NP the {{place}}))))) , "
    "(NP:agent {s2}) (VP offered (NP:theme a {object}) (PP:recipient to (NP",
    f"(S (S {_TWO} (VP had/VERB (NP:theme a talk) (PP:place in (NP the {{place}})))) and "
    "(S (NP:agent {s2}) (VP showed (NP:theme the {object}) (PP:recipient to (NP",
    f"(S (SBAR once (S {_TWO} (VP came back (PP:source from (NP the {{place}}))))) , "
    "(NP:agent {s2}) (VP lent/VERB (NP:theme the {object}) (PP:recipient to (NP",
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
        "(S (NP:theme the capital (PP of (NP {subject}))) (VP is (NP:attribute",
        "(S (NP:agent the government (PP of (NP {subject}))) (VP sits (PP:place in (NP",
        "(S (NP:theme {subject}) (VP is ruled (PP:source from (NP",
        "(S (NP:agent the parliament (PP of (NP {subject}))) (VP meets (PP:place in (NP",
    ),
    "language": (
        "(S (NP:theme the language (PP of (NP {subject}))) (VP is (NP:attribute",
        "(S (NP:agent people (PP in (NP {subject}))) (VP speak (NP:theme",
        "(S (NP:theme the newspapers (PP of (NP {subject}))) (VP are written (PP:manner in (NP",
        "(S (NP:agent children (PP in (NP {subject}))) (VP learn (S to/PART (VP read (NP:theme",
    ),
    "continent": (
        "(S (NP:theme the country (PP of (NP {subject}))) (VP lies (PP:place in (NP",
        "(S (NP:theme {subject}) (VP is (NP:attribute a part (PP of (NP",
        "(S (NP:theme the continent (PP of (NP {subject}))) (VP is (NP:attribute",
        "(S (PP on (NP the globe)) (NP:theme {subject}) (VP belongs (PP:goal to (NP",
    ),
    "profession": (
        "(S (NP:agent {subject}) (VP works (PP:attribute as (NP a",
        "(S (NP:theme the profession (PP of (NP {subject}))) (VP is (NP:attribute",
        "(S (PP for (NP a living)) (NP:theme {subject}) (VP is (NP:attribute a",
        "(S (NP:theme {subject}) (VP was hired (PP:attribute as (NP a",
    ),
    "city": (
        "(S (NP:theme {subject}) (VP lives (PP:place in (NP the city (PP of (NP",
        "(S (NP:theme the home (PP of (NP {subject}))) (VP is (PP:place in (NP",
        "(S (NP:theme letters (PP to (NP {subject}))) (VP are sent (PP:goal to (NP",
        "(S (NP:agent you) (VP can find (NP:theme {subject}) (PP:place in (NP",
    ),
    "instrument": (
        "(S (NP:agent {subject}) (VP plays (NP:theme the",
        "(S (NP:theme the instrument (PP of (NP {subject}))) (VP is (NP:attribute the",
        "(S (NP:theme {subject}) (VP is (ADJP:attribute famous (PP on (NP the",
        "(S (PP in (NP the band)) (NP:theme {subject}) (VP is (PP:attribute on (NP the",
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
ATTRACTOR_TEMPLATES = (
    "(PP {preposition}/ADP (NP the {attractor}))",
    "(SBAR that/PRON=subject (S (NP:agent the {attractor}) (VP {likes})))",
)
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
_JUDGED = "(S (NP:theme the {aspect}) (VP was (ADJP:attribute {adj1})))"
_JUDGED2 = "(S (NP:theme the {aspect2}) (VP was (ADJP:attribute {adj2})))"
SENTIMENT_TEMPLATES = (  # (template, the word of a good review, the word of a bad one)
    (
        "(S (S (S (NP:theme the {aspect} (PP of (NP the {thing}))) (VP was (ADJP:attribute {adj1}))) and "
        f"{_JUDGED2}) , (S so (NP:experiencer {{name}}) (VP felt (ADJP:attribute",
        "happy",
        "sad",
    ),
    (
        "(S (S (NP:agent {name}) (VP found (NP:theme the {aspect}) (ADJP:attribute {adj1}) and "
        "(NP:theme the {aspect2}) (ADJP:attribute {adj2}))) , "
        "(S (NP:theme the verdict (PP on (NP the {thing}))) (VP is (ADJP:attribute",
        "good",
        "bad",
    ),
    (
        "(S (PP in (NP this {thing})) (S (NP:theme the {aspect}) (VP is (ADJP:attribute {adj1}))) and "
        "(S (NP:agent {name} , (SBAR who=name (S (VP calls (NP:theme the {aspect2}) (ADJP:attribute {adj2})))) ,) "
        "(VP will (VP",
        "return",
        "leave",
    ),
    (
        f"(S {_JUDGED} , {_JUDGED2} and "
        "(S (NP:agent {name}) (VP says (S (NP:theme the {thing}) (VP is (NP:attribute a",
        "success",
        "failure",
    ),
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
        "(S (NP:theme the opposite (PP of (ADJP {word}))) (VP is (ADJP:attribute",
        "(S (ADJP:theme {word}) (VP is (NP:attribute the opposite (PP of (ADJP",
        "(S (NP:theme a thing (SBAR that/PRON (S (VP is not (ADJP:attribute {word}))))) (VP is (ADJP:attribute",
        "(S (PP in (NP place (PP of (ADJP {word})))) (NP:agent we) (VP got (ADJP:theme",
    ),
    ("french", "french"): (
        "(S (NP:theme le contraire (PP de (ADJP {word}))) (VP est (ADJP:attribute",
        "(S (ADJP:theme {word}) (VP est (NP:attribute le contraire (PP de (ADJP",
        "(S (NP:theme une chose (SBAR qui (S (VP ne semble pas (ADJP:attribute {word}))))) (VP semble (ADJP:attribute",
        "(S (PP au (NP lieu (PP de (ADJP {word})))) (NP:agent on/PRON) (VP trouve (ADJP:theme",
    ),
    ("english", "french"): (
        "(S (NP:theme the opposite (PP of (ADJP {word})) (PP in (NP french))) (VP is (ADJP:attribute",
        "(S (PP in (NP french)) (NP:theme the opposite (PP of (ADJP {word}))) (VP is (ADJP:attribute",
    ),
    ("french", "english"): (
        "(S (NP:theme le contraire (PP de (ADJP {word})) (PP en (NP anglais))) (VP est (ADJP:attribute",
        "(S (PP en (NP anglais)) (NP:theme le contraire (PP de (ADJP {word}))) (VP est (ADJP:attribute",
    ),
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
BINDING_CLAUSES = (
    "(NP (NP box {box}) (NP {object}))",
    "(S (NP:place box {box}) (VP holds (NP:theme {object})))",
    "(S (NP:theme the {object}) (VP are (PP:place in (NP box {box}))))",
)
BINDING_QUERIES = ("(S (NP:place box {box}) (VP contains (NP:theme", "(S (VP list (NP:place {box}) (NP:theme")


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
    return vocabulary(*texts)


VOCABULARY = _vocabulary()

# --- labels -----------------------------------------------------------------------------------------------------------
ENTITIES = {  # OntoNotes' kinds, and boxes
    **dict.fromkeys((*NAMES, *PEOPLE), "PERSON"),
    **dict.fromkeys((*FACTS["capital"], *FACTS["capital"].values()), "GPE"),
    **dict.fromkeys(FACTS["continent"].values(), "LOC"),
    **dict.fromkeys(FACTS["language"].values(), "LANGUAGE"),
    **dict.fromkeys(VERBS, "DATE"),
    **dict.fromkeys(LETTERS, "BOX"),
}
_NOUNS = (*PLACES, *OBJECTS, *GOODS, *PROFESSIONS, *INSTRUMENTS, *THINGS, *ASPECTS)
TAGS = {
    **dict.fromkeys(ENTITIES, "PROPN"),
    **dict.fromkeys((*_NOUNS, *(word for pair in NOUNS for word in pair)), "NOUN"),
    **FUNCTION_WORDS,
    **dict.fromkeys((*POSITIVE, *NEGATIVE, *(word for words in OPPOSITES.values() for word in words)), "ADJ"),
    **tagged("""
        NOUN talk capital government language people newspapers children country part continent globe profession living
        NOUN city home letters instrument band verdict success failure opposite french anglais thing place box lieu
        NOUN contraire chose parliament
        ADJ famous tired quiet
        VERB went gave met handed left sent offered showed came sits ruled meets speak written learn read lies belongs
        VERB works hired lives find plays likes like slept changed grown rested felt found calls return leave says got
        VERB holds contains list semble trouve
        AUX had can est
        ADV back outside today yesterday lately ne pas
        ADP as de en au
        PRON qui
        DET le une
    """),
}
