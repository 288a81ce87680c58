"""One repository through every builder: no secret is in any file, and the number of workers does not matter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import code, commit, git, run_builder

from data_builders.builder_registry import BUILDERS, find_builder

_RANDOM = "b7Kq9ZtR2mXw5LpV8sYd3NfH6jGc1QaE4uTo0iB"
SECRETS = {
    "code": "Tr0ub4dor-und-3",
    "history": "gh" + "p_" + _RANDOM[:36],
    "commit message": "AK" + "IA" + "QX7ZK2M9PLW4RT8V",
    "notebook output": "sk" + "_live_" + _RANDOM[:24],
    "notebook source": "glp" + "at-" + _RANDOM[3:23],
    "config file": "s3cr3t-d4tabase-pw",
    "file name": "xo" + "xb-123456789012-" + _RANDOM[:24],
    "pull request": "hunter2-but-longer",
    "web page": "np" + "m_" + _RANDOM[:36],
    "person": "grace.hopper@navy.mil",
}
# A benchmark task whose solution is planted in every place from which rows are made.
SOLUTION = """def quagmire_total(rows, limit):
    total = 0
    for row in sorted(rows, key=lambda item: item.weight):
        if total + row.weight > limit:
            break
        total += row.weight
    return total
"""
TASK = {
    "task_id": "Hidden/1",
    "prompt": 'def quagmire_total(rows, limit):\n    """Sum the weights of the rows, lightest first, up to the limit."""\n',
    "canonical_solution": SOLUTION.partition("\n")[2],
    "test": "assert quagmire_total([], 3) == 0\n",
}
PROSE = (
    "The service reads a list of orders, and for each order it looks up the price that was agreed with the customer. "
)


DOCUMENTED = '''def price_of(order, agreed):
    """The price of an order, as it was agreed with the customer."""
    for customer, price in agreed:
        if customer == order["customer"]:
            return price
    return order["price"]
'''


def notebook(*more: dict[str, Any]) -> str:
    source = "\n".join(f"frame_{number} = load_frame({number}, 'orders_{number}')" for number in range(12))
    cells = [
        {"cell_type": "markdown", "source": [PROSE, "We look at orders here, month by month."]},
        {"cell_type": "code", "source": f"{source}\ntoken = '{SECRETS['notebook source']}'",
         "outputs": [{"output_type": "stream", "text": [f"connected as shop with {SECRETS['notebook output']}\n"]}]},
    ]  # fmt: skip
    return json.dumps({"cells": [*cells, *more], "metadata": {"kernelspec": {"language": "python"}}})


def make_firm(folder: Path) -> Path:
    """A repository with a secret in every common place, and enough modules for several batches."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    modules = {f"shop/module_{number}.py": code(f"part{number}", 6 + number % 5) for number in range(300)}
    files: dict[str, str | bytes] = {
        **modules,
        "shop/client.py": code("client") + f'\nPASSWORD = "{SECRETS["code"]}"  # of the shop\n',
        "shop/old.py": code("old") + f'\nTOKEN = "{SECRETS["history"]}"\n',
        "shop/prices.py": f'{DOCUMENTED}\n\nPASSWORD = "{SECRETS["code"]}"\n',
        "analysis.ipynb": notebook(),
        "solved.ipynb": notebook({"cell_type": "code", "source": SOLUTION, "outputs": []}),
        "shop/solved.py": code("solved") + SOLUTION,
        "shop/later.py": code("later"),
        "shop/documented.py": SOLUTION.replace(":\n", ':\n    """Sum the weights of the rows."""\n', 1),
        "docs/solved.md": f"# Solved\n\n{PROSE * 3}\n\n```python\n{SOLUTION}```\n",
        "config/service.yaml": "database:\n  host: db.internal\n  user: shop\n"
        f"  password: {SECRETS['config file']}\n  pool: 5  # connections, as measured\n",
        f"keys/{SECRETS['file name']}.py": code("named"),
        "AUTHORS.md": f"# People\n\n{PROSE * 3}\n\nAsk {SECRETS['person']} about the compiler and its errors.\n",
        "docs/page.md": f"# Deploying\n\n{PROSE * 4}\n\n```shell\nexport NPM_TOKEN={SECRETS['web page']}\nmake deploy\n```\n",
    }
    commit(folder, "Lay the ground for the shop", files)
    commit(folder, f"Use the new account {SECRETS['commit message']} for uploads", {
        "shop/old.py": code("old", 13) + f'\nTOKEN = "{SECRETS["history"]}"\n'})  # fmt: skip
    commit(folder, "Remove the token from the old module", {"shop/old.py": code("old", 13)})
    commit(folder, "Sum the weights of the lightest rows first", {"shop/later.py": code("later") + SOLUTION})
    commit(folder, "Leave the sum of the weights to others", {"shop/later.py": code("later", 13)})
    name = f"keys/{SECRETS['file name']}.py"
    commit(folder, "Compute one more step of the named module", {name: code("named", 14)})
    for number in range(6):
        path = f"shop/module_{number}.py"
        commit(folder, f"Make part {number} take one more step", {path: code(f"part{number}", 14 + number)})
    return folder


def build_all(base: Path, firm: Path, workers: int) -> Iterator[Path]:
    """Run all built-in builders that need no model, some on the datasets of others; yields their folders."""
    exports = base.parent / "export.json"
    remarks = [{"author": {"login": "grace"}, "body": f"Try it with password = {SECRETS['pull request']} please."}]
    record = {"title": "Orders are slow", "number": 7, "body": PROSE * 2, "comments": remarks}
    solved = {"title": "Sum the weights", "number": 8, "body": PROSE * 2 + SOLUTION}
    exports.write_text(json.dumps([record, solved]))
    benchmark = base.parent / "hidden.jsonl"
    benchmark.write_text(json.dumps(TASK) + "\n")

    def build(builder: str, name: str = "", **settings: Any) -> Path:
        out = base / (name or builder)
        settings_class = find_builder(builder).settings_class
        if settings_class is not None and "decontaminate" in settings_class.model_fields:
            settings["decontaminate"] = [benchmark]
        run_builder(builder, out, seed=5, workers=workers, **settings)
        return out

    corpus = build("corpus", sources=[firm])
    yield corpus
    yield build("commits", sources=[firm])
    yield build("commits", "commit-documents", sources=[firm], form="document")
    yield build("pull_requests", exports=[exports], repository="firm")
    for builder in ("general", "math", "grounding", "quality"):
        extra = {"threshold": 0.0} if builder in ("grounding", "quality") else {}
        yield build(builder, inputs=[corpus], **extra)
    yield build("repo_level", inputs=[corpus], max_length=2000)
    yield build("fim", inputs=[corpus], fim={"rate": 1.0})
    yield build("clean", inputs=[base / "commits"])
    parts = {"code": {"path": corpus, "share": 0.9}, "rest": {"path": base / "commit-documents", "share": 0.1}}
    yield build("mixture", parts=parts, tolerance=0.2)
    yield build("instructions", sources=[firm])
    yield build("private_benchmark", sources=[{"path": str(firm), "held_out": 0.3}], executable=False)


@pytest.fixture(scope="module")
def firm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_firm(tmp_path_factory.mktemp("source") / "firm")


@pytest.fixture(scope="module")
def built(firm: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(build_all(tmp_path_factory.mktemp("built") / "1", firm, 1))


def test_every_built_in_builder_is_in_this_test(built: list[Path]) -> None:
    made = {path.name for path in built}
    assert made - {"commit-documents"} == set(BUILDERS) - ELSEWHERE


# Reads no user code, needs a model, or is tested in `test_tasks_leak_nothing` or `test_feedback`.
ELSEWHERE = {"synthetic", "difficulty", "feedback", "preferences", "tasks", "commit_tasks"}


ACCOUNTED = {"instructions", "private_benchmark"}
"""Builders whose counts are in `account.json` instead of `report.json`."""


def contents(folder: Path) -> str:
    """The text of all files of a dataset, with its rows decompressed."""
    from alignment.rows import reading as row_files

    texts = [json.dumps(row, ensure_ascii=False) for row in row_files.read(folder)]
    others = [path.read_text() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".parquet"]
    return "\n".join([*texts, *others])


@pytest.mark.parametrize("place", SECRETS)
def test_a_planted_secret_is_in_no_dataset_no_report_and_no_card(place: str, built: list[Path]) -> None:
    assert [folder.name for folder in built if SECRETS[place] in contents(folder)] == []


def test_a_planted_benchmark_task_is_in_no_row(built: list[Path]) -> None:
    from alignment.rows import reading as row_files

    for folder in built:
        rows = list(row_files.read(folder))
        assert rows and not any("quagmire" in json.dumps(row) for row in rows), folder.name


def test_reports_count_rows_with_a_benchmark_task(built: list[Path]) -> None:
    reports = {folder.name: folder / "report.json" for folder in built if folder.name not in ACCOUNTED}
    removed = {name: json.loads(path.read_text()).get("removed", {}) for name, path in reports.items()}
    counts = {
        name: sum(count for reason, count in reasons.items() if "contaminated" in reason)
        for name, reasons in removed.items()
    }
    assert counts["corpus"] == 5  # two modules, a page, and both forms of a notebook
    assert (counts["commits"], counts["commit-documents"], counts["pull_requests"]) == (2, 2, 1)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("corpus", 'PASSWORD = \\"REDACTED_PASSWORD_1\\"  # of the shop'),
        ("corpus", "connected as shop with REDACTED_STRIPE_KEY_1"),
        ("corpus", "password: REDACTED_PASSWORD_1"),
        ("corpus", "keys/REDACTED_SLACK_TOKEN_1.py"),
        ("corpus", "Ask person1@example.com about"),
        ("commits", "Use the new account REDACTED_AWS_KEY_1 for uploads"),
        ("commits", 'TOKEN = \\"REDACTED_GITHUB_TOKEN_1\\"'),
        ("commit-documents", '-TOKEN = \\"REDACTED_GITHUB_TOKEN_1\\"'),
        ("commit-documents", "+++ b/keys/REDACTED_SLACK_TOKEN_1.py"),
        ("pull_requests", "password = REDACTED_PASSWORD_1 please"),
    ],
)
def test_the_text_around_a_secret_is_kept(built: list[Path], dataset: str, expected: str) -> None:
    (folder,) = [folder for folder in built if folder.name == dataset]
    assert expected in contents(folder)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_writes_identical_bytes_in_every_dataset(
    workers: int, firm: Path, built: list[Path], tmp_path: Path
) -> None:
    for one, more in zip(built, build_all(tmp_path / "more", firm, workers), strict=True):
        assert hashes(one) == hashes(more), one.name


def test_every_card_names_sources_commits_counts_settings_and_hash(built: list[Path], firm: Path) -> None:
    head = git(firm, "rev-parse", "HEAD")
    for folder in built:
        card = (folder / "README.md").read_text()
        if folder.name in ACCOUNTED:
            assert (folder / "account.json").is_file()
            assert head in card and "## Settings" in card and "## Sources" in card and "| sha256 |" in card
            continue
        report = json.loads((folder / "report.json").read_text())
        assert report["sha256"] in card and "## Settings" in card and "## Sources" in card, folder.name
        assert head in card or folder.name == "pull_requests", folder.name
        assert "## Removed" in card or folder.name in ("fim", "repo_level", "mixture"), folder.name
        assert "## Languages" in card or report["rows_kind"] == "conversation", folder.name
