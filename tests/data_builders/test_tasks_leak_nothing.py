"""Secrets, benchmark texts and held-out code are in no executable task, repair task, account or card."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from corpus_helpers import commit, git, run_builder
from test_no_leaks import SOLUTION, TASK, contents

from alignment.recipe.stage_request import BenchmarkRows, ScreenTargets
from alignment.tokenization.screen import ContaminationScreen
from data_builders.repositories.sources import Source
from data_builders.tasks.validation import TaskSettings

pytestmark = pytest.mark.slow
SECRETS = {
    "body": "hunter2-but-longer",
    "test": "Tr0ub4dor-und-3",
    "error": "s3cr3t-d4tabase-pw",
    "name of a test": "AK" + "IA" + "QX7ZK2M9PLW4RT8V",
}
PRICES = '''"""Prices."""


def discount(price, percent):
    """The price less a share of it, never below nothing."""
    reduced = price - price * percent / 100
    return max(0, round(reduced, 2))


def allowed(name, password):
    """Whether somebody may come in."""
    known = {"shop": 10, "grace": 15}
    return len(password) >= 8 and known.get(name, 0) == len(password) % 16
'''
BASE = '''def address_of(host, port):
    """Where the database listens."""
    return f"postgres://shop:{secret}@{host}:{port}/orders"
'''.replace("{secret}", SECRETS["body"])
TESTS = f'''import pytest
from shop.base import address_of
from shop.prices import allowed, discount
from shop.solved import quagmire_total


def test_a_tenth():
    assert discount(100, 10) == 90


def test_never_below_nothing():
    assert discount(10, 200) == 0


@pytest.mark.parametrize("percent", [50], ids=["{SECRETS["name of a test"]}"])
def test_half(percent):
    assert discount(100, percent) == 50


def test_address():
    assert address_of("db", 1).endswith("@db:1/orders")


def test_address_of_another():
    assert address_of("other", 2).endswith("@other:2/orders")


def test_allowed():
    password = "{SECRETS["test"]}"
    assert allowed("grace", password)


def test_not_allowed():
    password = "{SECRETS["test"]}"
    assert not allowed("shop", password)


def test_nobody_is_allowed():
    password = "{SECRETS["test"]}"
    assert not allowed("nobody", password)


class Row:
    def __init__(self, weight):
        self.weight = weight


def test_sum_of_none():
    assert quagmire_total([], 3) == 0


def test_sum():
    assert quagmire_total([Row(1), Row(5), Row(2)], 4) == 3
'''
BROKEN = f'raise RuntimeError("no answer from postgres://shop:{SECRETS["error"]}@db.internal:5432/orders")\n'
NEW = '''

def overdue(orders, today, grace=14):
    """Orders that should have been paid, oldest first."""
    late = [order for order in orders if not order["paid"]]
    late = [order for order in late if (today - order["day"]) > grace]
    return sorted(late, key=lambda order: order["day"])
'''
NEW_TESTS = """from {module} import overdue

ORDERS = [{{"paid": False, "day": 1}}, {{"paid": False, "day": 0}}]


def test_overdue():
    assert overdue(ORDERS, 20) == [ORDERS[1], ORDERS[0]]


def test_overdue_with_grace():
    assert overdue(ORDERS, 20, grace=19) == [ORDERS[1]]
"""


def make(folder: Path, files: dict[str, str | bytes], later: dict[str, str | bytes]) -> Source:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "Lay the ground for the project", files)
    commit(folder, "Find orders that are overdue", later)
    return Source.model_validate(folder)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, grader: Any) -> SimpleNamespace:
    """Tasks of a split repository with planted secrets and a benchmark solution, and of one with a copy of held-out
    code.
    """
    base = tmp_path_factory.mktemp("firm")
    firm = make(base / "shop", {
        "shop/__init__.py": "", "shop/prices.py": PRICES, "shop/base.py": BASE, "shop/solved.py": SOLUTION, "tests/test_prices.py": TESTS,
        "tests/test_broken.py": BROKEN,
    }, {"shop/late.py": NEW, "tests/test_late.py": NEW_TESTS.format(module="shop.late")})  # fmt: skip
    copy = make(base / "copy", {"orders.py": NEW}, {"test_orders.py": NEW_TESTS.format(module="orders")})
    split = firm.model_copy(update={"held_out": 0.5})
    benchmark = base / "hidden.jsonl"
    benchmark.write_text(json.dumps(TASK) + "\n")
    settings = TaskSettings(forgeable_share=1.0, mutants=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_SUITES", str(base / "suites"))
        run_builder("private_benchmark", base / "own", sources=[split], executable=False)
        run_builder("tasks", base / "raw", sources=[split, copy], settings=settings)
        clean = run_builder(
            "tasks",
            base / "tasks",
            sources=[split, copy],
            settings=settings,
            decontaminate=[benchmark, base / "own" / "fim.jsonl"],
        )
    return SimpleNamespace(
        raw=base / "raw", out=base / "tasks", summary=clean, own=base / "own", benchmark=benchmark, head=git(base / "copy", "rev-parse", "HEAD")
    )  # fmt: skip


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "tasks.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("place", SECRETS)
def test_a_planted_secret_is_in_no_task_account_or_card(place: str, built: SimpleNamespace) -> None:
    assert SECRETS[place] not in contents(built.raw)


def test_functions_left_out_are_counted_by_reason_and_the_others_stay(built: SimpleNamespace) -> None:
    assert [row["entry_point"] for row in rows_of(built.out)] == ["discount", "allowed"]
    left_out = {name: account["left_out"] for name, account in built.summary["repositories"].items()}
    assert left_out == {"shop": {"secret_in_body": 1, "contaminated": 1}, "copy": {"contaminated": 1}}


def test_held_out_code_and_benchmark_tasks_are_screened_from_rl_tasks(built: SimpleNamespace, tmp_path: Path) -> None:
    names = {row["entry_point"] for row in rows_of(built.raw)}
    assert names == {"discount", "allowed", "quagmire_total", "overdue"}
    own = BenchmarkRows(name="own", benchmark="fim", data=str(built.own / "fim.jsonl"))
    screen = ContaminationScreen.for_targets(ScreenTargets(benchmarks=(own,), paths=(built.benchmark,)), tmp_path)
    data = SimpleNamespace(data=str(built.raw / "tasks.jsonl"), rows=None, format=None)
    assert [row["entry_point"] for _, row in screen.clean_rows(data, Counter())] == ["discount", "allowed"]


def test_the_card_has_sources_commits_languages_reasons_settings_and_hash(built: SimpleNamespace) -> None:
    card = (built.out / "README.md").read_text()
    digest = hashlib.sha256(hashlib.sha256((built.out / "tasks.jsonl").read_bytes()).digest()).hexdigest()
    for words in (
        f"| sha256 | {digest} |", f"copy {built.head}", "## Languages", "| python | 2 |", "## Removed", "| contaminated | 2 |",
        "| secret_in_body | 1 |", "## Settings", '"min_mutation_score": 0.5', '"hidden.jsonl"',
    ):  # fmt: skip
        assert words in card


REPAIR_SECRETS = {
    "commit message": "gh" + "p_b7Kq9ZtR2mXw5LpV8sYd3NfH6jGc1QaE4uTo",
    "changed code": "s3cr3t-d4tabase-pw",
    "name of a new test": "AK" + "IA" + "RT8VX7ZK2M9PLW4Q",
}
FREIGHT_TESTS = """import pytest
from shop.freight import freight


@pytest.mark.parametrize("weight", [2], ids=["{name}"])
def test_light(weight):
    assert freight(weight) == 5


def test_heavy():
    assert freight(20) == 14
"""
SOLVED_TESTS = """from shop.solved import quagmire_total
from test_prices import Row


def test_sum_of_none():
    assert quagmire_total([], 3) == 0


def test_sum():
    assert quagmire_total([Row(1), Row(5), Row(2)], 4) == 3
"""


@pytest.fixture(scope="module")
def repairs(tmp_path_factory: pytest.TempPathFactory, grader: Any) -> Path:
    """Repair tasks from commits with secrets, and from a commit that adds the solution of a benchmark task."""
    base = tmp_path_factory.mktemp("repairs")
    tests = TESTS.replace("from shop.base import address_of\n", "").replace(
        "from shop.solved import quagmire_total\n", ""
    )
    tests = (
        tests.partition("def test_address()")[0]
        + "class Row:\n    def __init__(self, weight):\n        self.weight = weight\n"
    )
    firm = base / "shop"
    firm.mkdir()
    git(firm, "init", "-q", "-b", "main")
    commit(firm, "Lay the ground for the project", {
        "shop/__init__.py": "", "shop/prices.py": PRICES, "tests/test_prices.py": tests, "tests/test_broken.py": BROKEN,
    })  # fmt: skip
    commit(firm, f"Compute freight by weight\n\nUse the account {REPAIR_SECRETS['commit message']} for the tables.", {
        "shop/freight.py": "def freight(weight):\n    return 5 if weight < 3 else 4 + weight // 2\n",
        "tests/test_freight.py": FREIGHT_TESTS.format(name=REPAIR_SECRETS["name of a new test"]),
    })  # fmt: skip
    commit(firm, "Say where the database of orders listens", {
        "shop/base.py": BASE.replace(SECRETS["body"], REPAIR_SECRETS["changed code"]),
        "tests/test_base.py": "from shop.base import address_of\n\n\ndef test_port():\n    assert address_of('db', 1).endswith('@db:1/orders')\n\n\n"
        "def test_host():\n    assert '@db2:' in address_of('db2', 1)\n",
    })  # fmt: skip
    commit(
        firm,
        "Sum the weights of the lightest rows first",
        {"shop/solved.py": SOLUTION, "tests/test_solved.py": SOLVED_TESTS},
    )
    commit(
        firm,
        "Find orders that are overdue",
        {"shop/late.py": NEW, "tests/test_late.py": NEW_TESTS.format(module="shop.late")},
    )
    benchmark = base / "hidden.jsonl"
    benchmark.write_text(json.dumps(TASK) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_SUITES", str(base / "suites"))
        run_builder(
            "commit_tasks", base / "tasks", sources=[{"path": firm, "license": "owned"}], decontaminate=[benchmark]
        )
    return base / "tasks"


@pytest.mark.parametrize("place", REPAIR_SECRETS)
def test_a_planted_secret_is_in_no_repair_task(place: str, repairs: Path) -> None:
    assert REPAIR_SECRETS[place] not in contents(repairs)
    assert SECRETS["error"] not in contents(repairs), "of a broken test module"


def test_repair_tasks_with_secrets_in_the_answer_or_benchmark_code_are_counted(repairs: Path) -> None:
    titles = [row["prompt"].split("\n\n")[1] for row in rows_of(repairs)]
    assert titles == ["Find orders that are overdue", "Compute freight by weight"]
    counts = json.loads((repairs / "account.json").read_text())["shop"]
    assert counts["dropped"] == {"secret_in_body": 1, "contaminated": 1}
