"""A server on the loopback that speaks as an OpenAI-compatible endpoint does, and misbehaves when it is told to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import threading
import time
from typing import Any

Said = tuple[int, Any]  # a status, and what comes with it: a text as it is, or what becomes json


class Server:
    """What it was asked, and how it answers: a function of the body, and of how many requests came before.

    `delay` is slept before each answer; `busiest` is how many requests were under way at once.
    """

    def __init__(self, answer: Callable[[dict[str, Any], int], Said], delay: float = 0.0):
        self.answer, self.delay = answer, delay
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self.url = ""

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.asked]


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                n = len(server.asked)
                server.asked.append(body)
                server.paths.append(self.path)
                server.busy += 1
                server.busiest = max(server.busiest, server.busy)
            time.sleep(server.delay)
            status, content = server.answer(body, n)
            with server.lock:
                server.busy -= 1
            out = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(out)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(out)
            except OSError:  # who asked has not waited
                pass

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def completion(text: str | None, tokens: list[tuple[str, dict[str, float]]] | None = None, **message: Any) -> Said:
    """An answer of the model; `tokens` are its tokens with the log probabilities of the likeliest at each place."""
    content = [
        {
            "token": token,
            "logprob": top.get(token, -9.0),
            "bytes": None,
            "top_logprobs": [{"token": t, "logprob": x, "bytes": None} for t, x in top.items()],
        }
        for token, top in tokens or []
    ]
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text, **message},
        "logprobs": {"content": content} if tokens else None,
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


def echo(prompt: str, size: int = 3, log_prob: float = -1.0, top: dict[str, float] | None = None) -> Said:
    """The answer of `/completions` to `echo`: the prompt itself, cut into tokens of `size` letters."""
    starts = list(range(0, len(prompt), size))
    logs = {
        "tokens": [prompt[i : i + size] for i in starts],
        "token_logprobs": [None, *[log_prob] * (len(starts) - 1)],
        "top_logprobs": [None, *[top or {}] * (len(starts) - 1)],
        "text_offset": starts,
    }
    choice = {"index": 0, "finish_reason": "length", "text": prompt, "logprobs": logs}
    return 200, {"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}
