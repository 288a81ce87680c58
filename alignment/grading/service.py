"""Verdicts over HTTP: the pool on CPU nodes, the rollouts on GPU nodes.

    ALIGN_TOKEN=... align sandbox serve --port 8711

``POST /grade`` with ``{"task": {...}, "program": "...", "deadline_seconds": 60}`` answers 200 with a verdict. 429
with ``Retry-After`` when the queue is full, 503 when the deadline passed or the sandbox is refused, 401 without the
token, 413 for a body that is too large, 400 for one that is no request. Optional: ``"limits": {"wall_seconds": 30}``
(fields of `Limits`; more than the service allows is a 400), ``"hidden": ["/usr/bin/bc"]`` (files that the client counts
on programs not finding; a 400 where this service does not hide them). ``GET /health`` needs no token. Grading is
idempotent, so a client may always ask again; jobs hold no state and no credentials.

Bound to the loopback unless told otherwise, and never to another address without a token.
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
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxUnavailable

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from alignment.grading import Grader

TOKEN = "ALIGN_TOKEN"
BODY_BYTES = 64 << 20
MAX_DEADLINE = 3600.0
MOST = Limits(
    cpu_seconds=120, wall_seconds=120, memory_bytes=8 << 30, processes=128, files=1024, file_bytes=256 << 20,
    tmp_bytes=512 << 20, tmp_inodes=16384, output_bytes=64 << 20, reply_bytes=1 << 30,
)  # fmt: skip
"""What a request may ask for at most."""


def application(grader: Grader, *, token: str | None = None, queue: int = 256, most: Limits = MOST) -> Starlette:
    """The service around a grader. queue: requests waiting or running, beyond which the answer is 429."""
    try:
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ImportError:
        raise ValueError(
            "the sandbox service needs starlette and uvicorn: pip install 'code-alignment[serve]'"
        ) from None
    running = 0

    def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse({"error": message}, status, headers)

    def allowed(request: Request) -> bool:
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        return token is None or hmac.compare_digest(given, f"Bearer {token}".encode())

    async def grade(request: Request) -> Response:
        nonlocal running
        loop = asyncio.get_running_loop()
        if not allowed(request):
            return refuse(401, "a token is needed: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})
        if running >= queue:
            return refuse(
                429, "the queue is full", {"Retry-After": str(max(1, math.ceil(queue / (20 * grader.workers))))}
            )
        running += 1
        future = None
        try:
            body = await _body(request)
            if body is None:
                return refuse(413, f"a request may have {BODY_BYTES} bytes")
            try:
                task, program, seconds, limits = _parsed(body, grader, most)
            except ValueError as error:
                return refuse(400, str(error))
            del body
            future = grader.submit(task, program, limits)
            try:
                verdict = await asyncio.wait_for(asyncio.wrap_future(future), seconds)
            except TimeoutError:
                return refuse(503, "the deadline passed", {"Retry-After": "1"})
            except SandboxUnavailable as error:
                return refuse(503, str(error))
            return JSONResponse(verdict.as_dict())
        finally:
            if future is None or future.done():
                running -= 1
            else:  # nobody waits for it any more, but it runs: it keeps its place until it ends
                future.add_done_callback(lambda _: loop.call_soon_threadsafe(leave))

    def leave() -> None:
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
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES:
            return None
    return bytes(data)


def _parsed(body: bytes, grader: Grader, most: Limits) -> tuple[dict[str, Any], str, float, Limits]:
    try:
        message = json.loads(body)
        task, program, seconds = message["task"], message["program"], message.get("deadline_seconds", 600.0)
        asked, hidden = message.get("limits", {}), message.get("hidden", [])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a request: {type(error).__name__}: {error}") from None
    if not isinstance(task, dict) or not isinstance(program, str):
        raise ValueError("not a request: task must be an object, program a text")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DEADLINE:
        raise ValueError(f"deadline_seconds must be more than 0 and at most {MAX_DEADLINE:.0f}")
    missing = [path for path in hidden if path not in grader.hidden] if isinstance(hidden, list) else [hidden]
    if missing:
        raise ValueError(f"programs must not find {missing}: start the service with --hide for each of them")
    return task, program, float(seconds), _limits(asked, grader.limits, most)


def _limits(asked: Any, default: Limits, most: Limits) -> Limits:
    highest = asdict(most)
    if not isinstance(asked, dict) or not set(asked) <= set(highest):
        raise ValueError(f"limits must be an object with some of {', '.join(highest)}")
    for name, value in asked.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= highest[name]:
            raise ValueError(f"limits.{name} must be more than 0 and at most {highest[name]}, not {value!r}")
    whole = {name: value if name.endswith("_seconds") else int(value) for name, value in asked.items()}
    return replace(default, **whole)


def serve(
    grader: Grader,
    *,
    host: str = "127.0.0.1",
    port: int = 8711,
    queue: int = 256,
    token: str | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until stopped. The token comes from the environment variable ALIGN_TOKEN where none is given.

    port: 0 for any that is free. ready: told the port once it is ours.

    Raises ValueError for an address other than the loopback without a token, and for one that is taken.
    """
    token = token or os.environ.get(TOKEN) or None
    if token is None and not _is_loopback(host):
        raise ValueError(f"to listen on {host}, set a token in the environment variable {TOKEN}")
    served = application(grader, token=token, queue=queue)
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ValueError(f"cannot listen on {host}, port {port}: {error.strerror}; --port names another") from None
        if ready is not None:
            ready(listening.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(served, log_level="warning", timeout_graceful_shutdown=5))
        server.run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
