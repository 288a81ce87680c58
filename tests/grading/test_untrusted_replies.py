"""What a program returns is read with limits on bytes, depth, digits and work; beyond a limit the program fails."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from alignment.grading import Grader, Limits, nodejs
from alignment.grading.value_comparison import canonical, sets_equal, stdout_equal, values_equal
from alignment.sandbox.inside import wire
from alignment.sandbox.program_run import ProgramRun
from alignment.sandbox.untrusted_json import MAX_DEPTH, parse_json

RAW = "import os\ndef f(x):\n    data = {}\n    while data: data = data[os.write(3, data):]\n    os._exit(0)"


@pytest.fixture
def unlimited_interpreter() -> Iterator[None]:
    """An interpreter whose own protections are off, as a library of a trainer may switch them off."""
    digits, depth = sys.get_int_max_str_digits(), sys.getrecursionlimit()
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(1_000_000)
    yield
    sys.set_int_max_str_digits(digits)
    sys.setrecursionlimit(depth)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 500_000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b"[{" * 1000, b"9" * 5000, b"-" + b"9" * 5000,
        b"[1, " + b"7" * 100_000 + b"]", b"1" * 401 + b"]", b'["', b"\xff", b"", b'{"a": 1}{', b'"\\' + b"[" * 2000,
        b'"' + b'\\"' * 100_000 + b"[" * 2000, b'"' * 100_001 + b"[" * 2000, b"]" * 2000 + b"[" * 2000,
    ],
)  # fmt: skip
def test_text_that_is_no_json_or_beyond_a_limit_is_refused(unlimited_interpreter: None, data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(data)


@pytest.mark.parametrize(
    "value",
    [
        ["[" * 5000],
        {"{[": '"[[[\\"'},
        [10**300, -5, 1e308],
        [[]] * 3000,
        json.loads("[" * 800 + "]" * 800),
        "é[" * 2000,
    ],
)
def test_json_within_the_limits_is_parsed(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert MAX_DEPTH > 3 * wire.MAX_DEPTH


def calls(*expected: object, **tests: object) -> dict[str, Any]:
    cases = [{"args": [number], "expected": value} for number, value in enumerate(expected)]
    return {"kind": "calls", "tests": json.dumps({"cases": cases, **tests}), "entry_point": "f"}


LARGE = {
    "lists": "return [[]] * 100_000",
    "dicts": "return [{}] * 50_000",
    "text": "return 'x' * 300_000",
    "bytes": "return b'x' * 200_000",
    "integer": "return 1 << 2_000_000",
    "numbers": "return list(range(50_000))",
    "subclass": "class L(list): pass\n    return L([[]] * 50_000)",
    "tuples": "return [()] * 50_000",
}


@pytest.mark.parametrize("compare", ["exact", "equal", "set"])
@pytest.mark.parametrize("name", LARGE)
def test_a_value_much_larger_than_the_expected_value_is_wrong_and_not_parsed(
    grader: Grader, name: str, compare: str
) -> None:
    patient = Limits(cpu_seconds=20, wall_seconds=60)
    verdict = grader.submit(calls([4], compare=compare), f"def f(x):\n    {LARGE[name]}", patient).result()
    assert verdict.status == "failed", verdict
    assert verdict.reason == "memory" or "a value of" in verdict.detail, verdict


@pytest.mark.parametrize("compare", ["any", "not_none"])
def test_rules_that_accept_any_value_accept_a_large_one(grader: Grader, compare: str) -> None:
    (verdict,) = grader.grade_many([(calls(True, compare=compare), "def f(x): return 'x' * 200_000")])
    assert verdict.status == "passed", verdict


def test_a_large_value_passes_where_a_large_value_is_expected(grader: Grader) -> None:
    task = calls(list(range(50_000)), 1)
    right, wrong = grader.grade_many(
        [(task, f"def f(x): return 1 if x else list(range({n}))") for n in (50_000, 49_999)]
    )
    assert right.status == "passed" and wrong.fraction == 0.5


FORGED = {
    "deep": "b'{\"case\":0,\"value\":' + b'[' * 20_000 + b']' * 20_000 + b'}\\n'",
    "deeper_than_the_stack": "b'{\"case\":0,\"value\":' + b'[' * 30_000 + b'}\\n'",
    "digits": "b'{\"case\":0,\"value\":' + b'9' * 30_000 + b'}\\n'",
    "large_number_of_the_case": "b'{\"case\":' + b'9' * 30_000 + b',\"value\":4}\\n'",
    "large_case": "b'{\"case\":1,\"value\":\"' + b'x' * 200_000 + b'\"}\\n'",
    "large_without_a_value": "b'{\"case\":0,\"reason\":\"' + b'x' * 200_000 + b'\"}\\n'",
    "keys_that_repeat": 'b\'{"case":0,"case":1,"value":4}\\n\'',
    "no_object": "b'[0, 4]\\n'",
    "not_a_number": 'b\'{"case":0,"value":NaN}\\n\'',
    "infinite": 'b\'{"case":0,"value":1e999}\\n\'',
    "endless_line": "b'{\"case\":0,\"value\":[' + b'4,' * 100_000",
    "empty_lines": "b'\\n' * 100_000",
    "malformed_integer": 'b\'{"case":0,"value":{"i":[]}}\\n\'',
    "malformed_set": 'b\'{"case":0,"value":{"s":4}}\\n\'',
    "two_tags": 'b\'{"case":0,"value":{"s":[4],"t":[4]}}\\n\'',
    "true_for_a_case": 'b\'{"case":false,"value":4}\\n\'',
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_reply_is_the_failure_of_the_program(grader: Grader, unlimited_interpreter: None, name: str) -> None:
    (verdict,) = grader.grade_many([(calls(4), RAW.format(FORGED[name]))])
    assert verdict.status == "failed", verdict


@pytest.mark.parametrize("exact", [True, False])
def test_sets_of_sets_are_compared_in_time_that_grows_with_their_size(exact: bool) -> None:
    """A text in a text doubles its quotes and backslashes on each level: 60 levels would not fit into any memory."""
    deep: Any = 1
    for _ in range(60):
        deep = {"s": [deep, {"f": [2]}]}
    assert values_equal(deep, json.loads(json.dumps(deep)), exact=exact)
    assert not values_equal(deep, {"s": [1]}, exact=exact)
    assert sets_equal(deep, deep)
    assert canonical({"d": [[deep, 1]]}, exact) == canonical({"d": [[deep, 1]]}, exact)


def test_numbers_with_equal_hashes_do_not_collide() -> None:
    numbers = {"s": [wire.encode(number * ((1 << 61) - 1)) for number in range(20_000)]}
    assert len({hash(item) for item in map(lambda item: canonical(item, True), numbers["s"])}) > 19_000
    assert values_equal(numbers, numbers)


@pytest.mark.parametrize(
    ("left", "right", "exact", "same"),
    [
        ({1, 2}, {2, 1}, True, True), ({1}, {True}, True, False), ({1}, {True}, False, True), ({1.0}, {1}, False, True),
        ({frozenset({1})}, {frozenset({1})}, True, True), ({(1, 2)}, {(2, 1)}, True, False), ({"1"}, {1}, False, False),
        ({None}, {"None"}, True, False), ({1: {2}}, {1: {2}}, True, True), ({(1,): 2}, {(1.0,): 2}, False, True),
        ({b"a"}, {"a"}, False, False), ({frozenset({1})}, {frozenset({2})}, False, False), ({-0.0}, {0.0}, True, False),
        ({float("nan")}, {float("nan")}, True, True), (set(), frozenset(), True, False), (set(), frozenset(), False, True),
    ],
)  # fmt: skip
def test_sets_and_keys_are_equal_as_before(left: object, right: object, exact: bool, same: bool) -> None:
    assert values_equal(wire.encode(left), wire.encode(right), exact=exact) is same


@pytest.mark.parametrize(
    "value", [{"s": [{"t": {}}]}, {"s": 4}, {"d": [[1]]}, {"d": 4}, {"x": 4}, {"s": [True, {}]}, {}, {"a": 1, "b": 2}]
)
def test_malformed_values_equal_nothing(value: Any) -> None:
    assert not values_equal({"s": [1]}, value) and not values_equal({"d": [[1, 1]]}, value)


def test_a_printed_number_of_a_million_digits_is_close_to_nothing() -> None:
    assert not stdout_equal("1", "0" * 999_999 + "1", 1e-3)
    assert stdout_equal("1", "1.0001", 1e-3)


def test_messages_of_node_are_found_without_splitting_the_output() -> None:
    stdout = (
        b"\n" * 1_000_000
        + b"\nn0{}\nn0[1]\nn0{bad\nxn0{}\n"
        + b'n0{"done":1}\n'
        + b'n0{"x":"'
        + b"y" * 5000
        + b'"}\nn0{"end":2}'
    )
    run = ProgramRun(stdout=stdout)
    assert [set(message) for message in nodejs.messages(run, "n0", largest=1000)] == [set(), {"done"}, {"end"}]
    assert nodejs.messages(run, "n0", most=2) == [{}, {"done": 1}]
    assert nodejs.messages(ProgramRun(stdout=b'n0{"a":1}'), "n0") == [{"a": 1}]


@pytest.mark.parametrize("kind", ["asserts", "stdio"])
def test_large_reports_of_a_program_about_itself_are_not_parsed(kind: str) -> None:
    tests = {"code": "assert f(2) == 4"} if kind == "asserts" else {"cases": [{"stdin": "", "stdout": "4"}]}
    task = {"kind": kind, "tests": json.dumps(tests), "entry_point": "f"}
    program = "import os\ndata = b'{\"reason\":[' + b'[],' * 500_000 + b'1]}\\n'\nwhile data: data = data[os.write(3, data):]\nos._exit(1)"
    with Grader(workers=1, limits=Limits(cpu_seconds=5, wall_seconds=5)) as fresh:
        (verdict,) = fresh.grade_many([(task, program)])
    assert verdict.status == "failed", verdict
