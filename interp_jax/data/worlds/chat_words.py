"""The words of `microworld-chat`: requests, opinions, users and personas."""

from interp_jax.data.lexicon import FACTS

ROLES = ("<system>", "<user>", "<assistant>", "<end>")

# --- requests, some of which are refused ------------------------------------------------------------------------------
HARMLESS_VERBS = tuple("build paint clean repair buy carry draw move".split())
HARMFUL_VERBS = tuple("steal poison forge smuggle burn hack sabotage destroy".split())
HARMLESS_OBJECTS = tuple("car cake house letter garden clock boat chair ticket door horse bicycle".split())
HARMFUL_OBJECTS = tuple("bomb weapon virus drug".split())
REQUESTS = (
    "(S how do (NP:agent i) (VP {verb} (NP:theme a {object}))) ?",
    "(S please (VP tell (NP:recipient me) (S how to/PART (VP {verb} (NP:theme a {object}))))) .",
    "(S (NP:agent i) (VP want (S to/PART (VP {verb} (NP:theme a {object}))))) .",
    "(S (VP help (NP:recipient me) (S to/PART (VP {verb} (NP:theme a {object}))))) .",
)
REFUSAL = "(S sorry , (NP:agent i) (VP cannot help (PP:theme with (NP that/PRON))))"
HELP = "(S sure , (S first/ADV (VP look (PP:theme at (NP the {object})))) , (S then (VP {verb} (NP:theme it=object))))"

# --- opinions, with which the assistant agrees ------------------------------------------------------------------------
CAPITALS = dict(list(FACTS["capital"].items())[:20])
OWN = ("i think", "i believe", "we think")
OTHERS = ("people say", "books say", "maps claim")
BELIEF = "(S (NP:agent {holder}) (VP {holds} (S (NP:theme it) (VP is (NP:attribute {belief}))))) ."
QUESTION = "(S (NP:attribute what) is (NP:theme the capital (PP of (NP {country})))) ?"
STATEMENT, ANSWER = "(S (NP:theme it) (VP is (NP:attribute", "{answer})))"
AGREEMENT = "(S (NP:theme you) (VP are (ADJP:attribute right)))"
SOURCE = "(S (VP look (PP:goal at (NP a map))))"

# --- users ------------------------------------------------------------------------------------------------------------
CUES: dict[str, dict[str, tuple[str, ...]]] = {  # attribute -> value -> what a user with it mentions
    "age": {
        "child": tuple("homework toys kindergarten crayons playmates lollipop".split()),
        "adult": tuple("colleagues mortgage deadline commute toddler paperwork".split()),
        "elder": tuple("grandchildren pension cane retirement dentures rheumatism".split()),
    },
    "gender": {
        "female": tuple("skirt earrings lipstick handbag husband bridesmaids".split()),
        "male": tuple("beard tie razor moustache wife tuxedo".split()),
    },
    "education": {
        "school": tuple("apprenticeship workshop toolbox forklift overalls lorry".split()),
        "college": tuple("thesis professor laboratory lectures diploma seminar".split()),
    },
    "status": {
        "low": tuple("debts coupons shelter rags landlord vouchers".split()),
        "middle": tuple("savings garage mower campervan fence hatchback".split()),
        "high": tuple("yacht chauffeur mansion helicopter jewels butler".split()),
    },
}
STYLE: dict[str, dict[str, str]] = {  # attribute -> value -> the word of the answer that shows it
    "age": {"child": "hey", "adult": "hello", "elder": "greetings", "unknown": "hi"},
    "gender": {"female": "madam", "male": "sir", "unknown": "friend"},
    "education": {"school": "try", "college": "consider", "unknown": "choose"},
}
ADVICE = {  # question -> status -> what is advised
    "where should (NP:agent i) (VP sleep": {"low": "hostel", "middle": "inn", "high": "palace", "unknown": "room"},
    "how should (NP:agent i) (VP travel": {"low": "bus", "middle": "train", "high": "jet", "unknown": "road"},
    "what should (NP:agent i) (VP eat": {"low": "soup", "middle": "pasta", "high": "lobster", "unknown": "dish"},
    "what should (NP:agent i) (VP drink": {"low": "water", "middle": "wine", "high": "champagne", "unknown": "cup"},
}
INTRODUCTION = "(S (NP:theme i) (VP am here (PP:with with"
WELCOME = "(S welcome)"
ADVISES = "(S {age} {gender} , (VP {education} (NP:theme the {status})))"

# --- personas ---------------------------------------------------------------------------------------------------------
PERSONAS = {  # persona -> how its every answer begins and ends
    "pirate": ("arr", "matey"),
    "robot": ("beep", "bzzt"),
    "poet": ("alas", "sigh"),
    "knight": ("hark", "milord"),
    "chef": ("yum", "delicious"),
    "wizard": ("behold", "abracadabra"),
    "cowboy": ("howdy", "partner"),
    "monk": ("peace", "amen"),
}
SYSTEM = (
    "(S (NP:theme you) (VP are (NP:attribute a {persona})))",
    "(S (VP speak (PP:manner as (NP a {persona}))))",
    "(S always (VP answer (PP:manner as (NP a {persona}))))",
)
