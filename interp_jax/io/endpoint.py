"""A chat model behind an OpenAI-compatible endpoint: a function from requests to replies, or from a prompt to a text.

The client is the `openai` package, which asks again after growing pauses: `pip install 'interp_jax[judge]'`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import hashlib
import json
from pathlib import Path
import threading
from typing import Any, NamedTuple

from interp_jax.io.chat import Reply, Request, Token, about
from interp_jax.io.files import replacing
from interp_jax.io.pacing import Pace

DOWN = 3  # requests one after the other that get no answer after all tries: the endpoint is taken for down
REFUSED = (401, 403, 404)  # no key, no right, no such model: it will not be otherwise for the next request


class Usage(NamedTuple):
    """What an endpoint was asked: requests sent, taken from the cache and left without an answer, and tokens paid."""

    asked: int = 0
    cached: int = 0
    failed: int = 0
    read: int = 0
    written: int = 0

    def cost(self, price: tuple[float, float]) -> float:
        """What the tokens cost, at a price for a million read and one for a million written."""
        return (self.read * price[0] + self.written * price[1]) / 1e6


class Endpoint:
    """A chat model that is asked several requests at once, within a rate, and whose answers are kept on disk.

    Args:
      model: the model's name, as the endpoint knows it.
      base_url: of the endpoint, such as "http://127.0.0.1:8000/v1"; by default $OPENAI_BASE_URL, or OpenAI's own.
      api_key: by default $OPENAI_API_KEY; an endpoint of one's own mostly takes any.
      cache: a folder for answers. A request that has one there is not sent again: a run that was cut off goes on, and
        nothing is paid twice. None keeps nothing.
      at_once: how many requests are under way at one time.
      requests_per_minute: no more are sent in any minute; None: no limit.
      tokens_per_minute: likewise for tokens, read and written together, as `chat.about` counts them.
      timeout: seconds that an answer may take.
      max_retries: how often a request is sent again, after growing pauses, when the endpoint is busy (429), fails (500
        and above) or does not answer.
      temperature: of sampling.

    Attributes:
      usage: what was asked so far.

    A call takes requests and gives a reply to each; one without an answer has its reason in `error`, and is asked again
    by the next run. `Request.answer` is read by the endpoint's `/completions` with `echo`, as vLLM has it, after the
    messages' texts.

    Raises:
      ImportError: the package `openai` is not installed.
      ValueError: there is no key, or a limit below 1.
      ConnectionError: (when called) there is nobody at the address, the key or the model is not known, or several
        requests one after the other got no answer after all tries. The answers until then are kept.

    Example:
      >>> from interp_jax.io import chat, endpoint
      >>> ask = endpoint.Endpoint("m", base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
      >>> ask([chat.says("Be brief.", "What is the capital of France?")])
      Traceback (most recent call last):
      ConnectionError: http://127.0.0.1:9/v1: m: Connection error.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        cache: str | Path | None = None,
        at_once: int = 8,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        timeout: float = 60.0,
        max_retries: int = 5,
        temperature: float = 0.0,
    ):
        if at_once < 1:
            raise ValueError(f"at_once={at_once}: it must be at least 1")
        self._client = _client(base_url, api_key, timeout, max_retries)
        self.model, self.temperature, self.usage = model, temperature, Usage()
        self.where = f"{str(self._client.base_url).rstrip('/')}: {model}"
        self._cache = None if cache is None else Path(cache)
        self._pace = Pace(requests_per_minute, tokens_per_minute)
        self._at_once, self._lock, self._failing = at_once, threading.Lock(), 0

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        keys = [self._key(request) for request in requests]
        found = {key: reply for key in dict.fromkeys(keys) if (reply := self._kept(key)) is not None}
        self._count(cached=len(found))
        open_ = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        over = threading.Event()  # the endpoint is down: what has not begun need not begin
        with ThreadPoolExecutor(self._at_once) as pool:
            under_way = {key: pool.submit(self._asked, key, request, over) for key, request in open_.items()}
            try:
                found |= {key: future.result() for key, future in under_way.items()}
            except BaseException:
                over.set()
                raise
        return [found[key] for key in keys]

    def _asked(self, key: str, request: Request, over: threading.Event) -> Reply:
        if over.is_set():
            return Reply("", error="not asked")
        self._pace.wait(sum(about(request)))
        try:
            reply, usage = _complete(self._client, self.model, request, self.temperature)
        except _NoAnswer as error:
            with self._lock:
                self._failing += error.tried
                down = error.final or self._failing >= DOWN
            self._count(asked=1, failed=1)
            if down:
                over.set()
                raise ConnectionError(f"{self.where}: {error}") from None
            return Reply("", error=str(error))
        with self._lock:
            self._failing = 0
        self._count(asked=1, read=usage[0], written=usage[1])
        if self._cache is not None:
            with replacing(self._file(key)) as new:
                new.write_text(json.dumps({"model": self.model, "request": request, "reply": reply}), encoding="utf-8")
        return reply

    def _count(self, **more: int) -> None:
        with self._lock:
            self.usage = self.usage._replace(**{name: getattr(self.usage, name) + n for name, n in more.items()})

    def _key(self, request: Request) -> str:
        said = json.dumps([self.where, self.temperature, request], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def _file(self, key: str) -> Path:
        assert self._cache is not None
        return self._cache / key[:2] / f"{key[2:]}.json"

    def _kept(self, key: str) -> Reply | None:
        if self._cache is None:
            return None
        try:
            text, tokens, error = json.loads(self._file(key).read_text(encoding="utf-8"))["reply"]
        except (OSError, ValueError, KeyError, TypeError):  # none, or one that somebody has cut
            return None
        return Reply(text, tuple(Token(*token) for token in tokens), error)


def ask(model: str, **options: Any) -> Callable[[str], str]:
    """A function that asks a chat model one question at a time, and raises where no answer comes.

    Args:
      model: the model's name, as the endpoint knows it.
      **options: `base_url`, `api_key`, `timeout`, `max_retries` and `temperature`, as `Endpoint` takes them.

    Returns:
      `ask(prompt) -> answer`. It raises ConnectionError, in one line, where no answer came after all tries, and
      ValueError where what came is none.

    Raises:
      ImportError: the package `openai` is not installed.
      ValueError: there is no key.

    Example:
      >>> from interp_jax.io import endpoint
      >>> question = endpoint.ask("gpt-4o-mini", base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
      >>> question("What is the capital of France?")
      Traceback (most recent call last):
      ConnectionError: http://127.0.0.1:9/v1: gpt-4o-mini: Connection error.
    """
    to = Endpoint(model, **options)

    def question(prompt: str) -> str:
        request = Request(({"role": "user", "content": prompt},), max_tokens=0)
        try:
            reply, _ = _complete(to._client, model, request, to.temperature)
        except _NoAnswer as error:
            raise (ConnectionError if error.tried or error.final else ValueError)(f"{to.where}: {error}") from None
        return reply.text

    return question


class _NoAnswer(Exception):
    """Why no answer came; whether it was tried again and again; whether nobody will get one."""

    def __init__(self, why: str, *, tried: bool = False, final: bool = False):
        super().__init__(why)
        self.tried, self.final = tried, final


def _client(base_url: str | None, api_key: str | None, timeout: float, max_retries: int) -> Any:
    try:
        import openai
    except ImportError:
        raise ImportError("an endpoint is asked by the package openai: pip install 'interp_jax[judge]'") from None
    try:
        return openai.OpenAI(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=max_retries)
    except openai.OpenAIError:
        raise ValueError("endpoint: no key: give api_key=, or set OPENAI_API_KEY (any, if it needs none)") from None


def _complete(client: Any, model: str, request: Request, temperature: float) -> tuple[Reply, tuple[int, int]]:
    """The reply to one request, and the tokens that were read and written."""
    import openai

    try:
        if request.answer is not None:
            return _read(client, model, request)
        options: dict[str, Any] = {"max_tokens": request.max_tokens} if request.max_tokens else {}
        options |= {"logprobs": True, "top_logprobs": request.top} if request.top else {}
        messages: Any = list(request.messages)
        answer = client.chat.completions.create(model=model, messages=messages, temperature=temperature, **options)
        message, logs = answer.choices[0].message, answer.choices[0].logprobs
        given = (logs.content or ()) if logs else ()
        tokens = tuple(Token(t.token, t.logprob, {x.token: x.logprob for x in t.top_logprobs}) for t in given)
        usage = _usage(answer, request, message.content)
    except openai.APITimeoutError as error:  # it has been asked again and again
        raise _NoAnswer(_line(error), tried=True) from None
    except openai.APIConnectionError as error:
        raise _NoAnswer(_line(error), tried=True, final=True) from None
    except openai.APIStatusError as error:
        status = error.status_code
        again = status in (408, 409, 429) or status >= 500
        raise _NoAnswer(f"status {status}: {_line(error)}", tried=again, final=status in REFUSED) from None
    except (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError, KeyError) as error:
        raise _NoAnswer(f"what came is no chat completion: {type(error).__name__}: {_line(error)}") from None
    if not isinstance(message.content, str):
        refusal = getattr(message, "refusal", None)
        raise _NoAnswer(f"the model refuses: {_line(refusal)}" if refusal else "the answer has no text")
    return Reply(message.content, tokens), usage


def _read(client: Any, model: str, request: Request) -> tuple[Reply, tuple[int, int]]:
    """The log probabilities of a given answer: it is echoed, and nothing is written."""
    before = "".join(f"{message['content']}\n\n" for message in request.messages)
    answer = client.completions.create(
        model=model, prompt=before + (request.answer or ""), echo=True, max_tokens=0, logprobs=max(request.top, 1)
    )
    logs = answer.choices[0].logprobs
    first = next((i for i, start in enumerate(logs.text_offset) if start >= len(before)), len(logs.text_offset))
    cuts = [0, *(start - len(before) for start in logs.text_offset[first + 1 :]), len(request.answer or "")]
    texts = [(request.answer or "")[start:end] for start, end in zip(cuts[:-1], cuts[1:], strict=True)]
    rows = zip(texts, logs.token_logprobs[first:], logs.top_logprobs[first:], strict=False)
    tokens = tuple(Token(text, log, dict(top or {})) for text, log, top in rows)
    return Reply(request.answer or "", tokens), _usage(answer, request, "")


def _usage(answer: Any, request: Request, text: str | None) -> tuple[int, int]:
    """Tokens read and written, as the endpoint counts them; about as many, where it does not."""
    told = getattr(answer, "usage", None)
    if told is not None:
        return int(told.prompt_tokens or 0), int(told.completion_tokens or 0)
    return about(request)[0], about(Request((), answer=text or ""))[0]


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
