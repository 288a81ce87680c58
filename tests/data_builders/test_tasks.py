"""Tasks from Python repositories, including tests that fail, hang, need the network, or do not exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder, write_files

from data_builders.tasks.task_tiers import cap_forgeable, tier_lines
from data_builders.tasks.validation import TaskSettings

MODULE = '''"""Prices."""

KEY = "{secret}"


def discount(price, percent):
    """The price less a share of it, never below nothing."""
    reduced = price - price * percent / 100
    return max(0, round(reduced, 2))


def shout(text):
    """Text in capitals, with as many marks as it has words."""
    count = len(text.split())
    return text.upper() + "!" * count


def untested(a, b):
    return a * b + a


class Basket:
    """Things with prices."""

    def __init__(self):
        self.items = []

    def add(self, name, price):
        """Put a thing in; returns the basket."""
        self.items.append((name, price))
        return self

    def total(self):
        """The sum of all prices."""
        result = 0
        for _, price in self.items:
            result += price
        return result
'''
GOOD = """import pytest
from shop.prices import Basket, discount, shout


@pytest.mark.parametrize("price, percent, expected", [(100, 10, 90), (3, 50, 1.5), (10, 200, 0)])
def test_discount(price, percent, expected):
    assert discount(price, percent) == expected


def test_discount_rounds():
    assert discount(9.99, 33) == 6.69


def test_basket():
    assert Basket().add("a", 2).add("b", 3).total() == 5


def test_basket_of_one():
    basket = Basket()
    assert basket.add("a", 2) is basket and basket.total() == 2
"""
BAD = {
    "tests/test_failing.py": "from shop.prices import shout\n\n\ndef test_shout():\n    assert shout('a b') == 'no'\n",
    "tests/test_network.py": "import urllib.request\n\n\ndef test_page():\n    urllib.request.urlopen('http://example.com', timeout=1)\n",
    "tests/test_writes.py": "def test_write():\n    open('report.txt', 'w').write('x')\n",
    "tests/test_slow.py": "import time\n\n\ndef test_slow():\n    time.sleep(2.2)\n",
    "tests/test_package.py": "def test_package():\n    import numbers_of_the_firm\n",
    "tests/test_collection.py": "import package_that_nobody_has\n",
    "tests/test_ends.py": "import os\n\n\ndef test_end():\n    os._exit(0)\n",
    "tests/test_skipped.py": "import pytest\n\n\n@pytest.mark.skip\ndef test_later():\n    pass\n",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "shop"
    files: dict[str, str | bytes] = {
        "shop/__init__.py": "", "shop/prices.py": MODULE.replace("{secret}", "none"), "tests/test_prices.py": GOOD, **BAD,
    }  # fmt: skip
    write_files(folder, files)
    return folder


@pytest.fixture(scope="module")
def built(shop: Path, tmp_path_factory: pytest.TempPathFactory, grader: Any) -> Any:
    """(rows, account) of two independent builds of the shop."""
    builds = []
    with pytest.MonkeyPatch.context() as patch:
        for number in range(2):
            patch.setenv("ALIGN_SUITES", str(tmp_path_factory.mktemp("suites")))
            out = tmp_path_factory.mktemp(f"tasks{number}")
            run_builder("tasks", out, sources=[shop], settings=TaskSettings(forgeable_share=1.0))
            rows = [json.loads(line) for line in (out / "tasks.jsonl").read_text().splitlines()]
            builds.append((rows, json.loads((out / "account.json").read_text())["shop"]))
        yield builds


pytestmark = pytest.mark.slow


def test_functions_covered_by_two_tests_become_tasks_or_are_counted_by_reason(built: Any) -> None:
    rows, account = built[0]
    assert {row["entry_point"]: row["forgeable"] for row in rows} == {
        "discount": False, "__init__": False, "add": False, "total": False,
    }  # fmt: skip
    assert account["covered_by_two"] == account["valid"] + sum(account["dropped_of_covered"].values())


def test_unusable_tests_are_counted_by_reason(built: Any) -> None:
    outcomes = built[0][1]["outcomes"]
    assert outcomes == {
        "ends_the_process": 1, "failed": 1, "needs_network_or_database": 1,
        "needs_package: numbers_of_the_firm": 1, "passed": 6, "skipped": 1, "slow": 1,
        "writes_into_the_repository": 1,
    }  # fmt: skip


def test_the_advice_names_remedies(built: Any) -> None:
    lines = "\n".join(built[0][1]["advice"])
    for words in (
        "No module named 'package_that_nobody_has' (install it into the environment that `tests.interpreter` names)",
        "tests need packages that are not installed: numbers_of_the_firm", "1 tests need the network",
    ):  # fmt: skip
        assert words in lines


def test_a_second_build_gives_the_same_tasks(built: Any) -> None:
    assert built[0][0] == built[1][0]


def test_the_prompt_contains_neither_the_body_nor_a_hidden_test(built: Any) -> None:
    for row in built[0][0]:
        tests = json.loads(row["tests"])
        assert tests["hidden"] and not set(tests["hidden"]) & set(tests["visible"])
        for name in tests["hidden"]:
            function = name.partition("[")[0].rpartition("::")[2]
            shown = any(function == other.partition("[")[0].rpartition("::")[2] for other in tests["visible"])
            assert shown or f"def {function}(" not in row["prompt"]
        body = row["reference"].split('"""\n')[-1]
        assert body.strip() not in row["prompt"]


def test_the_reference_passes(built: Any, grader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in built[1][0]:
        assert grader.grade_many([(row, row["reference"])])[0].status == "passed"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"shop/prices.py": MODULE}, "no tests were collected: name their folders with `tests.paths`"),
        ({"shop.py": "from _speedups import fast\n", "test_shop.py": "import shop\n\ndef test_a():\n    shop.fast()\n"},
         "No module named '_speedups'"),
        ({"shop.py": "def f(x):\n    y = x\n    return y\n", "test_shop.py": "import shop\n\ndef test_a():\n    assert shop.f(1)\n"},
         "too_few_tests 1"),
    ],
)  # fmt: skip
def test_a_repository_without_tasks_is_an_error_with_the_reason(
    files: dict[str, str | bytes], expected: str, tmp_path: Path, grader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
    write_files(tmp_path / "shop", files)
    with pytest.raises(ValueError) as caught:
        run_builder("tasks", tmp_path / "out", sources=[tmp_path / "shop"])
    assert expected in str(caught.value) and (tmp_path / "out" / "account.json").is_file()


def test_tests_beyond_the_time_budget_are_counted_and_left_out(
    tmp_path: Path, grader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
    slow = "import time, pytest\n\n\n@pytest.mark.parametrize('n', range(200))\ndef test_n(n):\n    time.sleep(0.5)\n"
    write_files(
        tmp_path / "shop",
        {"shop/__init__.py": "", "shop/prices.py": MODULE, "tests/test_a.py": GOOD, "tests/test_b.py": slow},
    )
    summary = run_builder("tasks", tmp_path / "out", sources=[tmp_path / "shop"], tests={"budget_seconds": 15}, settings=TaskSettings(forgeable_share=1.0))  # fmt: skip
    account = summary["repositories"]["shop"]
    assert summary["tasks"] == 4 and account["outcomes"]["over_budget"] > 50
    assert any("not reached within `tests.budget_seconds`" in item for item in account["advice"])


def test_a_secret_near_a_function_is_redacted_in_the_prompt(
    tmp_path: Path, grader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
    key = "AK" + "IA" + "QX7ZK2M9PLW4RT8V"
    used = "    reduced = price - price * percent / 100 + 0 * len(KEY)\n"
    module = MODULE.replace("{secret}", key).replace("    reduced = price - price * percent / 100\n", used)
    module = module.replace('"""Things with prices."""', '"""Things with prices, see grace@' + 'shop-of-grace.com."""')
    write_files(tmp_path / "shop", {"shop/__init__.py": "", "shop/prices.py": module, "tests/test_a.py": GOOD})
    summary = run_builder(
        "tasks", tmp_path / "out", sources=[tmp_path / "shop"], settings=TaskSettings(forgeable_share=1.0)
    )
    account = summary["repositories"]["shop"]
    assert (summary["tasks"], account["left_out"], account["redacted_contexts"]) == (4, {}, 4)
    shown = (tmp_path / "out" / "tasks.jsonl").read_text()
    assert "KEY = " in shown and key not in shown and "shop-of-grace" not in shown


def test_the_report_says_which_setting_takes_the_forgeable_tasks_that_are_left_out() -> None:
    counts = {"valid": 20, "tier_a": 12, "tier_b": 8, "rows": 17, "left_out": {"above_forgeable_share": 3}}
    (line,) = tier_lines({"shop": counts | {"tier_b_reasons": {"not_tried": 2, "passes_objects": 6}}})
    assert line.startswith(
        "shop: 17 of 20 valid tasks are written; 12 are of tier A, 8 of tier B. Left out: 3 of tier B (15%"
    )
    assert "`settings.forgeable_share: 1` takes them" in line and "on 40% of the tasks" in line
    assert line.index("cannot be copied (6)") < line.index("coroutine")


def test_forgeable_tasks_are_capped_and_the_best_mutation_scores_stay() -> None:
    rows = [{"id": str(n), "forgeable": n % 2 == 1, "mutation_score": n / 10} for n in range(10)]
    capped = cap_forgeable(rows, 0.3)
    assert [row["id"] for row in capped if row["forgeable"]] == ["7", "9"] and len(capped) == 7
