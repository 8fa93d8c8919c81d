"""A chat model behind an OpenAI-compatible endpoint, as a function from a prompt to the text of its answer.

The client is the `openai` package, which has retries and timeouts of its own: `pip install 'interp_jax[judge]'`.
"""

from collections.abc import Callable
from typing import Any


def ask(
    model: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    timeout: float = 60.0,
    max_retries: int = 5,
    temperature: float = 0.0,
) -> Callable[[str], str]:
    """A function that asks a chat model one question at a time.

    Args:
      model: the model's name, as the endpoint knows it.
      base_url: of the endpoint, such as "http://127.0.0.1:8000/v1"; by default $OPENAI_BASE_URL, or OpenAI's own.
      api_key: by default $OPENAI_API_KEY; an endpoint of one's own mostly takes any.
      timeout: seconds that an answer may take.
      max_retries: how often a question is asked again, after growing pauses, when the endpoint is busy, fails or does
        not answer.
      temperature: of sampling.

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
    try:
        import openai
    except ImportError:
        raise ImportError("an endpoint is asked by the package openai: pip install 'interp_jax[judge]'") from None
    try:
        client = openai.OpenAI(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=max_retries)
    except openai.OpenAIError:
        raise ValueError("endpoint: no key: give api_key=, or set OPENAI_API_KEY (any, if it needs none)") from None
    where = f"{str(client.base_url).rstrip('/')}: {model}"

    def question(prompt: str) -> str:
        messages: Any = [{"role": "user", "content": prompt}]
        try:
            answer = client.chat.completions.create(model=model, messages=messages, temperature=temperature)
            content = answer.choices[0].message.content
        except openai.APIConnectionError as error:  # no answer at all, after all tries
            raise ConnectionError(f"{where}: {_line(error)}") from None
        except openai.APIStatusError as error:
            raise ConnectionError(f"{where}: status {error.status_code}: {_line(error)}") from None
        except (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise ValueError(
                f"{where}: what came is no chat completion: {type(error).__name__}: {_line(error)}"
            ) from None
        if not isinstance(content, str):
            raise ValueError(f"{where}: the answer has no text")
        return content

    return question


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
