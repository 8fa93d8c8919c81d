"""What `axbench.py` calls a concept: texts with and without it, instructions, and a judge."""

from dataclasses import dataclass

from interp_jax.steering.judges import Judge

Turns = list[dict[str, str]]  # of a conversation


@dataclass(frozen=True)
class Concept:
    name: str  # as the judge knows it
    words: tuple[str, ...]  # whose directions the Jacobian lens gives
    positive: list[Turns]  # texts to train on, with the concept and without
    negative: list[Turns]
    plain: list[Turns]  # instructions to train on, and the same where the context asks for the concept
    asking: list[Turns]
    held: dict[str, list[Turns]]  # "positive", "negative", "hard": to detect
    instructions: list[Turns]
    prompted: list[Turns]  # the same, where the context asks for it
    judge: Judge


def turns(*contents: str, system: str | None = None) -> Turns:
    """Of what the user and the assistant say in turn, the user first."""
    said = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return said if system is None else [{"role": "system", "content": system}, *said]


def asked(talk: Turns) -> str:
    """What the user says in a conversation, as the judge sees it."""
    return "\n".join(turn["content"] for turn in talk if turn["role"] == "user")
