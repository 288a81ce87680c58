"""Every test of a task runs, as pytest and unittest would run it, or the task is refused; no program passes
untested.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from alignment.grading import Grader, Verdict

CASES = Path(os.environ.get("ALIGN_CASES_DIR", Path(__file__).resolve().parents[3] / "shared" / "cases"))
CASES = CASES / "attacks" / "programs.jsonl"
RIGHT, WRONG = "def f(x): return x * x", "def f(x): return 0"
YES = """
class Yes:
    def __getattr__(self, name): return lambda *a, **k: True
    def __len__(self): return 3
    def __eq__(self, other): return True
    def __bool__(self): return True
    def __contains__(self, item): return True
    def __lt__(self, other): return True
    def __float__(self): return 4.0
    def __array__(self, *a, **k): return [4]
def f(*a): return Yes()
"""


def judge(grader: Grader, code: str, *programs: str) -> list[Verdict]:
    task: dict[str, Any] = {"kind": "asserts", "entry_point": "f", "tests": json.dumps({"code": code})}
    return grader.grade_many([(task, program) for program in programs])


RUN = {
    "parametrize": ("import pytest\n@pytest.mark.parametrize('x, y', [(2, 4), (3, 9)])\ndef test_f(x, y):\n    assert f(x) == y", 2),
    "stacked_parametrize": (
        "import pytest\n@pytest.mark.parametrize('x', [1, 2])\n@pytest.mark.parametrize('s', [1, -1])\n"
        "def test_f(x, s):\n    assert f(x * s) == x * x", 4),
    "fixture": ("import pytest\n@pytest.fixture\ndef four(): return 4\ndef test_f(four):\n    assert f(2) == four", 1),
    "yield_fixture": (
        "import pytest\n@pytest.fixture(scope='module')\ndef four():\n    yield 4\ndef test_f(four):\n    assert f(2) == four", 1),
    "tmp_path": ("def test_f(tmp_path):\n    (tmp_path / 'a').write_text('4')\n"
                 "    assert str(f(2)) == (tmp_path / 'a').read_text()", 1),
    "monkeypatch": ("def test_f(monkeypatch):\n    monkeypatch.setenv('A', '4')\n    import os\n    assert f(2) == int(os.environ['A'])", 1),
    "candidate_parameter": ("def test_f(candidate):\n    assert candidate(2) == 4", 1),
    "default_parameter": ("def test_f(x=2):\n    assert f(x) == 4", 1),
    "plain_class": ("class TestF:\n    def test_a(self):\n        assert f(2) == 4\n    def test_b(self):\n        assert f(3) == 9", 2),
    "setup_method": ("class TestF:\n    def setup_method(self): self.v = 4\n    def test_a(self):\n        assert f(2) == self.v", 1),
    "setup_module": ("def setup_module():\n    global v\n    v = 4\ndef test_a():\n    assert f(2) == v", 1),
    "async": ("async def test_f():\n    assert f(2) == 4", 1),
    "async_class": ("class TestF:\n    async def test_f(self):\n        assert f(2) == 4", 1),
    "unittest": ("import unittest\nclass T(unittest.TestCase):\n    @classmethod\n    def setUpClass(cls): cls.v = 4\n"
                 "    def setUp(self): self.x = 2\n    def test_a(self): self.assertEqual(f(self.x), self.v)\n"
                 "if __name__ == '__main__':\n    unittest.main()", 1),
    "setUpModule": ("import unittest\nv = []\ndef setUpModule(): v.append(4)\nclass T(unittest.TestCase):\n"
                    "    def test_a(self): self.assertEqual([f(2)], v)", 1),
    "async_unittest": ("import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n    async def test_a(self):\n"
                       "        self.assertEqual(f(2), 4)", 1),
    "sub_tests": ("import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        for x in (0, 2, 3):\n"
                  "            with self.subTest(x=x): self.assertEqual(f(x), x * x)", 1),
    "main_block": ("if __name__ == '__main__':\n    assert f(2) == 4\n    print('ok')", 1),
    "main_function": ("def main():\n    for x in (1, 2):\n        assert f(x) == x * x\nif __name__ == '__main__':\n    main()", 1),
    "never_called_caller": ("def test_a():\n    assert f(2) == 4\ndef run_all():\n    test_a()", 1),
    "doctest": ('"""\n>>> f(2)\n4\n"""\nimport doctest\ndoctest.testmod()', 1),
    "check_without_argument": ("def check():\n    assert f(2) == 4", 1),
    "raise": ("if f(2) != 4:\n    raise ValueError('wrong')", 1),
    "loop": ("for x in range(5):\n    assert f(x) == x * x", 1),
    "one_skipped": ("import pytest\n@pytest.mark.skip\ndef test_a(): assert f(2) == 5\ndef test_b(): assert f(2) == 4", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", RUN)
def test_tests_run_as_pytest_and_unittest_run_them(grader: Grader, name: str) -> None:
    code, number = RUN[name]
    right, wrong = judge(grader, code, RIGHT, WRONG)
    assert (right.status, right.tests_run) == ("passed", number), right
    assert wrong.status == "failed" and wrong.fraction < 1, wrong


REFUSED = {
    "unknown_name": ("def check_solution():\n    assert f(2) == 4", "check_solution was never called"),
    "no_test": ("METADATA = {}", "no test ran"),
    "other_class": ("class Checks:\n    def test_a(self): assert f(2) == 4", "Checks was never called"),
    "class_with_init": ("class TestF:\n    def __init__(self): pass\n    def test_a(self): assert f(2) == 4", "TestF"),
    "missing_fixture": ("def test_f(database):\n    assert f(2) == 4", "test_f"),
    "skipped": ("import pytest\n@pytest.mark.skip\ndef test_f():\n    assert f(2) == 4", "test_f is skipped"),
    "skipped_class": ("import unittest\n@unittest.skip('later')\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(f(2), 4)",
                      "test_a"),
    "expected_failure": ("import pytest\n@pytest.mark.xfail\ndef test_f():\n    assert f(2) == 4", "test_f is expected to fail"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_task_of_which_no_test_runs_is_an_error_that_names_the_test(grader: Grader, name: str) -> None:
    code, text = REFUSED[name]
    (verdict,) = judge(grader, code, WRONG)
    assert (verdict.status, verdict.reason) == ("error", "invalid_task") and text in verdict.detail, verdict


def test_expected_failures_of_unittest_count_as_unittest_counts_them(grader: Grader) -> None:
    code = "import unittest\nclass T(unittest.TestCase):\n    @unittest.expectedFailure\n    def test_a(self): self.assertEqual(f(2), 4)"
    right, wrong = judge(grader, code, RIGHT, WRONG)
    assert right.status == "failed" and wrong.status != "passed"


def test_a_program_cannot_have_its_test_skipped(grader: Grader) -> None:
    code = "import pytest\ndef test_f():\n    if f(2) is None:\n        pytest.skip('no value')\n    assert f(2) == 4"
    (verdict,) = judge(grader, code, "def f(x): return None")
    assert (verdict.status, verdict.reason) == ("failed", "not_run")


STEERED = {
    "zip": "for got, want in zip(map(f, [2, 3]), [4, 9]):\n    assert got == want",
    "any": "assert not any(map(lambda x: f(x) != x * x, range(5)))",
    "all": "assert all(map(lambda x: f(x) == x * x, range(5)))",
    "list": "assert list(map(f, [])) == list(map(f, [2]))",
    "in_test": "def test_f():\n    for got in map(f, [2]):\n        assert got == 4",
    "in_class": "class TestF:\n    def test_f(self):\n        for got in map(f, [2]):\n            assert got == 4",
    "in_unittest": "import unittest\nclass T(unittest.TestCase):\n    def test_f(self):\n"
    "        for got in map(f, [2]):\n            self.assertEqual(got, 4)",
    "iter_call": "for got in iter(lambda: f(2), None):\n    assert got == 4\n    break",
    "getitem": "class Old:\n    def __getitem__(self, i): return f(i)\nfor i, got in enumerate(Old()):\n"
    "    assert got == i * i\n    if i == 3: break",
    "hasattr": "class Lazy:\n    @property\n    def wrong(self): return f(2)\nassert not hasattr(Lazy(), 'wrong')",
}


@pytest.mark.parametrize("name", STEERED)
@pytest.mark.parametrize(
    "kind", ["StopIteration", "StopAsyncIteration", "IndexError", "KeyError", "AttributeError", "GeneratorExit"]
)
def test_no_exception_of_the_program_ends_the_tests_loops(grader: Grader, name: str, kind: str) -> None:
    (verdict,) = judge(grader, STEERED[name], f"def f(x): raise {kind}")
    assert verdict.status == "failed", verdict


@pytest.mark.parametrize(
    "code",
    [
        "import pytest\nwith pytest.raises(StopIteration):\n    f(2)\nassert True",
        "try:\n    f(2)\nexcept StopIteration:\n    done = True\nassert done",
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertRaises(StopIteration, f, 2)",
        "import contextlib\nwith contextlib.suppress(StopIteration):\n    f(2)\nassert True",
    ],
)
def test_an_exception_that_the_test_handles_is_right(grader: Grader, code: str) -> None:
    (verdict,) = judge(grader, code, "def f(x): raise StopIteration")
    assert verdict.status == "passed", verdict


def test_iterators_of_the_program_end_as_usual(grader: Grader) -> None:
    code = "assert list(f(3)) == [0, 1, 2]\nassert next(f(0), None) is None\nassert not hasattr(f(1), 'missing')"
    (verdict,) = judge(grader, code, "def f(n):\n    yield from range(n)")
    assert verdict.status == "passed", verdict


@pytest.mark.parametrize(
    "code",
    [
        "assert f(2).startswith('abc')", "assert f(2).issubset({1, 2})", "assert f(2).isdigit()", "assert f(2) == 4",
        "assert f(2) != 4", "assert f(2)", "assert not f(2)", "assert 4 in f(2)", "assert f(2) in [4]", "assert f(2) < 5",
        "assert [4] == [f(2)]", "assert f(2).is_integer()", "assert f(2).equals(4)", "assert f(2).all()",
        "import math\nassert math.isclose(f(2), 4)", "assert isinstance(f(2), int)", "assert sorted([f(2), f(3)])",
        "import numpy as np\nassert np.allclose(f(2), 4)", "import numpy as np\nassert np.array_equal(f(2), [4])",
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertTrue(f(2).endswith('x'))",
    ],
)  # fmt: skip
def test_no_object_of_the_program_answers_for_a_plain_value(grader: Grader, code: str) -> None:
    (verdict,) = judge(grader, code, YES)
    assert verdict.status == "failed", verdict


def test_classes_of_the_program_keep_their_methods(grader: Grader) -> None:
    code = "t = Trie()\nt.insert('ab')\nassert t.startswith('a') and not t.startswith('b')"
    program = (
        "class Trie:\n    def __init__(self): self.words = []\n    def insert(self, w): self.words.append(w)\n"
        "    def startswith(self, p): return any(w.startswith(p) for w in self.words)\n"
    )
    task = {"kind": "asserts", "entry_point": "Trie", "tests": json.dumps({"code": code})}
    assert grader.grade_many([(task, program)])[0].status == "passed"


@pytest.mark.skipif(not CASES.exists(), reason=f"no cases at {CASES}")
def test_every_line_of_the_cases_gives_its_right_result(grader: Grader) -> None:
    rows = [json.loads(line) for line in CASES.read_text().splitlines()]
    verdicts = grader.grade_many([(row["task"], row["program"]) for row in rows])
    for row, verdict in zip(rows, verdicts, strict=True):
        right = {"passed": "passed", "failed": "failed", "refused": "error"}
        assert verdict.status == right[row["right"].partition(" ")[0].rstrip(",")], (row, verdict)
