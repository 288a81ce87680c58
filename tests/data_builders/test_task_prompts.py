"""Prompts of executable tasks: they hold what the masked body needs, the data of the shown tests, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from corpus_helpers import run_builder, write_files

from alignment.grading.node_syntax import js_functions
from data_builders.parsing.python_functions import functions
from data_builders.tasks.javascript.javascript_context import (
    JsNeededCode,
    js_code_of_tests,
    js_needed_code,
    js_prompt,
    js_rank_of_tests,
)
from data_builders.tasks.javascript.javascript_mutants import js_trivial
from data_builders.tasks.python.needed_code import RepositoryCode
from data_builders.tasks.python.python_mutants import trivial_bodies
from data_builders.tasks.python.shown_tests import can_divide, code_of_tests, rank_of_tests
from data_builders.tasks.python.task_context import unresolved_names
from data_builders.tasks.task_rows import split_names
from data_builders.tasks.validation import TaskSettings

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "data" / "task_prompts.jsonl"
RATES = '''"""Rates."""
from shop.money import rounded

BASE = 0.1
TABLE = {"de": 0.19, "fr": BASE * 2}


def rate_of(country):
    """The rate of a country.

    Countries without a rate have none.
    """
    return TABLE[country]


class Shelf:
    def __init__(self, room):
        self.room = room
        self.log = []


    def left(self, used):
        """The room that is left."""
        return self.room - used
'''
MONEY = '''import decimal


def rounded(value):
    """A value with two digits."""
    return decimal.Decimal(value).quantize(decimal.Decimal("0.01"))
'''


def needed(module: str, name: str, *, characters: int = 6000, **files: str) -> Any:
    """The needed code of a function in shop/prices.py, with the names that this code does not define."""
    texts = {"shop/__init__.py": "", "shop/prices.py": module, "shop/rates.py": RATES, "shop/money.py": MONEY}
    texts |= {f"shop/{key}.py": text for key, text in files.items()}
    (function,) = [item for item in functions("shop/prices.py", module) if item.qualname == name]
    code = RepositoryCode(texts, "shop").needed(function, characters)
    return SimpleNamespace(
        module=code.module, head=code.head, others=code.others, indentation=code.indentation,
        unresolved=unresolved_names(module, function, code),
    )  # fmt: skip


def test_only_imports_constants_and_signatures_that_the_body_uses_are_shown() -> None:
    module = (
        "import math\nimport os.path as paths, re\nfrom functools import (\n    lru_cache,\n    reduce,\n)\n\nDIGITS = 2\nUNUSED = 3\n\n\n"
        "def helper(value, *, most=9):\n    '''Half of a value.'''\n    return value / 2\n\n\ndef unrelated():\n    return 7\n\n\n"
        "def price(value):\n    return reduce(max, [helper(value), paths.sep, re.I, DIGITS])\n"
    )
    code = needed(module, "price")
    assert code.module == (
        "import os.path as paths, re\nfrom functools import reduce\n\nDIGITS = 2\n\n"
        'def helper(value, *, most=9):\n    """Half of a value."""\n    ...'
    )
    assert code.others == {} and code.unresolved == set()


def test_definitions_in_other_files_are_followed_through_imports_and_stars() -> None:
    module = (
        "from shop.api import *\nfrom . import rates as known\nfrom shop.rates import Shelf\n\n\n"
        "def price(value, country):\n    return rounded(value * known.rate_of(country)) - Shelf(3).left(1)\n"
    )
    code = needed(module, "price", api="from shop.money import rounded\n")
    assert code.module == "from shop.api import rounded\nfrom . import rates as known\nfrom shop.rates import Shelf"
    assert code.others["shop/money.py"] == 'def rounded(value):\n    """A value with two digits."""\n    ...'
    assert 'def rate_of(country):\n    """The rate of a country."""\n    ...' in code.others["shop/rates.py"]
    assert "def left(self, used):" in code.others["shop/rates.py"] and "TABLE" not in code.others["shop/rates.py"]
    assert code.unresolved == set()


def test_a_method_is_shown_in_its_class_with_what_it_uses() -> None:
    module = (
        "from shop.rates import Shelf\n\n\nclass Basket(Shelf):\n    '''Things.'''\n\n    LIMIT = 3\n    OTHER = 4\n\n"
        "    def __init__(self, owner):\n        super().__init__(9)\n        self.owner = owner\n        self.things = {}\n\n"
        "    @property\n    def full(self):\n        return len(self.things) >= self.LIMIT\n\n    def name(self):\n        return self.owner\n\n"
        "    def put(self, key):\n        '''Put a thing in.'''\n        if not self.full and self.left(1) and self.LIMIT:\n"
        "            self.things[key] = 1\n"
    )
    code = needed(module, "Basket.put")
    assert "class Basket(Shelf):" in code.head and "LIMIT = 3" in code.head and "self.things = {}" in code.head
    assert "def full(self):" in code.head and "OTHER" not in code.head and "def name" not in code.head
    assert (
        code.head.endswith("    def put(self, key):\n        '''Put a thing in.'''\n") and code.indentation == " " * 8
    )
    assert "def left(self, used):" in code.others["shop/rates.py"]  # a method of the base class in another file


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        ("try:\n    import numpy as np\nexcept ImportError:\n    np = None\n\n\ndef f(x):\n    return np or x\n", "except ImportError:"),
        ("A = 1\nB = A + 1\n\n\ndef f(x):\n    return x + B\n", "A = 1\nB = A + 1"),
        ("_seen = {}\n\n\ndef f(x):\n    global _seen\n    _seen = {x: 1}\n    return _seen\n", "_seen = {}"),
        ("from typing import overload\n\n\n@overload\ndef g(x: int): ...\n\n\n@overload\ndef g(x: str): ...\n\n\n"
         "def g(x):\n    return x\n\n\ndef f(x):\n    return g(x)\n", "def g(x):\n    return x"),
        ("import enum\n\n\nclass Kind(enum.Enum):\n    A = 1\n    B = 2\n\n\ndef f(x):\n    return [Kind.A for Kind.B in x]\n", "B = 2"),
        ("if True:\n    def g(x):\n        return x\n\n\ndef f(x):\n    return (lambda y: g(y))(x)\n", "def g(x):"),
    ],
)  # fmt: skip
def test_every_way_to_bind_a_name_is_resolved(module: str, shown: str) -> None:
    code = needed(module, "f")
    assert shown in code.module and code.unresolved == set()


@pytest.mark.parametrize(
    "body", ["return MISSING + x", "return [y + MISSING for y in x]", "class A:\n        b = MISSING\n    return A"]
)
def test_a_name_that_nothing_defines_is_unresolved(body: str) -> None:
    code = needed(f"def f(x):\n    {body}\n", "f")
    assert code.unresolved == {"MISSING"}


def test_local_names_builtins_and_names_of_nested_functions_need_no_definition() -> None:
    module = (
        "def f(x, *rest, **named):\n    import os\n    def inner(y):\n        return y + total + len(__name__)\n    total = 0\n"
        "    for item in rest:\n        total += item\n    try:\n        return inner(x), os, {k: v for k, v in named.items()}\n"
        "    except ValueError as error:\n        raise TypeError from error\n"
    )
    code = needed(module, "f")
    assert (code.module, code.unresolved) == ("", set())


def test_needed_code_above_the_limit_is_shortened() -> None:
    table = "TABLE = {" + ", ".join(f"'key {n}': {n}" for n in range(200)) + "}"
    module = f"{table}\n\n\ndef f(x):\n    return TABLE[x]\n"
    assert "'key 199': 199" not in needed(module, "f").module
    short = needed(module, "f", characters=100).module
    assert short == "TABLE = {'key 0': 0, 'key 1': 1}  # and 198 more"


SUITE = {
    "tests/conftest.py": "import pytest\n\n\n@pytest.fixture\ndef till():\n    return [5]\n",
    "tests/test_a.py": (
        "import unittest\n\nimport pytest\nfrom shop.prices import rounded as r\n\nTENS = {11: 10}\nOTHER = 4\n\n\n"
        "def check(value):\n    return r(value, 10)\n\n\n@pytest.mark.parametrize('a, b', [(1, 0), (6, 10), (9, 10)], ids=list('abc'))\n"
        "def test_many(a, b):\n    assert r(a, 10) == b\n\n\ndef test_tens(till):\n    for key, value in TENS.items():\n"
        "        assert check(key) == value, till\n\n\nclass TestClass(unittest.TestCase):\n    step = 5\n\n    def setUp(self):\n"
        "        self.value = 7\n\n    def test_five(self):\n        assert r(self.value, self.step) == 5\n\n    def test_other(self):\n"
        "        assert OTHER\n"
    ),
}
MANY = [f"tests/test_a.py::test_many[{case}]" for case in "abc"]
ALL = [
    *MANY,
    "tests/test_a.py::test_tens",
    "tests/test_a.py::TestClass::test_five",
    "tests/test_a.py::TestClass::test_other",
]


def test_shown_tests_come_with_imports_tables_helpers_and_fixtures() -> None:
    code = code_of_tests(SUITE, ALL, ["tests/test_a.py::test_tens"], 2000)
    for part in ("from shop.prices import rounded as r", "TENS = {11: 10}", "def check(value):",
                 "@pytest.fixture\ndef till():", "def test_tens(till):"):  # fmt: skip
        assert part in code
    assert "OTHER" not in code and "test_many" not in code and "unittest" not in code


def test_shown_methods_come_with_their_class_and_its_set_up() -> None:
    code = code_of_tests(SUITE, ALL, ["tests/test_a.py::TestClass::test_five"], 2000)
    for part in (
        "import unittest",
        "class TestClass(unittest.TestCase):",
        "step = 5",
        "self.value = 7",
        "    def test_five(self):",
    ):
        assert part in code
    assert "test_other" not in code


def test_a_parametrized_test_is_shown_with_its_cases_and_without_hidden_ones() -> None:
    whole = code_of_tests(SUITE, ALL, MANY, 2000)
    assert (
        "@pytest.mark.parametrize('a, b', [(1, 0), (6, 10), (9, 10)], ids=list('abc'))\ndef test_many(a, b):" in whole
    )
    part = code_of_tests(SUITE, ALL, MANY[1:2], 2000)
    assert "@pytest.mark.parametrize('a, b', [(6, 10)])\ndef test_many(a, b):" in part and "(9, 10)" not in part
    assert can_divide(SUITE, ALL, "tests/test_a.py::test_many") and not can_divide(
        SUITE, ALL, "tests/test_a.py::test_tens"
    )


def test_tests_that_name_the_function_are_shown_first_and_short_ones_before_long_ones() -> None:
    ranks = rank_of_tests(SUITE, "rounded", ALL)
    visible, hidden = split_names("key", ALL, 0.5, ranks)
    assert visible == [*MANY, "tests/test_a.py::TestClass::test_five"]
    assert hidden == ["tests/test_a.py::test_tens", "tests/test_a.py::TestClass::test_other"]
    assert split_names("key", MANY, 0.5, divide=False) == ([], MANY)


@pytest.mark.parametrize(
    ("source", "present", "absent"),
    [
        ("def f(a, *, b=None):\n    x = a\n    return x + 1\n", ["pass", "return a", "return b", "return []", 'return ""', "return True"], ["return ()"]),
        ("def f(a):\n    a.append(1)\n", ["pass", "raise ValueError"], ["return a", "return True"]),
        ("def f(a):\n    if a:\n        raise KeyError(a)\n    return -1\n", ["raise KeyError", "return -1"], ["raise ValueError"]),
        ("def f(a):\n    for x in a:\n        yield x\n", ["return\n    yield", "yield from a"], []),
        ("class A:\n    def f(self, x):\n        return tuple(x)\n", ["return self", "return tuple()", "return x"], []),
    ],
)  # fmt: skip
def test_trivial_bodies_are_constants_arguments_exceptions_and_nothing(
    source: str, present: list[str], absent: list[str]
) -> None:
    bodies = [body.strip() for body in trivial_bodies(functions("a.py", source)[0])]
    assert set(present) <= set(bodies) and not set(absent) & set(bodies) and len(set(bodies)) == len(bodies)


SCRIPT = """'use strict';
import { half as less, other } from './round.js';
import * as path from 'node:path';

const LIMIT = 100, UNUSED = 4;
const big = (value) => {
  const doubled = value * 2;
  return doubled > LIMIT;
};

/** A basket. */
export class Basket {
  static most = 3;
  #seen = 0;

  constructor(limit) {
    this.limit = limit;
    this.items = [];
  }

  size() {
    return this.items.length;
  }

  unrelated() {
    return 7;
  }

  /** Put a thing in. */
  add(item) {
    if (this.size() < this.limit && big(item)) {
      this.items.push(less(item), path.sep);
    }
    return this;
  }
}
"""
ROUND = "/** Half of a value. */\nexport function half(value) {\n  return value / 2;\n}\nexport function other() {\n  return 1;\n}\n"


def js_needed(text: str, name: str, path: str = "lib/a.js", **files: str) -> JsNeededCode:
    texts = {path: text, "lib/round.js": ROUND, **files}
    (function,) = [item for item in js_functions(path, text) if item.name == name]
    return js_needed_code(texts, function)


def test_a_method_in_javascript_is_shown_in_its_class_with_what_it_uses() -> None:
    code = js_needed(SCRIPT, "Basket.add")
    for part in ("import { half as less, other } from './round.js';", "import * as path from 'node:path';", "export class Basket {",
                 "this.items = [];", "  size() { ... }", "  /** Put a thing in. */\n  add(item) {", "const big = (value) =>"):  # fmt: skip
        assert part in code.head
    assert "unrelated" not in code.head and "UNUSED" not in code.head and code.tail == "  }\n}"
    assert code.others == {
        "lib/round.js": "/** Half of a value. */\nexport function half(value) { ... }".replace("export ", "")
    }
    assert code.unresolved == set()


@pytest.mark.parametrize(
    ("text", "name", "unresolved"),
    [
        ("exports.f = (a, { b, c: [d] }, ...rest) => {\n  for (const x of rest) a += x + b + d;\n  return Math.max(a);\n};\n", "f", set()),
        ("function f(a) {\n  return missing(a) + Number(a);\n}\n", "f", {"missing"}),
        ("function f(a) {\n  try { a(); } catch ({ message }) { return { message, f }; }\n}\n", "f", set()),
        ("(function (root) {\n  var KEY = 1;\n  root.f = function (a) { return KEY + root.x + a.KEY2; };\n})(globalThis);\n", "root.f", set()),
        ("const o = {\n  size: 3,\n  total() {\n    return this.size;\n  },\n};\n", "o.total", set()),
    ],
)  # fmt: skip
def test_names_in_javascript_are_resolved_in_their_scopes(text: str, name: str, unresolved: set[str]) -> None:
    code = js_needed(text, name)
    assert code.unresolved == unresolved and "(root)" not in code.declarations


def test_types_of_typescript_are_shown_and_no_line_is_cut() -> None:
    text = (
        "interface Item { price: number }\ntype Other = string;\nexport function total(items: Item[]): number {\n"
        "  let sum = 0;\n  for (const item of items) sum += item.price;\n  return sum;\n}\n"
    )
    code = js_needed(text, "total", "lib/a.ts")
    (function,) = js_functions("lib/a.ts", text)
    assert code.declarations == ["interface Item { price: number }"]
    assert js_prompt("shop", function, code, "").endswith(
        "```typescript\ninterface Item { price: number }\n\nexport function total(items: Item[]): number {\n  // write this body\n}\n```"
    )


def test_tests_in_javascript_are_shown_with_their_imports_and_data() -> None:
    text = (
        "const { test, describe } = require('node:test');\nconst assert = require('node:assert');\nconst { half } = require('../lib/round.js');\n"
        "const TABLE = [[2, 1]];\nconst OTHER = 3;\n\ndescribe('half', () => {\n  test('of the table', () => {\n"
        "    for (const [a, b] of TABLE) assert.equal(half(a), b);\n  });\n  test('of none', () => {\n    assert.equal(OTHER, 3);\n  });\n});\n"
    )
    names = ["test/a.test.js::half > of none", "test/a.test.js::half > of the table"]
    ranks = js_rank_of_tests({"test/a.test.js": text}, "half", names)
    code = js_code_of_tests({"test/a.test.js": text}, sorted(names, key=ranks.__getitem__)[:1], 1000)
    for part in (
        "const TABLE = [[2, 1]];",
        "const { half } = require('../lib/round.js');",
        "test('of the table', () => {\n  for (",
    ):
        assert part in code
    assert "OTHER" not in code and "describe(" not in code


def test_trivial_bodies_in_javascript_follow_what_the_function_returns() -> None:
    text = "class A {\n  f(a) {\n    if (!a) throw new RangeError('x');\n    return a + 1;\n  }\n  g(a) {\n    this.a = a;\n  }\n}\n"
    first, second = js_functions("a.js", text)
    shown = [re.sub(r"\s+", " ", item.partition("{")[2].rpartition("}")[0]).strip() for item in js_trivial(text, first)]
    assert {"", "throw new RangeError();", "return a;", "return this;", "return null;", "return [];"} <= set(shown)
    assert len(js_trivial(text, second)) == 2


def _cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CASES.read_text().splitlines()] if CASES.is_file() else []


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_file(), reason="the file of cases is not here")
@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["id"])
def test_cases(case: dict[str, Any], tmp_path: Path, grader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
    folder, out, check = tmp_path / "shop", tmp_path / "out", case["check"]
    write_files(folder, case["input"])
    settings = TaskSettings(mutants=2, forgeable_share=1.0)
    if check.get("dropped"):
        with pytest.raises(ValueError, match=r"trivial_body_passes|passes_when_masked|weak_tests"):
            run_builder("tasks", out, sources=[folder], settings=settings)
        return
    run_builder("tasks", out, sources=[folder], settings=settings)
    rows = [json.loads(line) for line in (out / "tasks.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["entry_point"] == check["function"]]
    assert all(text in row["prompt"] for text in check["prompt"].get("contains", []))
    assert all(re.search(pattern, row["prompt"]) for pattern in check["prompt"].get("matches", []))
