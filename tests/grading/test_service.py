"""The grading service and its client."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from alignment.grading import Grader, SandboxSettings, open_grader
from alignment.grading.client import RemoteGrader

uvicorn = pytest.importorskip("uvicorn", reason="the service needs the extra [serve]")
pytest.importorskip("starlette", reason="the service needs the extra [serve]")
from alignment.grading.service import application, serve  # noqa: E402

TASK = {"kind": "calls", "tests": json.dumps({"cases": [{"args": [2], "expected": 4}]}), "entry_point": "f"}


@pytest.fixture
def address(grader: Grader) -> Iterator[str]:
    config = uvicorn.Config(application(grader, token="sesame", queue=2), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_the_client_gives_the_verdicts_of_the_pool(address: str) -> None:
    with RemoteGrader(address, token="sesame", workers=6) as remote:
        programs = ["def f(x): return x * x", "def f(x): return x + 1", "def f(x"] * 4
        verdicts = remote.grade_many([(TASK, program) for program in programs])
    assert [verdict.reason for verdict in verdicts] == ["passed", "wrong_answer", "syntax"] * 4


def test_a_wrong_token_is_an_infrastructure_error_not_a_failure(address: str) -> None:
    with RemoteGrader(address, token="wrong") as remote:
        verdict = remote.grade_many([(TASK, "def f(x): return x * x")])[0]
    assert (verdict.status, verdict.reason) == ("error", "infrastructure")


def test_an_unreachable_service_is_an_infrastructure_error() -> None:
    with RemoteGrader("http://127.0.0.1:9", deadline_seconds=0.5) as remote:
        assert remote.grade_many([(TASK, "")])[0].status == "error"


def _status(address: str, body: bytes, token: str = "sesame") -> tuple[int, str | None]:
    request = urllib.request.Request(f"{address}/grade", body, {"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("Retry-After")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"task": 1, "program": "x"}', b"[" * 100000])
def test_bad_requests_are_answered_with_400(address: str, body: bytes) -> None:
    assert _status(address, body or b" ")[0] == 400


def test_a_full_queue_answers_429_with_a_time_to_retry(address: str) -> None:
    slow = json.dumps({"task": TASK, "program": "import time\ndef f(x): time.sleep(2); return 4"}).encode()
    threads = [threading.Thread(target=_status, args=(address, slow)) for _ in range(8)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads) and 429 not in {code for code, _ in seen}:
        seen.add(_status(address, slow.replace(b"sleep(2)", b"sleep(0)")))
    for thread in threads:
        thread.join()
    assert any(code == 429 and after is not None for code, after in seen)


def test_a_passed_deadline_is_a_503(address: str) -> None:
    slow = {"task": TASK, "program": "import time\ndef f(x): time.sleep(2)", "deadline_seconds": 0.1}
    assert _status(address, json.dumps(slow).encode())[0] == 503


def test_an_address_other_than_the_loopback_needs_a_token(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGN_TOKEN", raising=False)
    with pytest.raises(ValueError, match="ALIGN_TOKEN"):
        serve(grader, host="0.0.0.0")


def _answer(address: str, **keys: object) -> tuple[int, str]:
    body = json.dumps({"task": TASK, "program": "def f(x): return x * x", **keys}).encode()
    request = urllib.request.Request(f"{address}/grade", body, {"Authorization": "Bearer sesame"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_request_may_set_its_own_limits(address: str) -> None:
    slow = "import time\ndef f(x): time.sleep(0.6); return x * x"
    assert json.loads(_answer(address, program=slow)[1])["reason"] == "passed"
    assert json.loads(_answer(address, program=slow, limits={"wall_seconds": 0.3})[1])["reason"] == "timeout"


@pytest.mark.parametrize(
    "limits", [{"wall_seconds": 1e9}, {"wall_seconds": 0}, {"cpu": 1}, {"files": True}, {"files": "9"}, [], "none"]
)
def test_limits_above_the_maximum_and_malformed_limits_are_refused(address: str, limits: object) -> None:
    status, text = _answer(address, limits=limits)
    assert status == 400 and "limits" in text


def test_a_file_that_the_service_does_not_hide_is_an_error(address: str) -> None:
    with RemoteGrader(address, token="sesame", hidden=("/usr/bin/bc",)) as remote:
        (verdict,) = remote.grade_many([(TASK, "def f(x): return x * x")])
    assert verdict.status == "error" and "--hide" in verdict.detail


def test_a_lone_surrogate_in_a_message_is_a_failure_of_the_program(address: str) -> None:
    """It cannot be sent as JSON, and must not become an infrastructure error."""
    with RemoteGrader(address, token="sesame") as remote:
        (verdict,) = remote.grade_many([(TASK, "def f(x): raise ValueError(chr(0xd800))")])
    assert (verdict.status, verdict.reason) == ("failed", "exception")


def test_a_program_counts_in_the_queue_until_it_ends_even_if_its_client_gave_up(address: str) -> None:
    slow = "import time\ndef f(x): time.sleep(2)"
    assert [_answer(address, program=slow, deadline_seconds=0.1)[0] for _ in range(2)] == [503, 503]
    assert _answer(address)[0] == 429


def test_the_address_in_a_recipe_opens_a_remote_grader(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGN_TOKEN", "sesame")
    sandbox = SandboxSettings.model_validate({"address": address, "wall_seconds": 0.3})
    with open_grader(sandbox) as remote:
        assert isinstance(remote, RemoteGrader)
        programs = ["def f(x): return x * x", "import time\ndef f(x): time.sleep(0.6); return x * x"]
        assert [v.reason for v in remote.grade_many([(TASK, text) for text in programs])] == ["passed", "timeout"]


def test_the_command_serves_until_it_is_stopped() -> None:
    environment = {**os.environ, "ALIGN_TOKEN": "sesame"}
    command = [sys.executable, "-m", "alignment.cli", "sandbox", "serve", "--port", "0", "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        with RemoteGrader(line.split()[2].rstrip(","), token="sesame") as remote:
            assert remote.grade_many([(TASK, "def f(x): return x * x")])[0].status == "passed"
    finally:
        process.send_signal(signal.SIGTERM)
        process.stderr.close()
        process.wait(30)


def test_a_port_in_use_is_an_error_that_names_the_flag(address: str, grader: Grader) -> None:
    with pytest.raises(ValueError, match="--port"):
        serve(grader, port=int(address.rpartition(":")[2]))
