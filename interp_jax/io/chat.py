"""What is said to a chat model and what comes back, whether it stands behind an endpoint or is at hand.

A chat is any function from requests to replies, in their order. It is given many requests at once, so that an endpoint
may be asked several at a time and a local model may read them as one batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

BYTES = 4  # of text in a token of English, about


class Request(NamedTuple):
    """A conversation that an answer is wanted to.

    Attributes:
      messages: each has a "role", such as "system" or "user", and "content", a text.
      max_tokens: an answer is cut off after as many.
      top: how many of the likeliest tokens are wanted at each place of the answer, with their log probabilities.
      answer: None: the model writes an answer. A text: the model writes nothing and reads this as its answer; what is
        wanted are the log probabilities of its tokens.
    """

    messages: tuple[Mapping[str, str], ...]
    max_tokens: int = 256
    top: int = 0
    answer: str | None = None


class Token(NamedTuple):
    """A token of an answer: its text, its log probability in nats, and those of the likeliest tokens at its place."""

    text: str
    log_prob: float
    top: Mapping[str, float]


class Reply(NamedTuple):
    """An answer.

    Attributes:
      text: what was said; empty where no answer came.
      tokens: the tokens of the text, where the model gives them; none otherwise.
      error: why there is no answer, in one line; empty where there is one.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    error: str = ""


Chat = Callable[[Sequence[Request]], list[Reply]]


def says(system: str, user: str, **options: object) -> Request:
    """A request of a system prompt and one turn of the user.

    Example:
      >>> from interp_jax.io import chat
      >>> chat.says("Be brief.", "What is a cat?", max_tokens=20).messages[1]["role"]
      'user'
    """
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    return Request(messages, **options)  # type: ignore[arg-type]


def about(request: Request) -> tuple[int, int]:
    """About how many tokens a request takes: those that are read and, at most, those that are written.

    Example:
      >>> from interp_jax.io import chat
      >>> chat.about(chat.says("Be brief.", "What is a cat?", max_tokens=20))
      (6, 20)
    """
    text = "".join(message["content"] for message in request.messages) + (request.answer or "")
    return -(-len(text.encode()) // BYTES), 0 if request.answer is not None else request.max_tokens
