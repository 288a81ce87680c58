"""Parts of instructions: facts about functions, docstrings, bugs, renames, translated tests and wordings."""

from __future__ import annotations

import ast
import random

import pytest

from data_builders.instructions.docstrings import documentation_fault, grounded, summary_of
from data_builders.instructions.function_facts import facts_of, raised_names
from data_builders.instructions.renames import former_name
from data_builders.instructions.source_bugs import bugs
from data_builders.instructions.unittest_translations import as_function
from data_builders.instructions.wordings import REQUESTS, wording
from data_builders.parsing.python_functions import Definition, functions


def function_of(code: str) -> Definition:
    node = ast.parse(code).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return node


def facts(code: str, *, is_method: bool = False) -> str:
    return " ".join(facts_of(function_of(code), code, is_method=is_method))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def f(a, b=1, *, c, d=None): return a", "It takes `a` and `b` (default `1`), and `c` and `d` (default `None`) by keyword."),
        ("def f(*, share=0): return share", "It takes `share` (default `0`) by keyword."),
        ("def f(*rows, **more): return rows", "any number of further positional arguments (`*rows`)"),
        ("def f(*rows, **more): return rows", "any further keyword arguments (`**more`)"),
        ("def f(a, /, b): return a", "It takes `a` and `b`."),
        ("def f(a):\n    if not a:\n        return 0\n    return sum(a)", "If `not a`, it returns `0`. Otherwise it returns `sum(a)`."),
        ("def f(a):\n    if not a:\n        raise ValueError(a)\n    b = a + 1\n    return b", "If `not a`, it raises `ValueError`. In the end it returns `b`."),
        ("def f(a):\n    try:\n        return int(a)\n    except ValueError:\n        return 0", "If `ValueError` is raised inside of the `try` block, it returns `0`."),
        ("def f(a):\n    for b in a:\n        if b:\n            return b\n    return None", "It loops over `a`, and returns `b` as soon as `b` holds."),
        ("def f(a):\n    if a > 1:\n        x = 1\n    elif a:\n        x = 2\n    else:\n        x = 3\n    return x", "It treats these cases differently: `a > 1`, `a` and all other cases."),
        ("def f(a):\n    for b in a:\n        return b", "It loops over `a`, and returns `b` for the first item."),
        ("def f(a):\n    if a:\n        x = 1\n    else:\n        x = 2\n    return x", "What it does depends on whether `a` holds."),
        ("def f(a):\n    try:\n        return a[0]\n    except KeyError:\n        x = 1", "If its `try` block runs without an exception, it returns `a[0]`."),
        ("def f(a):\n    if a:\n        return a\n    raise ValueError", "In all other cases it raises `ValueError`."),
        ("def f(a):\n    yield a", "It is a generator: a call returns an iterator"),
        ("async def f(a):\n    return a", "It is a coroutine"),
        ("async def f(a):\n    yield a", "It is an asynchronous generator"),
        ("@contextmanager\ndef f(a):\n    yield a", "It is used in a `with` statement"),
        ("def f(a):\n    print(a)", "It returns nothing."),
    ],
)  # fmt: skip
def test_a_fact_is_stated(code: str, sentence: str) -> None:
    assert sentence in facts(code)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(a):\n    return (b for b in a)", "generator"),
        ("def f(a):\n    def g():\n        yield a\n    return g", "generator"),
        ("def f(a):\n    def g():\n        raise ValueError\n    return g", "ValueError"),
        ("def f(a):\n    try:\n        if a:\n            raise ValueError\n        return 1\n    except ValueError:\n        return 0", "raise `ValueError`"),
        ("def f(a):\n    try:\n        raise KeyError(a)\n    except LookupError:\n        return 0", "raise `KeyError`"),
        ("def f(a):\n    try:\n        raise KeyError(a)\n    except Exception:\n        return 0", "raise `KeyError`"),
        ("def f(a):\n    g = lambda: (yield a)\n    return g", "generator"),
        ("def f(a):\n    class G:\n        def h(self):\n            return 1\n    return G", "loop"),
    ],
)  # fmt: skip
def test_what_is_not_so_is_not_stated(code: str, words: str) -> None:
    assert words not in facts(code)


def test_exceptions_that_leave_a_function() -> None:
    code = "def f(a):\n    try:\n        raise KeyError\n    except KeyError as e:\n        raise ShopError from e\n    finally:\n        if a:\n            raise OSError\n"
    assert raised_names(function_of(code).body) == ["ShopError", "OSError"]
    assert raised_names(function_of("def f(e):\n    raise e\n").body) == []


def test_a_method_sets_attributes_and_uses_helpers_of_its_module() -> None:
    code = "def put(self, a):\n    self.last = a\n    check(a)\n\ndef check(a): ...\n"
    assert facts(code, is_method=True) == "It takes `a`. It sets `self.last`. It relies on `check` of the same module."


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("Give the mean.\n\nZero for none.", "Give the mean.\n\nZero for none."),
        ("Give the mean. See http://x.example for more.", "Give the mean."),
        ("Give the mean. This is useful in shops. It is for compatibility.", "Give the mean."),
        ("Give the mean. Often used. That was slow.\n\n.. versionadded:: 2.0", "Give the mean."),
        ("Give the mean of prices, for example::\n\n    >>> mean([1])\n    1", ""),
        ("Give the mean of prices. Here is one:\n\n>>> mean([1])\n1\n\nMore.", "Give the mean of prices."),
        ("See :func:`total`.", ""),
        ("Give the mean.\n\nTODO: round", "Give the mean."),
    ],
)
def test_a_docstring_is_cut_to_what_speaks_of_the_function(doc: str, expected: str) -> None:
    assert grounded(doc) == expected


def test_a_summary_is_one_line_of_plain_markup() -> None:
    assert summary_of("give the mean of ``prices``,\nas :class:`~shop.Price`\n\nMore.") == (
        "Give the mean of `prices`, as `shop.Price`."
    )
    assert summary_of(":param a: the price") == "" and summary_of("") == "" and summary_of("word " * 61) == ""


def test_wrong_claims_of_a_docstring_are_found() -> None:
    node = function_of("def f(price):\n    return price\n")
    assert documentation_fault("Give it.\n\n:param prize: the price", node) == "docstring_with_wrong_parameters"
    assert documentation_fault("Give it.\n\nArgs:\n    prize: the price", node) == "docstring_with_wrong_parameters"
    assert documentation_fault("Give it.\n\nArgs:\n    price: the price\n\nReturns:\n    the price", node) == ""
    assert documentation_fault("Yields each price.", node) == "docstring_with_wrong_claims"
    raising = function_of("def f(price):\n    raise IndexError(price)\n")
    assert documentation_fault("Give it, or raise KeyError.", raising) == "docstring_with_wrong_claims"
    assert documentation_fault("Give it, or raise IndexError.", raising) == ""
    assert documentation_fault("Give *price if it is set.", node) == "docstring_with_broken_markup"
    assert documentation_fault("Give *price* of `it`_.", node) == "docstring_with_broken_markup"
    assert documentation_fault("Give :class`Price` of it.", node) == "docstring_with_broken_markup"


SHOP = """import math


class Shop:
    def price(self, items, percent, floor=0):
        '''Sum up 'items'.'''
        # a comment
        total = 0
        for item in items:
            if item is None: continue   # skipped
            total += item . price
        if percent > 100  and  floor :
            percent = 100
        if not total:
            raise ValueError('%s is < 1' % total)
        text = '%d' % (
            total,
        )
        return max(total - total*percent / 100, floor), text
"""


def test_a_bug_changes_one_place_and_keeps_the_formatting() -> None:
    (function,) = functions("shop.py", SHOP)
    made = bugs(SHOP, function, 100, 0)
    assert {bug.kind for bug in made} == {"arithmetic", "boolean", "call", "comparison", "condition", "constant", "loop", "missing line", "order"} - {"order"}  # fmt: skip
    for bug in made:
        broken, right = bug.definition(SHOP, function).split("\n"), bugs_definition().split("\n")
        different = [line for line in broken if line not in right] + [line for line in right if line not in broken]
        assert 1 <= len(different) <= 2, different
        assert different[-1].strip() in bug.explanation(SHOP)
        ast.parse(bug.definition(SHOP, function))
        assert bug.broken_text(SHOP)[: function.start] == SHOP[: function.start]
        assert bug.body(SHOP, function) in bug.broken_text(SHOP)
        assert "ValueError('%s is < 1' % total)" in bug.definition(SHOP, function)


def bugs_definition() -> str:
    lines = SHOP.split("\n")[4:]
    return "\n".join(line[4:] for line in lines).rstrip("\n")


def test_the_seed_chooses_the_bugs() -> None:
    (function,) = functions("shop.py", SHOP)
    assert bugs(SHOP, function, 3, 1) == bugs(SHOP, function, 3, 1)
    assert len({tuple(bugs(SHOP, function, 3, seed)) for seed in range(6)}) > 1


def test_a_former_name_is_plausible_and_free() -> None:
    names = {former_name("average_price", {"averagePrice"}, random.Random(seed)) for seed in range(40)}
    assert {"price_average", "avrg_prc"} <= names and "averagePrice" not in names and "average_price" not in names
    assert former_name("get_price", (), random.Random(1)) != "get_price"


def translated(body: str) -> str:
    text = f"class T(TestCase):\n    def test_it(self):\n{body}"
    method = ast.parse(text).body[0].body[0]  # type: ignore[attr-defined]
    return as_function(text, method)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("self.assertEqual('a' + \"b\", 'ab')", "assert 'a' + \"b\" == 'ab'"),
        ("self.assertEqual(a, b, 'why')", "assert a == b, 'why'"),
        ("self.assertEqual(a, b, msg='why')", "assert a == b, 'why'"),
        ("self.assertEqual(a == b, c)", "assert (a == b) == c"),
        ("self.assertEqual(f(a), None)", "assert f(a) is None"),
        ("self.assertTrue(a == b)", "assert a == b"),
        ("self.assertTrue(a or b)", "assert a or b"),
        ("self.assertFalse(a in b)", "assert a not in b"),
        ("self.assertFalse(a or b)", "assert not (a or b)"),
        ("self.assertIn(a if b else c, d)", "assert (a if b else c) in d"),
        ("self.assertEqual([\n            1,\n        ], a)", "assert [\n        1,\n    ] == a"),
        ("self.assertEqual(a\n            + 1, b)", "assert (a\n    + 1 == b)"),
        (
            "self.assertEqual(\n            f(a),\n            [\n                1,\n            ],\n        )",
            "assert f(a) == [\n        1,\n    ]",
        ),
        ("self.assertFalse(a is not b)", "assert a is b"),
        ("self.assertAlmostEqual(a, b)", "assert round(a - b, 7) == 0"),
        ("self.assertAlmostEqual(a, b + c, 3)", "assert round(a - (b + c), 3) == 0"),
        ("self.assertIsInstance(a, int)  # why", "assert isinstance(a, int)  # why"),
        ("self.assertTrue(all(x for x in a))", "assert all(x for x in a)"),
    ],
)
def test_an_assertion_is_translated_in_the_text(before: str, after: str) -> None:
    assert translated(f"        {before}\n") == f"def test_it():\n    {after}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("with self.assertRaises(ValueError) as caught:\n            int('x')\n        self.assertIn('x', str(caught.exception))",
         "with pytest.raises(ValueError) as caught:\n        int('x')\n    assert 'x' in str(caught.value)"),
        ("with self.assertRaisesRegex(ValueError, 'inv'):\n            int('x')", "with pytest.raises(ValueError, match='inv'):\n        int('x')"),
        ("self.assertRaises(ValueError, lambda: int('x'))", "with pytest.raises(ValueError):\n        int('x')"),
        ("self.assertRaises(ValueError, int, 'x')", "with pytest.raises(ValueError):\n        int('x')"),
    ],
)  # fmt: skip
def test_an_expected_exception_is_translated(before: str, after: str) -> None:
    code = translated(f"        {before}\n")
    assert code == f"import pytest\n\n\ndef test_it():\n    {after}"
    exec(f"{code}\n\ntest_it()", {})


@pytest.mark.parametrize(
    "body",
    [
        "self.assertTrue(*[True])\n        self.assertEqual(1, 1)", "self.assertCountEqual(a, b)", "self.check(1)", "x = 1",
        "with self.subTest(n=1):\n            self.assertEqual(1, 1)", "self.assertEqual(self.price, 1)",
        "with self.assertWarns(UserWarning) as caught:\n            f()\n        self.assertIn('x', str(caught.warning))",
        "super().test_it()\n        self.assertEqual(1, 1)", "self.assertEqual(1)", "self.assertRaises(E, [f][0], 1)", "self.assertEqual(first=1, second=1)",
    ],
)  # fmt: skip
def test_a_test_that_needs_its_class_is_not_translated(body: str) -> None:
    assert translated(f"        {body}\n") == ""


@pytest.mark.parametrize("kind", sorted(REQUESTS))
def test_each_kind_has_many_wordings(kind: str) -> None:
    names = {"name": "f", "file": "a.py", "qualname": "A.f", "old": "g", "files": "`a.py`"}
    texts = {wording(kind, str(number), 0, names) for number in range(500)}
    assert len(texts) >= 50
    assert wording(kind, "a", 0, names) == wording(kind, "a", 0, names)
    assert [wording(kind, str(n), 0, names) for n in range(9)] != [wording(kind, str(n), 1, names) for n in range(9)]
