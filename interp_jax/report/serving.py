"""The dashboard as a server on the loopback: a small Starlette application with a JSON API.

    GET  /  /app.js  /app.css
    GET  /api/board                      what there is
    GET  /api/{source}/list/{part}       a part of the list of units
    GET  /api/{source}/unit/{unit}       the page of one
    POST /api/{source}/unit/{unit}/fire  {"text"} -> {"tokens", "values"}
    POST /api/{source}/unit/{unit}/steer {"prompt", "strength"} -> {"before", "after"}
    GET  /api/heads  /api/head/{layer}/{head}

Whatever is wrong is told as `{"error": one line}`. No address is ever joined to a folder. A page of another site cannot
use it: the Host must be the loopback's (against DNS rebinding), and what is posted must be JSON of the same origin.
"""

from collections.abc import Awaitable, Callable
import json
from pathlib import Path
import socket
from typing import TYPE_CHECKING, Any

from interp_jax.report.board import Absent, Board, Live, short
from interp_jax.report.rendering import render

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

BUNDLE = Path(__file__).parent / "web" / "dist"
FILES = {"app.js": "text/javascript; charset=utf-8", "app.css": "text/css; charset=utf-8"}
HOSTS = ("localhost", "127.0.0.1", "[::1]")
LARGEST = 16_384  # bytes of what is posted
LONGEST = 2_000  # letters of a text
STRONGEST = 20.0  # times the maximum
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
HEADERS = {
    "content-security-policy": f"{POLICY}; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

Answer = Callable[["Request"], Awaitable[Any]]


class Refused(Exception):
    """What is not done, with the status and the line that tell it."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def shell(title: str, mode: str) -> str:
    """The page that the bundle fills. `mode`: "server" or "files"."""
    return render("app.html", title=title, mode=mode, policy=POLICY)


def dashboard_app(board: Board) -> "Starlette":
    """The application, for any ASGI server; `serve` is one.

    Example:
      >>> import numpy as np
      >>> from starlette.testclient import TestClient
      >>> from interp_jax import data, explain, models, report
      >>> model, tokenizer = models.load("microworld")
      >>> text = data.corpus.read(tokenizer, n_tokens=700, n_positions=32)
      >>> found = explain.record(models.forward, {"blocks.1.mlp.post": None})(model, text.tokens, mask=text.real)
      >>> board = report.Board("microworld", found, tokenizer.to_str_tokens(range(tokenizer.d_vocab)))
      >>> client = TestClient(report.dashboard_app(board), base_url="http://localhost")
      >>> client.get("/api/board").json()["sources"][0]["n_units"]
      256
      >>> client.get("/api/0/unit/256").json()
      {'error': 'there is no unit 256 of blocks.1.mlp.post, which has 256'}
    """
    import anyio
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    turn = anyio.Lock()  # of which the model serves one at a time
    routes = [
        Route("/", _content(shell(board.title, "server").encode(), "text/html; charset=utf-8")),
        *(Route(f"/{name}", _content((BUNDLE / name).read_bytes(), kind)) for name, kind in FILES.items()),
        Route("/api/board", _given(lambda _: board.index())),
        Route("/api/{source:int}/list/{part:int}", _given(lambda at: board.listed(at["source"], at["part"]))),
        Route("/api/{source:int}/unit/{unit:int}", _given(lambda at: board.unit(at["source"], at["unit"]))),
        Route("/api/{source:int}/unit/{unit:int}/fire", _ran(board, turn, _fire), methods=["POST"]),
        Route("/api/{source:int}/unit/{unit:int}/steer", _ran(board, turn, _steer), methods=["POST"]),
        Route("/api/heads", _given(lambda _: [] if board.heads is None else board.heads.rows)),
        Route("/api/head/{layer:int}/{head:int}", _given(lambda at: board.head(at["layer"], at["head"]))),
    ]
    told: dict[Any, Callable[["Request", Any], "Response"]] = {
        HTTPException: lambda _, error: _error(error.status_code, _plain(error)),
        Refused: lambda _, error: _error(error.status, str(error)),
        Absent: lambda _, error: _error(404, f"there is no {error}"),
        ValueError: lambda _, error: _error(422, str(error)),
        Exception: lambda _, error: _error(500, f"{type(error).__name__}: {error}"),
    }
    middleware = [
        Middleware(_Headers),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
    ]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=told)


def _content(content: bytes, kind: str) -> Answer:
    """What is the same for all."""

    async def answer(request: "Request") -> Any:
        from starlette.responses import Response

        return Response(content, media_type=kind)

    return answer


def _given(make: Callable[[dict[str, int]], Any]) -> Answer:
    """What a function of the numbers in the path makes."""

    async def answer(request: "Request") -> Any:
        from starlette.concurrency import run_in_threadpool

        return _json(await run_in_threadpool(make, request.path_params))

    return answer


def _ran(board: Board, turn: Any, run: Callable[[Live, str, int, dict[str, Any]], Any]) -> Answer:
    """What the model makes of what is posted, in a thread of its own."""

    async def answer(request: "Request") -> Any:
        from starlette.concurrency import run_in_threadpool

        body = await _body(request)
        place, unit = request.path_params["source"], request.path_params["unit"]
        if board.live is None:
            raise Refused(409, f"no model runs here; run {board.remedy}")
        board.check(place, unit)
        async with turn:
            if await request.is_disconnected():  # the reader has typed on, and asked anew
                return _error(408, "nobody waits for this any more")
            return _json(await run_in_threadpool(run, board.live, board.names[place], unit, body))

    return answer


def _fire(live: Live, source: str, unit: int, body: dict[str, Any]) -> Any:
    if source not in live.fires:
        raise Refused(409, f"{source}: its dictionary is not open here")
    tokens, values = live.fire(source, unit, _text(body, "text"))
    return {"tokens": list(tokens), "values": [short(value) for value in values]}


def _steer(live: Live, source: str, unit: int, body: dict[str, Any]) -> Any:
    if source not in live.steers:
        raise Refused(409, f"{source} cannot be steered by")
    before, after = live.steer(source, unit, _text(body, "prompt"), _strength(body))
    return {"before": before, "after": after}


class _Headers:
    """Puts the headers of safety on every answer."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = message | {"headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, sending)


def _json(value: Any, status: int = 200) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse(value, status)


def _error(status: int, reason: str) -> "Response":
    return _json({"error": " ".join(reason.split())}, status)


def _plain(error: Any) -> str:
    return "there is nothing here" if error.status_code == 404 else str(error.detail)


async def _body(request: "Request") -> dict[str, Any]:
    """What is posted, checked before it is read."""
    kind = request.headers.get("content-type", "").split(";")[0].strip()
    if kind != "application/json":
        raise Refused(415, "what is posted must be application/json")
    origin, host = request.headers.get("origin"), request.headers.get("host")
    if origin is not None and origin != f"http://{host}":
        raise Refused(403, f"{origin} may not post here")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > LARGEST:
            raise Refused(413, f"more than {LARGEST} bytes were posted")
    try:
        found = json.loads(content)
    except ValueError:
        raise Refused(400, "what was posted is not JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "what was posted is not an object of JSON")
    return found


def _text(body: dict[str, Any], name: str) -> str:
    text = body.get(name)
    if not isinstance(text, str) or not text.strip():
        raise Refused(422, f"{name} must be a text that is not empty")
    if len(text) > LONGEST:
        raise Refused(422, f"{name} has {len(text)} letters, at most {LONGEST} are read")
    return text


def _strength(body: dict[str, Any]) -> float:
    strength = body.get("strength")
    # JSON's true is a number to Python, and what is not finite is in no range
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not abs(strength) <= STRONGEST:
        raise Refused(422, f"strength must be a number from -{STRONGEST:g} to {STRONGEST:g}")
    return float(strength)


def listening(port: int) -> socket.socket:
    """A socket on 127.0.0.1 alone; port 0 is any that is free.

    Raises:
      OSError: the port is in use, or may not be used.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
        found.listen()
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"port {port}: cannot be listened at ({reason}); give another, or 0 for any free one") from None
    return found


def serve(board: Board, at: socket.socket) -> None:
    """Serves the dashboard at a socket from `listening`, until it is interrupted."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(dashboard_app(board), log_level="warning", lifespan="off"))
    server.run(sockets=[at])
