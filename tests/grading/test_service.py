"""The HTTP service and its client."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from alignment.grading import Grader
from alignment.grading.client import RemoteGrader

uvicorn = pytest.importorskip("uvicorn", reason="the service needs the extra [serve]")
pytest.importorskip("starlette", reason="the service needs the extra [serve]")
from alignment.sandbox.service import application, serve  # noqa: E402

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


def test_a_full_queue_says_when_to_come_back(address: str) -> None:
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


def test_a_deadline_that_passes_is_a_503(address: str) -> None:
    slow = {"task": TASK, "program": "import time\ndef f(x): time.sleep(2)", "deadline_seconds": 0.1}
    assert _status(address, json.dumps(slow).encode())[0] == 503


def test_no_open_address_without_a_token(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODE_ALIGNMENT_TOKEN", raising=False)
    with pytest.raises(ValueError, match="CODE_ALIGNMENT_TOKEN"):
        serve(grader, host="0.0.0.0")
