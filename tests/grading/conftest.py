"""A small repository with tests, prepared once for all tests."""

from __future__ import annotations

import json
import os

import pytest

MODULE = '''"""Words."""


def middle(words):
    """The word in the middle of the sorted words."""
    # sort, then take
    ordered = sorted(words)
    return ordered[len(words) // 2]


def pairs(words, of=tuple):
    """Neighbours, lazily."""
    previous = None
    for word in words:
        if previous is not None:
            yield of((previous, word))
        previous = word


def double(word):
    """The word, twice."""
    twice = word + word
    return twice


class Bag:
    """Words that can be counted."""

    def __init__(self, words=()):
        self.words = list(words)

    def middle(self, words=None):
        """The word in the middle of this bag, or of other words."""
        ordered = sorted(self.words if words is None else words)
        return ordered[len(ordered) // 2]

    def __eq__(self, other):
        return isinstance(other, Bag) and sorted(self.words) == sorted(other.words)
'''
TESTS = """import pytest
from words import Bag, double, middle, pairs


def test_middle_of_three():
    assert middle(["c", "a", "b"]) == "b"


def test_middle_of_four():
    assert middle(["d", "a", "b", "c"]) == "c"


def test_middle_of_nothing():
    with pytest.raises(IndexError):
        middle([])


def test_pairs():
    assert list(pairs(iter("abc"))) == [("a", "b"), ("b", "c")]


def test_pairs_of():
    assert list(pairs("abc", of=lambda pair: pair[0] + pair[1])) == ["ab", "bc"]


def test_double_in_a_loop():
    for got, expected in zip(map(double, ["a", "b"]), ["aa", "bb"]):
        assert got == expected


def test_double_of_all():
    assert not any(map(lambda word: double(word) != word * 2, "abc"))


def test_double_by_call():
    for got in iter(lambda: double("a"), None):
        assert got == "aa"
        break


def test_double_of_items():
    class Doubled:
        def __getitem__(self, index):
            return double("abc"[index])

    for got in Doubled():
        assert got in ("aa", "bb", "cc")


def test_double_of_nothing():
    with pytest.raises(TypeError):
        double(None)


def test_bag_of_three():
    assert Bag("cab").middle() == "b"


def test_bag_of_others():
    assert Bag("x").middle(["d", "a", "b", "c"]) == "c"


def test_bags_are_equal():
    assert Bag("ab") == Bag("ba")
    assert Bag("ab") != Bag("b")
"""


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, grader):
    """The snapshot of the repository; the fixture `grader` skips tests if the machine refuses the sandbox."""
    from data_builders.repositories.sources import resolve
    from data_builders.tasks.python.python_suite import prepare_suite

    os.environ["ALIGN_SUITES"] = str(tmp_path_factory.mktemp("suites"))
    folder = tmp_path_factory.mktemp("work") / "words"
    (folder / "tests").mkdir(parents=True)
    (folder / "docs").mkdir()
    (folder / "words.py").write_text(MODULE)
    (folder / "copied.py").write_text(MODULE)
    (folder / "docs" / "words.md").write_text(MODULE)
    (folder / "tests" / "test_words.py").write_text(TESTS)
    return prepare_suite(resolve([str(folder)])[0])


@pytest.fixture
def task(prepared):
    """`task(function, tier)`: the row of a task with all tests whose names contain that of the function."""

    def make(qualname: str, tier: str) -> dict:
        function = next(item for item in prepared.functions if item.qualname == qualname and item.file == "words.py")
        words = {"middle": "test_middle", "pairs": "test_pairs", "double": "test_double"}.get(qualname, "test_bag")
        names = [name for name in prepared.tests if words in name]
        tests = {"suite": prepared.id, "tier": tier, "target": function.target(), "visible": names[:1], "hidden": names[1:],
                 "copies": ["copied.py"]}  # fmt: skip
        return {"kind": "pytest", "language": "python", "entry_point": qualname, "tests": json.dumps(tests)}

    return make


@pytest.fixture(scope="session")
def source_of(prepared):
    """`source_of(function)`: the original body of a function."""

    def read(qualname: str) -> str:
        function = next(item for item in prepared.functions if item.qualname == qualname and item.file == "words.py")
        return prepared.texts["words.py"][function.start : function.end]

    return read
