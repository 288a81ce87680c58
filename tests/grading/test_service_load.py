"""The grading service under load, and its client when the service is full, slow or gone."""

import http.server
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.grading import Grader, Limits, Verdict
from alignment.grading.client import ATTEMPTS, RemoteGrader
from alignment.sandbox import SandboxUnavailable
from alignment.stages.rollouts import GraderCheck

uvicorn = pytest.importorskip("uvicorn", reason="the service needs the extra [serve]")
pytest.importorskip("starlette", reason="the service needs the extra [serve]")
from alignment.grading import service  # noqa: E402

TASK = {"kind": "calls", "tests": json.dumps({"cases": [{"args": [2], "expected": 4}]}), "entry_point": "f"}
RIGHT = "def f(x): return x * x"
PASSED = Verdict("passed", "passed").as_dict()


def served(grader: Any, **settings: Any) -> Iterator[str]:
    """Serve with a grader and yield the address."""
    config = uvicorn.Config(
        service.application(grader, token="sesame", **settings), port=0, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def address(grader: Grader) -> Iterator[str]:
    yield from served(grader, queue=2)


class WaitingGrader:
    """Stands for a grader whose programs never end. `starts` says whether they begin to run."""

    workers, limits, hidden = 1, Limits(wall_seconds=0.2), ()

    def __init__(self, starts: bool) -> None:
        self.starts = starts
        self.futures: list[Future[Verdict]] = []

    def submit(self, task: Any, program: str, limits: Limits, on_start: Callable[[], None]) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        if self.starts:
            future.set_running_or_notify_cancel()
            on_start()
        self.futures.append(future)
        return future


def post(address: str, body: bytes, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"{address}/grade", body, {"Authorization": "Bearer sesame", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def request_of(**keys: object) -> bytes:
    return json.dumps({"task": TASK, "program": RIGHT, **keys}).encode()


def begin_request(address: str, length: int, body: bytes) -> socket.socket:
    """Open a connection and send the headers and the first bytes of a body."""
    host, _, port = address.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), 30)
    head = f"POST /grade HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_bodies_that_arrive_slowly_do_not_fill_the_queue(address: str) -> None:
    slow = [begin_request(address, 1000, b'{"task"') for _ in range(6)]
    status, text = post(address, request_of())
    assert (status, json.loads(text)["status"]) == (200, "passed")
    for connection in slow:
        connection.close()


def test_a_body_that_does_not_arrive_is_answered_with_408(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BODY_SECONDS", 0.2)
    connection = begin_request(address, 1000, b"{")
    assert b" 408 " in connection.recv(1000)
    connection.close()


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_arrives(address: str) -> None:
    connection = begin_request(address, service.BODY_BYTES + 1, b"{")
    assert b" 413 " in connection.recv(1000)
    connection.close()


def test_too_many_bytes_at_the_same_time_are_answered_with_429(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HELD_BYTES", 10_000)
    assert post(address, request_of(note="x" * 20_000))[0] == 429
    assert post(address, request_of())[0] == 200  # nothing is held any more


NESTED = {
    "body": lambda: b'{"task": {}, "program": "", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "flat_body": lambda: b'{"task": {}, "program": "", "x": [' + b"[]," * 3_000_000 + b"1]}",
    "tests": lambda: request_of(task={**TASK, "tests": "[" * 100_000 + "]" * 100_000}),
    "flat_tests": lambda: request_of(task={**TASK, "tests": "[" + "[]," * 3_000_000 + "1]"}),
    "digits": lambda: b'{"task": {}, "program": "", "x": ' + b"7" * 100_000 + b"}",
    "tests_that_are_no_json": lambda: request_of(task={**TASK, "tests": "{"}),
}


@pytest.mark.parametrize("name", NESTED)
def test_json_that_would_take_much_memory_or_time_is_refused(address: str, name: str) -> None:
    status, text = post(address, NESTED[name]())
    assert status == 400 and "error" in text


def test_long_texts_and_integers_of_a_task_are_accepted(address: str) -> None:
    number = 7**4000
    tests = {"cases": [{"args": ["[{" * 5_000_000], "expected": number}]}
    status, text = post(
        address, request_of(task={**TASK, "tests": json.dumps(tests)}, program="def f(x): return 7 ** 4000")
    )
    assert status == 200 and json.loads(text)["status"] == "passed", text[:300]


@pytest.mark.parametrize(("starts", "status"), [(True, 200), (False, 503)], ids=["runs", "waits"])
def test_a_deadline_is_a_timeout_only_of_a_program_that_had_its_time(starts: bool, status: int) -> None:
    waiting = WaitingGrader(starts)
    for address in served(waiting):
        code, text = post(address, request_of(deadline_seconds=0.5))
        assert code == status
        assert not starts or (json.loads(text)["status"], json.loads(text)["reason"]) == ("failed", "timeout")
        assert waiting.futures[0].cancelled() is not starts  # what still waits is never run
        for future in waiting.futures:
            if not future.cancelled():
                future.set_result(Verdict("passed", "passed"))


def test_the_time_in_which_the_body_arrives_counts_towards_the_deadline() -> None:
    waiting = WaitingGrader(True)
    for address in served(waiting):
        body = request_of(deadline_seconds=0.1)
        connection = begin_request(address, len(body), body[:10])
        time.sleep(0.3)
        connection.sendall(body[10:])
        assert b" 503 " in connection.recv(1000)
        connection.close()
    assert not waiting.futures


class Script(http.server.BaseHTTPRequestHandler):
    """Answers requests with the statuses in `server.statuses`, the last of which repeats."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.count += 1
        status = server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0]
        body = json.dumps(PASSED if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        self.send_header("Retry-After", "0.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Callable[..., Any]]:
    """`scripted(*statuses)`: a service that answers with these statuses. Its attribute `count` counts the requests."""
    servers = []

    def start(*statuses: int) -> Any:
        server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Script)
        server.statuses, server.count = list(statuses), 0
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_full_queue_is_no_failed_attempt(scripted: Callable[..., Any]) -> None:
    server = scripted(*[429] * (2 * ATTEMPTS), 200)
    with RemoteGrader(server.url, deadline_seconds=60) as remote:
        assert remote.grade_many([(TASK, RIGHT)])[0].status == "passed"
    assert server.count == 2 * ATTEMPTS + 1


def test_after_one_program_found_the_service_down_others_give_up_at_once(scripted: Callable[..., Any]) -> None:
    server = scripted(503)
    with RemoteGrader(server.url, workers=1) as remote:
        verdicts = remote.grade_many([(TASK, RIGHT)] * 3)
    assert {verdict.reason for verdict in verdicts} == {"infrastructure"}
    assert server.count == ATTEMPTS + 2


def test_a_full_queue_ends_at_the_deadline(scripted: Callable[..., Any]) -> None:
    with RemoteGrader(scripted(429).url, deadline_seconds=0.5) as remote:
        (verdict,) = remote.grade_many([(TASK, RIGHT)])
    assert verdict.status == "error" and "429" in verdict.detail


def test_the_health_check_finds_a_dead_service_and_a_wrong_token(address: str) -> None:
    RemoteGrader(address, token="sesame").check()
    with pytest.raises(SandboxUnavailable, match="ALIGN_TOKEN"):
        RemoteGrader(address, token="wrong").check()
    with pytest.raises(SandboxUnavailable, match="does not answer"):
        RemoteGrader("http://127.0.0.1:9").check(patience=0)


def test_the_service_is_checked_before_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = RemoteGrader("http://127.0.0.1:9")
    monkeypatch.setattr(dead, "check", lambda: RemoteGrader.check(dead, 0))
    state: Any = SimpleNamespace()
    with pytest.raises(SandboxUnavailable, match="align sandbox serve"):
        GraderCheck(dead).on_step_begin(state, state, state)
    GraderCheck(Grader(workers=1)).on_step_begin(state, state, state)
