"""The cached index of a benchmark equals a new index, and is made again after the file or the code changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_builders.cleaning import benchmark_index
from data_builders.cleaning.decontamination import Decontaminator

TASK = {
    "task_id": "Own/0",
    "prompt": 'def rotate_left(values, count):\n    """Rotate the list to the left by count places and return it."""\n',
    "canonical_solution": "    return values[count:] + values[:count]\n",
}
SHORT = {"task_id": 9, "text": "Add two numbers.", "code": "def add(a, b):\n    return a + b"}
TEXTS = [
    TASK["prompt"],
    f"x = 1\n\n{SHORT['code']}\n",
    TASK["canonical_solution"],
    "def other(things):\n    return things\n",
]


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "benchmark-index"


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    return written(tmp_path, TASK, SHORT)


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "own.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def verdicts(path: Path) -> list[Any]:
    index = Decontaminator.from_paths([path])
    return [index.sizes, *map(index.check, TEXTS)]


def no_indexing(_: Any) -> None:
    raise AssertionError("the file was indexed again")


def test_a_cached_index_gives_the_verdicts_of_a_fresh_one(
    benchmark: Path, entries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = verdicts(benchmark)
    assert [match and match.rule for match in fresh[1:]] == ["10-gram", "short program", "whole answer", None]
    monkeypatch.setattr(benchmark_index, "index_rows", no_indexing)
    assert verdicts(benchmark) == fresh


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_entry_is_replaced(benchmark: Path, entries: Path, damage: str) -> None:
    fresh = verdicts(benchmark)
    (entry,) = entries.iterdir()
    good = entry.read_bytes()
    middle = len(good) // 2
    entry.write_bytes(
        {"cut": good[:middle], "flip": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :], "empty": b"",
         "other": b"not an archive"}[damage]
    )  # fmt: skip
    assert verdicts(benchmark) == fresh
    assert [path.read_bytes() for path in entries.iterdir()] == [good]


def test_a_changed_benchmark_is_indexed_again(benchmark: Path, entries: Path, tmp_path: Path) -> None:
    verdicts(benchmark)
    written(tmp_path, SHORT)
    assert Decontaminator.from_paths([benchmark]).check(TASK["prompt"]) is None


def test_changed_indexing_code_makes_another_entry(
    benchmark: Path, entries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts(benchmark)
    monkeypatch.setattr(benchmark_index, "code_hash", lambda: "another version")
    verdicts(benchmark)
    assert len(list(entries.iterdir())) == 2


def test_a_private_benchmark_is_not_cached(tmp_path: Path, entries: Path) -> None:
    body = "def total(items, rate):\n    found = 0\n    for item in items:\n        found += item * rate\n    return found\n"
    path = written(tmp_path, {"held_out": body})
    assert Decontaminator.from_paths([path]).check(f"import os\n\n{body}")
    assert not entries.exists()


def test_a_cache_that_cannot_be_written_is_no_error(
    benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "file"))
    assert Decontaminator.from_paths([benchmark]).check(TASK["prompt"])
