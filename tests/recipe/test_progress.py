"""Progress messages: counts, rates, time left, and where they go."""

import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from alignment import progress
from alignment.progress import Progress, results, track


@pytest.fixture
def messages(caplog, monkeypatch):
    """All messages, with no least time between two of them."""
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(logging.getLogger("alignment"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="alignment"):
        yield caplog


def test_a_message_has_done_total_rate_and_time_left():
    work = Progress("humaneval", 164, "completions", amount_unit="tokens")
    work.advance(40, 4000)
    assert work.message(work.started + 20) == "humaneval: 40/164 completions, 200 tokens/s, 62 s left"


def test_the_first_items_say_nothing_about_the_time_left():
    work = Progress("fim", 60, "completions")
    work.done = 2
    assert work.message(work.started + 100) == "fim: 2/60 completions, 0.02/s"
    work.done = 3
    assert work.message(work.started + 100) == "fim: 3/60 completions, 0.03/s, 32 min left"


def test_work_without_a_total_has_no_time_left():
    work = Progress("corpus", unit="files")
    work.advance(1500)
    assert work.message(work.started + 1000) == "corpus: 1,500 files, 1.5/s"


def test_the_last_message_has_the_whole_time():
    work = Progress("grading", 4, "programs")
    work.advance(4)
    assert work.message(work.started + 200) == "grading: 4/4 programs, 0.02/s, 3 min in total"


def test_messages_are_rare_where_there_is_no_terminal(caplog):
    with caplog.at_level(logging.INFO):
        assert list(track(range(1000), "quick")) == list(range(1000))
    assert not caplog.messages


def test_every_item_is_counted(messages):
    assert list(track("abc", "letters")) == ["a", "b", "c"]
    assert [message.split(",")[0] for message in messages.messages] == ["letters: 1/3", "letters: 2/3", "letters: 3/3"]


def test_results_are_in_order_and_the_first_error_ends_the_wait():
    with ThreadPoolExecutor(2) as pool:
        assert results([pool.submit(pow, 2, number) for number in range(5)], "powers") == [1, 2, 4, 8, 16]
    failed, waiting = Future(), Future()
    failed.set_exception(ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        results([waiting, failed], "requests")
    assert waiting.cancelled()


def test_progress_is_on_stderr_and_the_result_alone_on_stdout(capfd, monkeypatch, tmp_path):
    from alignment import logs
    from alignment.cli import main

    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    logs.configure()
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"task_id": "HumanEval/0", "completion": "    return False\n"}) + "\n")
    data = tmp_path / "HumanEval.jsonl"
    task = {
        "task_id": "HumanEval/0", "prompt": "def f(x):\n", "canonical_solution": "    return x\n",
        "test": "def check(f):\n    assert f(1) == 1\n", "entry_point": "f",
    }  # fmt: skip
    data.write_text(json.dumps(task) + "\n")
    command = ["evaluate", "--completions", str(rows), "--benchmark", "humaneval", "--data", str(data), "--json"]
    assert main([*command, "--out", str(tmp_path / "out"), "--allow-weaker-sandbox"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)[0]["value"] == 0.0
    assert "humaneval: grading: 1/1 programs" in captured.err
