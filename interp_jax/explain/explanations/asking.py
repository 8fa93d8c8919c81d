"""Questions: what is asked of a chat model, and what is made of its replies. They are data until they are asked.

A question without requests is answered without a model. Questions of many units are asked together, so that an
endpoint is busy with several; and what they would take can be counted before anything is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from interp_jax.io.chat import Chat, Reply, Request, about
from interp_jax.progress import Progress

T = TypeVar("T")
U = TypeVar("U")
AT_ONCE = 64  # requests that a chat is given together


@dataclass(frozen=True)
class Question(Generic[T]):
    """What is asked, and what is made of the answers.

    Attributes:
      requests: what a chat model is asked.
      read: from the replies, one for each request and in their order, to what was wanted.
    """

    requests: tuple[Request, ...]
    read: Callable[[Sequence[Reply]], T]

    def then(self, make: Callable[[T], U]) -> "Question[U]":
        """The same question, of whose answer something is made."""
        return Question(self.requests, lambda replies: make(self.read(replies)))


def known(value: T) -> Question[T]:
    """What needs no asking."""
    return Question((), lambda _: value)


def together(questions: Sequence[Question[Any]]) -> Question[list[Any]]:
    """Several questions as one, with a list of their answers."""
    ends = [0]
    for question in questions:
        ends.append(ends[-1] + len(question.requests))

    def read(replies: Sequence[Reply]) -> list[Any]:
        return [
            question.read(replies[start:end])
            for question, start, end in zip(questions, ends[:-1], ends[1:], strict=True)
        ]

    return Question(tuple(request for question in questions for request in question.requests), read)


def ask(chat: Chat | None, question: Question[T], *, what: str = "asking", shown: bool = True) -> T:
    """Asks a chat model, with progress.

    Args:
      chat: from requests to replies: `io.endpoint.Endpoint`, `models.answering`, or a function of one's own. None will
        do for a question without requests.
      question: what is asked.
      what: the work, for the progress.
      shown: whether progress is shown.

    Raises:
      ValueError: there are requests but no chat, or the chat has not given one reply to each.
      ConnectionError: as the chat says.

    Example:
      >>> from interp_jax import explain
      >>> from interp_jax.io.chat import Reply, says
      >>> question = explain.Question((says("Be brief.", "a cat?"),), lambda replies: replies[0].text)
      >>> explain.ask(lambda requests: [Reply("An animal.") for _ in requests], question)
      'An animal.'
    """
    requests = question.requests
    if requests and chat is None:
        raise ValueError(f"{what}: there is something to ask, but no chat model; give one, or explain without one")
    replies: list[Reply] = []
    with Progress(what, len(requests), shown=shown and bool(requests)) as progress:
        for start in range(0, len(requests), AT_ONCE):
            some = requests[start : start + AT_ONCE]
            progress.update(start, f"{len(some)} requests")
            assert chat is not None
            got = chat(some)
            if len(got) != len(some):
                raise ValueError(
                    f"{what}: the chat model gave {len(got)} replies to {len(some)} requests; give each one"
                )
            replies += got
    return question.read(replies)


class Cost(NamedTuple):
    """What a question takes: requests, and about how many tokens are read and, at most, written."""

    requests: int
    read: int
    written: int

    def __str__(self) -> str:
        return f"{self.requests:,} requests, about {self.read:,} tokens to read and at most {self.written:,} to write"


def cost(question: Question[Any]) -> Cost:
    """What it takes to ask, counted before anything is asked: four bytes of text are taken for a token.

    Example:
      >>> from interp_jax import explain
      >>> from interp_jax.io.chat import says
      >>> question = explain.Question((says("Be brief.", "a cat?", max_tokens=9),) * 2, len)
      >>> print(explain.cost(question))
      2 requests, about 8 tokens to read and at most 18 to write
    """
    counts = [about(request) for request in question.requests]
    return Cost(len(counts), sum(read for read, _ in counts), sum(written for _, written in counts))
