"""The grading service returns verdicts over HTTP, so that programs run on CPU nodes while GPU nodes train.

    ALIGN_TOKEN=... align sandbox serve --port 8711

`POST /grade` with `{"task": {...}, "program": "...", "deadline_seconds": 60}` answers 200 with a verdict. Two optional
keys: `"limits": {"wall_seconds": 30}` (fields of `Limits`), and `"hidden": ["/usr/bin/bc"]` (files that programs must
see as empty). Other answers:

| status | meaning |
|---|---|
| 400 | malformed request, limits above the maximum, or `hidden` names a file that this service does not hide |
| 401 | the token is missing or wrong |
| 413 | the body is too large |
| 429 | the queue is full; `Retry-After` says when to ask again |
| 503 | the deadline passed, or the machine refuses the sandbox |

`GET /health` needs no token. Grading has no side effects, so a request can always be repeated. By default the service
listens on the loopback address. For any other address a token is required.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import math
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from alignment.grading.client import MAX_DEADLINE, TOKEN
from alignment.grading.grader import Grader
from alignment.grading.task import TaskRow
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxUnavailable

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

BODY_BYTES = 64 << 20
"""Maximum size of a request's body, in bytes."""
MAX_LIMITS = Limits(
    cpu_seconds=120, wall_seconds=120, memory_bytes=8 << 30, processes=128, files=1024, file_bytes=256 << 20,
    tmp_bytes=512 << 20, tmp_inodes=16384, output_bytes=64 << 20, reply_bytes=1 << 30,
)  # fmt: skip
"""Largest limits that a request may ask for."""


@dataclass(frozen=True)
class GradingRequest:
    """The parsed body of `POST /grade`."""

    task: TaskRow
    program: str
    deadline_seconds: float
    limits: Limits


def application(
    grader: Grader, *, token: str | None = None, queue: int = 256, max_limits: Limits = MAX_LIMITS
) -> Starlette:
    """Return the service as an ASGI application.

    Args:
        grader: runs the programs. The application closes the grader when it ends.
        token: token that requests must contain. None accepts all requests.
        queue: maximum number of requests that wait or run. Further requests get status 429.
        max_limits: the highest limits that a request may ask for.

    Raises:
        ValueError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ImportError:
        raise ValueError(
            "the grading service needs starlette and uvicorn: pip install 'code-alignment[serve]'"
        ) from None
    running = 0

    def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse({"error": message}, status, headers)

    def has_token(request: Request) -> bool:
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        return token is None or hmac.compare_digest(given, f"Bearer {token}".encode())

    async def grade(request: Request) -> Response:
        nonlocal running
        loop = asyncio.get_running_loop()
        if not has_token(request):
            return refuse(401, "a token is needed: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})
        if running >= queue:
            seconds = max(1, math.ceil(queue / (20 * grader.workers)))
            return refuse(429, "the queue is full", {"Retry-After": str(seconds)})
        running += 1
        future = None
        try:
            body = await _body(request)
            if body is None:
                return refuse(413, f"the body of a request may have at most {BODY_BYTES} bytes")
            try:
                parsed = _parsed(body, grader, max_limits)
            except ValueError as error:
                return refuse(400, str(error))
            del body
            future = grader.submit(parsed.task, parsed.program, parsed.limits)
            try:
                verdict = await asyncio.wait_for(asyncio.wrap_future(future), parsed.deadline_seconds)
            except TimeoutError:
                return refuse(503, "the deadline passed", {"Retry-After": "1"})
            except SandboxUnavailable as error:
                return refuse(503, str(error))
            return JSONResponse(verdict.as_dict())
        finally:
            if future is None or future.done():
                running -= 1
            else:  # the client has given up, but its program still runs and is counted until it ends
                future.add_done_callback(lambda _: loop.call_soon_threadsafe(end))

    def end() -> None:
        nonlocal running
        running -= 1

    async def health(request: Request) -> Response:
        return JSONResponse({"workers": grader.workers, "running": running, "queue": queue})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(grader.close)

    routes = [Route("/grade", grade, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes, lifespan=lifespan)


async def _body(request: Request) -> bytes | None:
    """Return the body of a request, or None if the body is too large."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES:
            return None
    return bytes(data)


def _parsed(body: bytes, grader: Grader, max_limits: Limits) -> GradingRequest:
    try:
        message = json.loads(body)
        task, program, seconds = message["task"], message["program"], message.get("deadline_seconds", 600.0)
        limits, hidden = message.get("limits", {}), message.get("hidden", [])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a request: {type(error).__name__}: {error}") from None
    if not isinstance(task, dict) or not isinstance(program, str):
        raise ValueError("not a request: `task` must be an object and `program` a text")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DEADLINE:
        raise ValueError(f"deadline_seconds must be more than 0 and at most {MAX_DEADLINE:.0f}")
    missing = [path for path in hidden if path not in grader.hidden] if isinstance(hidden, list) else [hidden]
    if missing:
        raise ValueError(f"this service does not hide {missing} from programs: start it with --hide for each of them")
    return GradingRequest(task, program, float(seconds), _limits(limits, grader.limits, max_limits))


def _limits(requested: Any, default: Limits, max_limits: Limits) -> Limits:
    highest = asdict(max_limits)
    if not isinstance(requested, dict) or not set(requested) <= set(highest):
        raise ValueError(f"limits must be an object with some of {', '.join(highest)}")
    for name, value in requested.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= highest[name]:
            raise ValueError(f"limits.{name} must be more than 0 and at most {highest[name]}, not {value!r}")
    values = {name: value if name.endswith("_seconds") else int(value) for name, value in requested.items()}
    return replace(default, **values)


def serve(
    grader: Grader,
    *,
    host: str = "127.0.0.1",
    port: int = 8711,
    queue: int = 256,
    token: str | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until the process is stopped.

    Args:
        grader: runs the programs.
        host: the address to listen on.
        port: the port. 0 selects any free port.
        queue: see `application`.
        token: token that requests must contain. By default the value of the environment variable ALIGN_TOKEN.
        ready: called with the port number as soon as the port is open.

    Raises:
        ValueError: the host is not the loopback address and no token is set, or the port is in use.
    """
    token = token or os.environ.get(TOKEN) or None
    if token is None and not _is_loopback(host):
        raise ValueError(f"to listen on {host}, set a token in the environment variable {TOKEN}")
    service = application(grader, token=token, queue=queue)
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}, port {port}: {error.strerror}; choose another one with --port"
            ) from None
        if ready is not None:
            ready(listening.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(service, log_level="warning", timeout_graceful_shutdown=5))
        server.run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
