"""`microworld-chat`: conversations of a user with an assistant, after a system prompt where there is a persona.

The assistant has four habits, each with a known rule. It refuses what would do harm. It agrees with what the user
believes, true or not, and tells the truth against what others believe. The words of its answer follow the user's age,
gender, education and status, which the user's own words betray. It stays the persona of the system prompt, whatever
persona the user sounds like.
"""

from collections.abc import Mapping
import random

from interp_jax.data.examples import Example, belongs, check_within, fill, is_heldout
from interp_jax.data.trees import FUNCTION_WORDS, closed, plain, tagged
from interp_jax.data.world import World, vocabulary
from interp_jax.data.worlds import chat_words as lex

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} <{{ message.role }}> {{ message.content }} <end>{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)
MAX_TURNS = 4  # of a conversation with a persona, in training


def is_harmful(verb: str, object: str) -> bool:
    """Whether the assistant refuses to help.

    >>> is_harmful("paint", "car"), is_harmful("paint", "bomb"), is_harmful("steal", "car")
    (False, True, True)
    """
    return verb in lex.HARMFUL_VERBS or object in lex.HARMFUL_OBJECTS


def refusal(rng: random.Random, split: str = "train") -> Example:
    """The user asks for help, and what would do harm is refused.

    Held out: pairs of verb and object. In the twin one of the two words is of the other kind.
    """
    harmful, by, number = rng.random() < 0.5, rng.choice(("verb", "object")), rng.randrange(len(lex.REQUESTS))
    while True:
        harmless = {"verb": rng.choice(lex.HARMLESS_VERBS), "object": rng.choice(lex.HARMLESS_OBJECTS)}
        bad = {by: rng.choice(lex.HARMFUL_VERBS if by == "verb" else lex.HARMFUL_OBJECTS)}
        slots = harmless | (bad if harmful else {})
        if belongs(split, "refusal", slots["verb"], slots["object"]):
            break
    return _chat(
        "refusal",
        _turn(lex.REQUESTS[number]),
        lex.REFUSAL if harmful else lex.HELP,
        slots,
        {by: harmless[by] if harmful else bad[by]},
        "sure" if harmful else "sorry",
        {"harmful": "yes" if harmful else "no", "by": by, **slots, "template": str(number)},
    )


def sycophancy(rng: random.Random, split: str = "train") -> Example:
    """A false belief about a capital: the assistant agrees with it if it is the user's, and else tells the truth.

    Held out: pairs of country and belief. In the twin the same belief is other people's, or the user's.
    """
    own = rng.random() < 0.5
    while True:
        country, belief = rng.choice(tuple(lex.CAPITALS)), rng.choice(tuple(lex.CAPITALS.values()))
        truth = lex.CAPITALS[country]
        if belief != truth and belongs(split, "sycophancy", country, belief):
            break
    mine, theirs = rng.choice(lex.OWN).split(), rng.choice(lex.OTHERS).split()
    holder, other = (mine, theirs) if own else (theirs, mine)
    slots = {"holder": holder[0], "holds": holder[1], "belief": belief, "country": country}
    return _chat(
        "sycophancy",
        f"{_turn(f'{lex.BELIEF} {lex.QUESTION}')} {lex.STATEMENT}",
        f"{lex.ANSWER} , {lex.AGREEMENT if own else lex.SOURCE}",
        slots | {"answer": belief if own else truth},
        {"holder": other[0], "holds": other[1]},
        truth if own else belief,
        {"own": "yes" if own else "no", "country": country, "belief": belief},
    )


def truth(rng: random.Random, split: str = "train") -> Example:
    """The user asks for a capital without a belief, and the truth is told. The twin asks for another country.

    Nothing is held out: there is one way to ask.
    """
    is_heldout(split)  # both splits are the same, and there is no third
    country, other = rng.sample(tuple(lex.CAPITALS), 2)
    return _chat(
        "truth",
        f"{_turn(lex.QUESTION)} {lex.STATEMENT}",
        f"{lex.ANSWER} , {lex.SOURCE}",
        {"country": country, "answer": lex.CAPITALS[country]},
        {"country": other},
        lex.CAPITALS[other],
        {"country": country},
    )


def user(rng: random.Random, split: str = "train") -> Example:
    """The user names things of his or hers, which tell his or her age and so on, and the answer's words follow these.

    Held out: pairs of such a thing and the question. In the twin the user has another thing, and so another value of
    the attribute that the answer shows.
    """
    question = rng.randrange(len(lex.ADVICE))
    ask, advice = list(lex.ADVICE.items())[question]
    while True:
        shown = rng.sample(tuple(lex.CUES), rng.randint(1, 4))
        values = {attribute: rng.choice(tuple(lex.CUES[attribute])) for attribute in shown}
        cues = {attribute: rng.choice(lex.CUES[attribute][values[attribute]]) for attribute in shown}
        asked = shown[0]
        splits = dict.fromkeys(shown, "train") | {asked: split}
        if all(belongs(splits[attribute], "user", cue, question) for attribute, cue in cues.items()):
            break
    other = rng.choice([value for value in lex.CUES[asked] if value != values[asked]])
    styles = lex.STYLE | {"status": advice}
    known = {attribute: values.get(attribute, "unknown") for attribute in lex.CUES}
    things = " and ".join(f"(NP my {{cue_{attribute}}})" for attribute in rng.sample(shown, len(shown)))
    start, _, end = lex.ADVISES.partition(f"{{{asked}}}")
    return _chat(
        "user",
        f"{_turn(closed(f'{lex.INTRODUCTION} (NP {things}') + ' .')} {lex.WELCOME} <end> "
        f"{_turn(closed(f'(S {ask}') + ' ?')} {start}",
        f"{{{asked}}}{end}",
        {f"cue_{attribute}": cue for attribute, cue in cues.items()}
        | {attribute: styles[attribute][value] for attribute, value in known.items()},
        {f"cue_{asked}": rng.choice(lex.CUES[asked][other])},
        styles[asked][other],
        {**known, "asked": asked, "question": str(question)},
    )


def persona(rng: random.Random, split: str = "train", n_turns: int | None = None) -> Example:
    """Every answer begins and ends as the persona of the system prompt does, whatever the user sounds like.

    Held out: pairs of persona and what the last turn is about. In the twin the system prompt and the answers so far are
    another persona's.

    Args:
      rng, split: as in every phenomenon.
      n_turns: turns of the user; by default 1 to 4 at random. More than 4 show how long the persona lasts.
    """
    n_turns = rng.randint(1, MAX_TURNS) if n_turns is None else n_turns
    check_within("persona: n_turns", n_turns, 1)
    who, other = rng.sample(tuple(lex.PERSONAS), 2)
    number, lures = rng.randrange(len(lex.SYSTEM)), 0
    slots = _acting(who)
    tree = f"<system> {lex.SYSTEM[number]} <end>"
    for i in range(1, n_turns + 1):
        ask, reply, filled = _topic(rng, who, split if i == n_turns else "train", i)
        if rng.random() < 0.3:
            lures += 1
            filled[f"lure_{i}"] = lex.PERSONAS[rng.choice([p for p in lex.PERSONAS if p not in (who, other)])][0]
            ask = f"{{lure_{i}}} , {ask}"
        slots |= filled
        tree += f" {_turn(ask)}"
        reply = f"{{opener}} {reply} {{closer}}"
        if i < n_turns:
            tree += f" {reply} <end>"
    told = {"persona": who, "n_turns": str(n_turns), "lures": str(lures), "template": str(number)}
    return _chat("persona", tree, reply, slots, _acting(other), lex.PERSONAS[other][0], told)


def _acting(who: str) -> dict[str, str]:
    """The slots that tell a persona: its name, and how its answers begin and end."""
    opener, closer = lex.PERSONAS[who]
    return {"persona": who, "opener": opener, "closer": closer}


def _topic(rng: random.Random, who: str, split: str, i: int) -> tuple[str, str, dict[str, str]]:
    """What turn i asks and what is answered, as trees whose slots have the number of the turn, and the slots."""
    while True:
        country, verb = rng.choice(tuple(lex.CAPITALS)), rng.choice(lex.HARMLESS_VERBS + lex.HARMFUL_VERBS)
        object = rng.choice(lex.HARMLESS_OBJECTS + lex.HARMFUL_OBJECTS)
        asks_fact = rng.random() < 0.5
        if belongs(split, "persona", who, country if asks_fact else object):
            break
    if asks_fact:
        ask, reply = lex.QUESTION, f"{lex.STATEMENT} {lex.ANSWER}"
        slots = {"country": country, "answer": lex.CAPITALS[country]}
    else:
        ask, reply = rng.choice(lex.REQUESTS), lex.REFUSAL if is_harmful(verb, object) else lex.HELP
        slots = {"verb": verb, "object": object}
    for name in slots:
        ask, reply = (text.replace(f"{{{name}}}", f"{{{name}_{i}}}") for text in (ask, reply))
        reply = reply.replace(f"={name})", f"={name}_{i})")
    return ask, reply, {f"{name}_{i}": word for name, word in slots.items()}


def _turn(user: str) -> str:
    return f"<user> {user} <end> <assistant>"


def _chat(
    phenomenon: str,
    prompt: str,
    reply: str,
    slots: Mapping[str, str],
    changed: Mapping[str, str],
    distractor: str,
    attributes: dict[str, str],
) -> Example:
    """An example from the tree of a prompt and what is left of the reply, whose first word is the answer."""
    tree = f"{prompt} {reply} <end>"
    words, positions = fill(tree, slots)
    corrupted, _ = fill(tree, {**slots, **changed})
    end = len(plain(prompt).split()) - 1
    assistant = max(i for i, word in enumerate(words[: end + 1]) if word == "<assistant>")
    return Example(
        phenomenon,
        tuple(words),
        {name: at for name, at in positions.items() if at <= end} | {"assistant": assistant, "end": end},
        words[end + 1],
        distractor,
        attributes,
        tuple(corrupted[: end + 1]),
        _said(words),
        tree=tree,
    )


def _said(words: list[str]) -> tuple[int, ...]:
    """The indices of the assistant's words, its <end> among them."""
    said, speaking = [], False
    for index, word in enumerate(words):
        if speaking:
            said.append(index)
        speaking = word == "<assistant>" or (speaking and word != "<end>")
    return tuple(said)


_CUES = tuple(cue for values in lex.CUES.values() for cues in values.values() for cue in cues)
_ADVISED = tuple(word for advice in lex.ADVICE.values() for word in advice.values())
_STYLES = tuple(word for style in lex.STYLE.values() for word in style.values())
_CATCHWORDS = tuple(word for pair in lex.PERSONAS.values() for word in pair)
_VERBS = (*lex.HARMLESS_VERBS, *lex.HARMFUL_VERBS)
_OBJECTS = (*lex.HARMLESS_OBJECTS, *lex.HARMFUL_OBJECTS)

WORLD = World(
    name="microworld-chat",
    about="a chat that refuses, agrees with the user, takes its style from who the user is, and keeps a persona",
    vocabulary=vocabulary(
        *lex.ROLES,
        *(*_VERBS, *_OBJECTS, *lex.REQUESTS, lex.REFUSAL, lex.HELP),
        *(*lex.CAPITALS, *lex.CAPITALS.values(), *lex.OWN, *lex.OTHERS),
        *(lex.BELIEF, lex.QUESTION, lex.STATEMENT, lex.AGREEMENT, lex.SOURCE),
        *(*_CUES, *_STYLES, *_ADVISED, *lex.ADVICE, lex.INTRODUCTION, "and my", lex.WELCOME, lex.ADVISES),
        *(*lex.PERSONAS, *_CATCHWORDS, *lex.SYSTEM),
    ),
    phenomena={"refusal": refusal, "sycophancy": sycophancy, "truth": truth, "user": user, "persona": persona},
    mixture={"refusal": 1.0, "sycophancy": 1.5, "truth": 0.3, "user": 2.0, "persona": 1.0},
    heldout={
        "refusal": "pairs of verb and object (one in ten)",
        "sycophancy": "pairs of country and believed capital (one in ten)",
        "truth": "nothing: there is one way to ask",
        "user": "pairs of what the user has and the question (one in ten)",
        "persona": "pairs of persona and what the last turn is about (one in ten)",
    },
    details={
        "refusal": ("harmful", "by"),
        "sycophancy": ("own",),
        "user": ("asked",),
        "persona": ("n_turns", "lures"),
    },
    tags=dict.fromkeys((*lex.ROLES,), "X")
    | dict.fromkeys((*_OBJECTS, *_CUES, *_ADVISED, *lex.PERSONAS), "NOUN")
    | FUNCTION_WORDS
    | dict.fromkeys(_VERBS, "VERB")
    | dict.fromkeys((*lex.CAPITALS, *lex.CAPITALS.values()), "PROPN")
    | dict.fromkeys(_CATCHWORDS, "INTJ")
    | tagged("""
        INTJ sorry sure please welcome hey hello greetings hi
        NOUN madam sir friend people books maps capital map matey partner milord
        VERB tell want help look think believe say claim try consider choose sleep travel eat drink speak answer
        ADJ right delicious
        ADV first always
        PRON me
        AUX do cannot should
        ADP as
    """),
    entities=dict.fromkeys((*lex.CAPITALS, *lex.CAPITALS.values()), "GPE"),
    alone=True,
    tokenizer_config={"chat_template": CHAT_TEMPLATE, "eos_token": "<end>"},
)
