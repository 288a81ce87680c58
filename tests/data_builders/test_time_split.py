"""A repository split by time: new code is in the benchmark, and in no training row."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from corpus_helpers import MakeRepository, commit, git, run_builder

from alignment.recipe.stage_request import BenchmarkRows, ScreenTargets
from alignment.tokenization.screen import ContaminationScreen
from data_builders.builder_registry import find_builder
from data_builders.cleaning.held_out import Bodies
from data_builders.private_benchmark import code_pieces
from data_builders.repositories.sources import Source, read_texts, resolve

OLD = '''"""Orders."""


def total(orders, rate):
    """The sum of all orders with tax."""
    result = 0
    for order in orders:
        price = order["price"] * order["count"]
        result += price + price * rate
    return round(result, 2)
'''
NEW = '''

def overdue(orders, today, grace=14):
    """Orders that should have been paid, oldest first."""
    late = [order for order in orders if not order["paid"]]
    late = [order for order in late if (today - order["day"]) > grace]
    return sorted(late, key=lambda order: order["day"])
'''
BODY = NEW.split('first."""\n')[1].rstrip("\n")
TESTS = """from shop.orders import total

ORDERS = [{"price": 2, "count": 3, "paid": False, "day": 1}, {"price": 1, "count": 1, "paid": False, "day": 0}]


def test_total():
    assert total(ORDERS, 0.5) == 10.5


def test_total_of_nothing():
    assert total([], 0.5) == 0
"""
NEW_TESTS = """

from shop.orders import overdue


def test_overdue():
    assert overdue(ORDERS, 20) == [ORDERS[1], ORDERS[0]]


def test_overdue_with_grace():
    assert overdue(ORDERS, 20, grace=19) == [ORDERS[1]]


def test_not_overdue():
    assert overdue(ORDERS, 3) == []
"""


@pytest.fixture
def shop(repository: MakeRepository) -> Path:
    folder = repository({"shop/__init__.py": "", "shop/orders.py": OLD, "tests/test_orders.py": TESTS}, name="shop")
    for number in range(3):
        commit(folder, f"Say more in the notes, part {number}", {"NOTES.md": f"Part {number} of the notes.\n"})
    commit(folder, "Find orders that are overdue", {
        "shop/orders.py": OLD + NEW, "tests/test_orders.py": TESTS + NEW_TESTS,
        "shop/moved.py": OLD.replace("def total", "def sum_of_all"),
        "web/app.js": "".join(f"export const field{n} = readField('name{n}', {n});\n" for n in range(6)),
    })  # fmt: skip
    return folder


def states(builder: str, sources: list[Source]) -> Any:
    """Return the state of the sources that is part of a builder's fingerprint."""
    loaded = find_builder(builder)
    assert loaded.input_state is not None
    return loaded.input_state(loaded.validate({"sources": sources}))


def source(folder: Path, **settings: Any) -> Source:
    return Source.model_validate({"path": folder, **settings})


def test_a_share_splits_before_the_newest_commits(shop: Path) -> None:
    (split,) = resolve([source(shop, held_out=0.2)])
    assert (split.commit, split.head) == (git(shop, "rev-parse", "HEAD~1"), git(shop, "rev-parse", "HEAD"))


def test_a_date_splits_after_the_last_commit_before_it(repository: MakeRepository) -> None:
    folder = repository({"a.py": "x = 1\n"})  # all commits of the helpers are dated 2024-01-01
    assert resolve([source(folder, before="2024-01-02")])[0].head == ""
    with pytest.raises(ValueError, match="no commit before 2023-12-31: choose a later date"):
        resolve([source(folder, before="2023-12-31")])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"before": "last week"}, "is not a date"),
        ({"before": "2024-01-01", "held_out": 0.1}, "give either"),
        ({"held_out": 1.0}, r"held_out\n.*less than 1"),
    ],
)
def test_contradicting_or_wrong_split_settings_are_refused(shop: Path, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        source(shop, **settings)


def test_a_folder_without_history_and_too_few_commits_are_errors(repository: MakeRepository, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(ValueError, match="no history to split by time"):
        resolve([source(tmp_path / "plain", held_out=0.1)])
    with pytest.raises(ValueError, match="has 1 commits: too few"):
        resolve([source(repository({"a.py": ""}), held_out=0.1)])


def test_a_new_commit_after_the_split_changes_the_state_of_the_benchmark_only(shop: Path) -> None:
    sources = [source(shop, before="2024-01-02", commit="HEAD~1"), source(shop, held_out=0.4)]
    before = states("corpus", sources), states("private_benchmark", sources)
    assert before[0] == [state[:2] for state in before[1]]
    assert before[1][1][2] == git(shop, "rev-parse", "HEAD")


@pytest.fixture
def benchmark(shop: Path, tmp_path: Path) -> Path:
    out = tmp_path / "benchmark"
    run_builder("private_benchmark", out, sources=[source(shop, held_out=0.2)], executable=False)
    return out


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_new_code_is_in_the_benchmark_and_moved_code_is_not(benchmark: Path) -> None:
    rows = rows_of(benchmark / "fim.jsonl")
    assert [row["id"] for row in rows] == ["shop/shop/orders.py:13:overdue", "shop/web/app.js:1:"]
    assert rows[0]["middle"] == BODY and rows[0]["prefix"] + BODY + rows[0]["suffix"] == OLD + NEW
    assert json.loads((benchmark / "account.json").read_text())["shop"]["pieces"]["not_new"] == 2


def test_a_source_that_is_not_split_is_refused(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shop is not split"):
        run_builder("private_benchmark", tmp_path / "out", sources=[source(shop)])


def test_a_split_without_new_code_is_an_error_with_advice(repository: MakeRepository, tmp_path: Path) -> None:
    folder = repository({"a.py": OLD})
    commit(folder, "Write a few words down", {"NOTES.md": "words\n"})
    with pytest.raises(ValueError, match="choose an earlier date, or a larger share"):
        run_builder("private_benchmark", tmp_path / "out", sources=[source(folder, held_out=0.5)])


REFORMATTED = BODY.replace("    ", "\t").replace('"', "'").replace("late = [", "late = list(  # more\n\t\t[")
PLANTS = {
    "the whole file": {"text": OLD + NEW, "repository": "shop"},
    "a document among others": {"text": OLD * 4 + BODY + OLD * 4},
    "other white space and quotes": {"text": f"def f(orders, today, grace):\n{REFORMATTED}"},
    "one line changed": {"text": BODY.replace('not order["paid"]', 'order["open"]')},
    "an answer": {
        "messages": [
            {"role": "user", "content": "Write it."},
            {"role": "assistant", "content": f"```python\n{BODY}\n```"},
        ]
    },
    "a chosen answer": {"prompt": "Write it.", "chosen": f"def overdue():\n{BODY}", "rejected": "pass"},
    "a task's reference": {
        "prompt": "Write it.",
        "tests": "{}",
        "kind": "pytest",
        "reference": f"def overdue():\n{BODY}",
    },
}


def screened(benchmark: Path, rows: list[dict[str, Any]], tmp_path: Path) -> tuple[list[int], ContaminationScreen]:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows_of_benchmark = BenchmarkRows(name="own", benchmark="fim", data=str(benchmark / "fim.jsonl"))
    screen = ContaminationScreen.for_targets(ScreenTargets(benchmarks=(rows_of_benchmark,)), tmp_path)
    return [
        number for number, _ in screen.clean_rows(SimpleNamespace(data=str(data), rows=None, format=None), Counter())
    ], screen


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_held_out_body_is_removed_from_training_rows(benchmark: Path, plant: str, tmp_path: Path) -> None:
    numbers, screen = screened(benchmark, [{"text": OLD}, PLANTS[plant], {"text": TESTS}], tmp_path)
    assert numbers == [1, 3] and screen.counts()["decontamination"]["by_benchmark"] == {"own": 1}


def test_the_corpus_before_the_split_keeps_every_row_although_the_benchmark_has_the_same_files(
    shop: Path, benchmark: Path, tmp_path: Path
) -> None:
    run_builder("corpus", tmp_path / "corpus", sources=[source(shop, held_out=0.2, license="owned")], workers=1)
    rows_of_benchmark = BenchmarkRows(name="own", benchmark="fim", data=str(benchmark / "fim.jsonl"))
    screen = ContaminationScreen.for_targets(ScreenTargets(benchmarks=(rows_of_benchmark,)), tmp_path)
    rows = [
        row
        for _, row in screen.clean_rows(
            SimpleNamespace(data=str(tmp_path / "corpus"), rows=None, format=None), Counter()
        )
    ]
    assert any("def total" in row["text"] for row in rows) and not screen.removed


def test_words_scattered_over_a_long_file_do_not_match_a_body() -> None:
    words = BODY.split("\n")
    scattered = ("\n" + "x = compute(y, z, w)\n" * 40).join(words)
    assert Bodies([BODY]).check(scattered) is None and Bodies([BODY]).check(f"a\n{BODY}\nb") == 0


@pytest.mark.parametrize("suffix", ["js", "mjs", "ts", "tsx"])
def test_functions_of_javascript_and_typescript_are_pieces(repository: MakeRepository, suffix: str) -> None:
    typed = ": number" if suffix.startswith("ts") else ""
    old = f"export function twice(n{typed}) {{\n  const result = n * 2;\n  return result;\n}}\n"
    folder = repository({f"web/app.{suffix}": old}, name="web")
    commit(folder, "Add thrice", {f"web/app.{suffix}": old + old.replace("twice", "thrice").replace("* 2", "* 3")})
    (split,) = resolve([source(folder, held_out=0.5)])
    earlier, now = read_texts(split), read_texts(replace(split, commit=split.head))
    assert [piece.name for piece in code_pieces(split, now, earlier)] == ["twice", "thrice"]


@pytest.mark.slow
def test_new_functions_with_tests_become_tasks_that_the_original_passes(
    shop: Path, tmp_path: Path, grader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
    summary = run_builder("private_benchmark", tmp_path / "out", sources=[source(shop, held_out=0.2)])
    (task,) = rows_of(tmp_path / "out" / "tasks.jsonl")
    (infilling,) = rows_of(tmp_path / "out" / "fim-tasks.jsonl")
    assert task["entry_point"] == "overdue" and "sorted(late" not in task["prompt"] and summary["tasks"] == 1
    filled = infilling["prefix"] + infilling["middle"] + infilling["suffix"]
    passed, filled_in, masked = grader.grade_many([(task, BODY), (infilling, filled), (task, "    return []")])
    assert (passed.status, filled_in.status, masked.status) == ("passed", "passed", "failed")
    assert task["held_out"] == infilling["held_out"] == BODY
