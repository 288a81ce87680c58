"""Log messages: on stderr, never on stdout, and from a stage's process also on the user's terminal."""

import os

import pytest

from alignment import logs


@pytest.fixture
def logger():
    logs.configure()
    return logs.get_logger("alignment.something")


def test_progress_goes_to_stderr_and_leaves_stdout_to_results(logger, capsys):
    logger.info("%d rows", 3)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "3 rows\n")


def test_warnings_and_errors_name_their_level(logger, capsys):
    logger.warning("few rows")
    logger.error("no rows")
    assert capsys.readouterr().err == "warning: few rows\nerror: no rows\n"


def test_configuring_twice_prints_each_message_once(logger, capsys):
    logs.configure()
    logger.info("once")
    assert capsys.readouterr().err == "once\n"


def test_a_stage_reaches_the_users_terminal_too(logger, capsys, monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setenv("ALIGN_TERMINAL", str(writing))
    logger.info("step 3")
    assert os.read(reading, 100) == b"step 3\n" and capsys.readouterr().err == "step 3\n"
    os.close(reading)
    os.close(writing)


def test_a_terminal_that_was_closed_is_no_error(logger, capsys, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    monkeypatch.setenv("ALIGN_TERMINAL", str(writing))
    logger.info("step 3")
    assert capsys.readouterr().err == "step 3\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (3600, "60 min")])
def test_durations_are_in_seconds_or_minutes(seconds, text):
    assert logs.format_duration(seconds) == text
