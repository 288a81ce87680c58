"""The grading service returns verdicts over HTTP, so that programs run on CPU nodes while GPU nodes train.

    ALIGN_TOKEN=... align sandbox serve --port 8711

`POST /grade` with `{"task": {...}, "program": "...", "deadline_seconds": 60}` answers 200 with a verdict. Two optional
keys: `"limits": {"wall_seconds": 30}` (fields of `Limits`), and `"hidden": ["/usr/bin/bc"]` (files that programs must
see as empty). Other answers:

| status | meaning |
|---|---|
| 400 | malformed request, limits above the maximum, or `hidden` names a file that this service does not hide |
| 401 | the token is missing or wrong |
| 408 | the body did not arrive in time |
| 413 | the body is too large |
| 429 | the queue is full, or too many bodies arrive at the same time; `Retry-After` says when to ask again |
| 503 | the deadline passed before the program had its time, or the machine refuses the sandbox |

The deadline is counted from the arrival of the request. A request whose deadline passes while it waits is not run. If
the deadline passes when the program has run for its wall time, the answer is the verdict `timeout`.

`GET /health` needs no token. It answers with the number of workers and of waiting requests, and with `authorized`: whether
the token of the request, if any, would be accepted. Grading has no side effects, so a request can always be repeated. By default the service
listens on the loopback address. For any other address a token is required.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from alignment.grading.client import MAX_DEADLINE, PORT, TOKEN
from alignment.grading.grader import Grader
from alignment.grading.task import TaskRow
from alignment.grading.verdict import Verdict, failed
from alignment.listening import is_loopback, serve_application
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxUnavailable
from alignment.sandbox.untrusted_json import parse_json, structure_bytes

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

BODY_BYTES = 64 << 20
"""Maximum size of a request's body, in bytes."""
HELD_BYTES = 512 << 20
"""Maximum size of all bodies that are held in memory at the same time, in bytes."""
STRUCTURE_BYTES = 8 << 20
"""Maximum size of a body without the content of its texts, in bytes. The same limit applies to the text in `tests`. A value
that is only brackets takes twenty times its size in memory."""
MOST_DIGITS = 4300
"""Maximum number of digits of an integer in a task. It is the limit of Python's own reader."""
BODY_SECONDS = 30.0
"""Time limit for the arrival of a body, in seconds."""
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


@dataclass
class Load:
    """What the service is busy with."""

    running: int = 0
    """Number of requests whose programs wait or run."""
    held_bytes: int = 0
    """Size of the bodies that are arriving or have not been parsed, in bytes."""

    def end(self) -> None:
        """Note that a program has ended."""
        self.running -= 1


class Refused(Exception):
    """Raised if a request gets an answer other than a verdict. `retry_seconds` is sent as `Retry-After`."""

    def __init__(self, status: int, message: str, retry_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_seconds = retry_seconds


class GradingEndpoints:
    """The functions that answer the service's requests. See `application` for the arguments."""

    def __init__(self, grader: Grader, token: str | None, queue: int, max_limits: Limits) -> None:
        self.grader = grader
        self.token = token
        self.queue = queue
        self.max_limits = max_limits
        self.load = Load()

    async def grade(self, request: Request) -> Response:
        """Answer `POST /grade`."""
        from starlette.responses import JSONResponse

        try:
            verdict = await self._verdict(request)
        except Refused as refusal:
            headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
            if refusal.retry_seconds is not None:
                headers["Retry-After"] = str(refusal.retry_seconds)
            return JSONResponse({"error": str(refusal)}, refusal.status, headers)
        return JSONResponse(verdict.as_dict())

    async def health(self, request: Request) -> Response:
        """Answer `GET /health`."""
        from starlette.responses import JSONResponse

        state = {"workers": self.grader.workers, "running": self.load.running, "queue": self.queue}
        return JSONResponse({**state, "authorized": self._has_token(request)})

    def _has_token(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        return self.token is None or hmac.compare_digest(given, f"Bearer {self.token}".encode())

    def _full(self, message: str) -> Refused:
        return Refused(429, message, max(1, math.ceil(self.queue / (20 * self.grader.workers))))

    async def _verdict(self, request: Request) -> Verdict:
        """Receive a request and grade its program. Raises Refused if there is no verdict."""
        arrival = time.monotonic()
        if not self._has_token(request):
            raise Refused(401, "a token is needed: Authorization: Bearer ...")
        if self.load.running >= self.queue:
            raise self._full("the queue is full")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                parsed = await _received(request, self.load, lambda body: _parsed(body, self.grader, self.max_limits))
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {BODY_SECONDS:g} seconds", 1) from None
        except TooLarge:
            raise Refused(413, f"the body of a request may have at most {BODY_BYTES} bytes") from None
        except TooMuchHeld:
            raise self._full("too many bodies arrive at the same time") from None
        except ValueError as error:
            raise Refused(400, str(error)) from None
        if self.load.running >= self.queue:
            raise self._full("the queue is full")
        return await self._graded(parsed, parsed.deadline_seconds - (time.monotonic() - arrival))

    async def _graded(self, parsed: GradingRequest, remaining: float) -> Verdict:
        """Return the verdict on a program if it comes within the remaining seconds. Raises Refused otherwise."""
        if remaining <= 0:
            raise Refused(503, "the deadline passed", 1)
        loop = asyncio.get_running_loop()
        starts: list[float] = []
        self.load.running += 1
        future = self.grader.submit(
            parsed.task, parsed.program, parsed.limits, on_start=lambda: starts.append(time.monotonic())
        )
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), remaining)
        except TimeoutError:
            if not starts or time.monotonic() - starts[0] < parsed.limits.wall_seconds:
                raise Refused(503, "the deadline passed", 1) from None
            return failed("timeout", "the program did not end before the deadline of the request")
        except SandboxUnavailable as error:
            raise Refused(503, str(error)) from None
        finally:
            if future.done():
                self.load.end()
            else:  # the client has given up, but its program still runs and is counted until it ends
                future.add_done_callback(lambda _: loop.call_soon_threadsafe(self.load.end))


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
        from starlette.routing import Route
    except ImportError:
        raise ValueError(
            "the grading service needs starlette and uvicorn: pip install 'code-alignment[serve]'"
        ) from None
    endpoints = GradingEndpoints(grader, token, queue, max_limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(grader.close)

    routes = [Route("/grade", endpoints.grade, methods=["POST"]), Route("/health", endpoints.health)]
    return Starlette(routes=routes, lifespan=lifespan)


class TooLarge(Exception):
    """Raised if the body of a request has more than `BODY_BYTES` bytes."""


class TooMuchHeld(Exception):
    """Raised if the bodies that arrive at the same time have more than `HELD_BYTES` bytes."""


async def _received(request: Request, load: Load, parse: Callable[[bytes], GradingRequest]) -> GradingRequest:
    """Receive the body of a request, and parse it in a thread, so that other requests are answered meanwhile.

    Raises:
        TooLarge, TooMuchHeld, ValueError: see `GradingEndpoints`.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > BODY_BYTES:
        raise TooLarge
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            load.held_bytes += len(chunk)
            if len(data) > BODY_BYTES:
                raise TooLarge
            if load.held_bytes > HELD_BYTES:
                raise TooMuchHeld
        return await asyncio.to_thread(parse, bytes(data))
    finally:
        load.held_bytes -= len(data)


def _checked_json(data: bytes) -> Any:
    """Parse JSON. Raises ValueError if the JSON is malformed, nested too deeply, or has too many values."""
    if structure_bytes(data, STRUCTURE_BYTES) > STRUCTURE_BYTES:
        raise ValueError(f"more than {STRUCTURE_BYTES} bytes of numbers and brackets")
    return parse_json(data, MOST_DIGITS)


def _parsed(body: bytes, grader: Grader, max_limits: Limits) -> GradingRequest:
    try:
        message = _checked_json(body)
        task, program, seconds = message["task"], message["program"], message.get("deadline_seconds", 600.0)
        limits, hidden = message.get("limits", {}), message.get("hidden", [])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a request: {type(error).__name__}: {error}") from None
    if not isinstance(task, dict) or not isinstance(program, str):
        raise ValueError("not a request: `task` must be an object and `program` a text")
    if isinstance(task.get("tests"), str):
        try:
            task["tests"] = _checked_json(task["tests"].encode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise ValueError(f"`tests` of the task is not JSON: {error}") from None
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
    port: int = PORT,
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
    if token is None and not is_loopback(host):
        raise ValueError(f"to listen on {host}, set a token in the environment variable {TOKEN}")
    service = application(grader, token=token, queue=queue)
    serve_application(service, host, port, ready)
