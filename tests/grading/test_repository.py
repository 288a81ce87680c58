"""Grading by a repository's own tests: the original passes, a masked body fails, and so do all known hacks."""

from __future__ import annotations

import json
import textwrap

import pytest
from repository_hacks import HACKS


@pytest.mark.parametrize(("name", "tier"), [("middle", "A"), ("middle", "B"), ("pairs", "A"), ("Bag.middle", "B")])
def test_the_original_body_passes_every_test(grader, task, source_of, name, tier):
    verdict = grader.grade_many([(task(name, tier), source_of(name))])[0]
    assert (verdict.status, verdict.detail) == ("passed", ""), verdict.detail


@pytest.mark.parametrize(("name", "tier"), [("middle", "A"), ("middle", "B"), ("pairs", "A"), ("Bag.middle", "B")])
def test_a_masked_body_fails(grader, task, name, tier):
    assert grader.grade_many([(task(name, tier), "    raise NotImplementedError")])[0].status == "failed"


@pytest.mark.parametrize(
    "program",
    [
        "def middle(words):\n    return sorted(words)[len(words) // 2]",
        "return sorted(words)[len(words) // 2]",
        "        return sorted(words)[len(words) // 2]",
        "from operator import itemgetter\n\ndef half(n):\n    return n // 2\n\ndef middle(words: list[str]) -> str:\n    return itemgetter(half(len(words)))(sorted(words))",
    ],
)
def test_a_body_and_a_whole_function_with_helpers_are_accepted(grader, task, program):
    assert grader.grade_many([(task("middle", "A"), program)])[0].status == "passed"


def test_a_method_is_accepted_inside_its_class(grader, task):
    program = "class Bag:\n    def middle(self, words=None):\n        words = sorted(self.words if words is None else words)\n        return words[len(words) // 2]"
    assert grader.grade_many([(task("Bag.middle", "B"), program)])[0].status == "passed"


def test_another_signature_is_a_failure_that_says_so(grader, task):
    verdict = grader.grade_many(
        [(task("middle", "A"), "def middle(items):\n    return sorted(items)[len(items) // 2]")]
    )[0]
    assert verdict.status == "failed" and "signature" in verdict.detail


@pytest.mark.parametrize("name", HACKS)
def test_no_hack_passes_in_tier_a_with_tests_and_candidate_in_two_processes(grader, task, name):
    assert grader.grade_many([(task("middle", "A"), HACKS[name])])[0].status == "failed"


@pytest.mark.parametrize("name", HACKS)
def test_no_known_hack_passes_in_tier_b_with_both_in_one_process(grader, task, name):
    hack = HACKS[name].replace("words)", "self.words)").replace("middle'](words)", "middle'](self.words)")
    assert grader.grade_many([(task("Bag.middle", "B"), hack)])[0].status == "failed"


@pytest.mark.parametrize("kind", ["StopIteration", "IndexError", "KeyError", "AttributeError", "StopAsyncIteration"])
def test_no_exception_of_the_program_ends_the_loops_of_a_repositorys_tests(grader, task, kind):
    body = f"if word is None: raise TypeError\nraise {kind}"
    verdict = grader.grade_many([(task("double", "A"), body)])[0]
    assert [test.passed for test in verdict.tests].count(True) == 1, verdict  # the test that expects TypeError


def test_exceptions_that_the_tests_expect_are_no_failure(grader, task, source_of):
    verdict = grader.grade_many([(task("double", "A"), source_of("double"))])[0]
    assert verdict.status == "passed" and all(test.passed for test in verdict.tests), verdict


def test_the_candidate_sees_neither_tests_nor_documentation_nor_the_original(grader, task):
    program = textwrap.dedent(
        """
        import os
        found = []
        for top, _, names in os.walk("/repository"):
            for name in names:
                text = open(os.path.join(top, name)).read()
                if "def test_" in text or "ordered[len(words)" in text:
                    found.append(name)
        for path in ("/repository/tests", "/repository/docs"):
            found += [path] if os.path.exists(path) else []
        if not found and sorted(os.listdir("/repository")) == ["copied.py", "words.py"]:
            return sorted(words)[len(words) // 2]
        raise ValueError(found)
        """
    )
    assert grader.grade_many([(task("middle", "A"), program)])[0].status == "passed"


def test_the_original_is_not_in_the_candidates_memory(grader, task):
    program = textwrap.dedent(
        """
        import sys, types, gc
        for item in gc.get_objects():
            if isinstance(item, types.FunctionType) and item.__name__ == "middle" and "ordered" in item.__code__.co_varnames:
                if item.__qualname__ == "middle" and item.__module__ == "words":
                    raise ValueError("found")
        if any(name.startswith(("pytest", "_pytest", "test_")) for name in sys.modules):
            raise ValueError("tests")
        return sorted(words)[len(words) // 2]
        """
    )
    assert grader.grade_many([(task("middle", "A"), program)])[0].status == "passed"


def test_a_filled_in_window_of_the_file_is_cut_to_its_body(grader, task, prepared):
    function = next(item for item in prepared.functions if item.qualname == "middle" and item.file == "words.py")
    text = prepared.texts["words.py"]
    row = task("middle", "A")
    tests = json.loads(row["tests"]) | {"cut": [4, function.start, function.end, len(text) - 5]}
    program = text[4 : function.start] + "    return sorted(words)[len(words) // 2]" + text[function.end : -5]
    assert grader.grade_many([(row | {"tests": json.dumps(tests)}, program)])[0].status == "passed"


def test_a_test_that_is_not_in_the_snapshot_is_an_error(grader, task, source_of):
    row = task("middle", "A")
    tests = json.loads(row["tests"]) | {"hidden": ["tests/test_words.py::test_that_is_not_there"]}
    verdict = grader.grade_many([(row | {"tests": json.dumps(tests)}, source_of("middle"))])[0]
    assert verdict.status == "error"


def test_a_missing_snapshot_is_an_error_that_says_what_to_do(grader, task):
    row = task("middle", "A")
    tests = json.loads(row["tests"]) | {"suite": "0" * 32}
    verdict = grader.grade_many([(row | {"tests": json.dumps(tests)}, "return 1")])[0]
    assert verdict.status == "error" and "run the stage that built the tasks" in verdict.detail
