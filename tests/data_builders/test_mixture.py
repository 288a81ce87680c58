"""Mixtures by token share."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from corpus_helpers import run_builder

from alignment.rows import reading as row_files
from data_builders.storage.dataset import DatasetWriter


def dataset(folder: Path, rows: int, seed: int) -> Path:
    rng = random.Random(seed)
    writer = DatasetWriter(folder, "document")
    for number in range(rows):
        writer.write(
            {"text": f"{seed}-{number} " * rng.randrange(5, 400), "repository": folder.name, "path": str(number)}
        )
    writer.finish("in", {}, {})
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    base = tmp_path_factory.mktemp("parts")
    shares = {"code": (0.7, 900), "text": (0.2, 500), "math": (0.1, 200)}
    return {
        name: {"path": str(dataset(base / name, rows, seed)), "share": share}
        for seed, (name, (share, rows)) in enumerate(shares.items())
    }


def test_shares_are_exact_within_half_a_percent(parts: dict[str, dict[str, object]], tmp_path: Path) -> None:
    run_builder("mixture", tmp_path / "out", parts=parts, tokens=200_000)
    totals: dict[str, int] = {}
    for row in row_files.read(tmp_path / "out"):
        totals[row["part"]] = totals.get(row["part"], 0) + round(len(row["text"].encode()) / 3)
    whole = sum(totals.values())
    assert whole == pytest.approx(200_000, rel=0.005)
    assert {name: totals[name] / whole for name in totals} == pytest.approx(
        {"code": 0.7, "text": 0.2, "math": 0.1}, abs=0.005
    )


def test_no_row_comes_twice_unless_repeat_allows_it(parts: dict[str, dict[str, object]], tmp_path: Path) -> None:
    run_builder("mixture", tmp_path / "once", parts=parts)
    paths = [(row["part"], row["path"]) for row in row_files.read(tmp_path / "once")]
    assert len(paths) == len(set(paths))
    twice = {**parts, "math": {**parts["math"], "repeat": 2.0, "share": 0.3}}
    run_builder("mixture", tmp_path / "twice", parts=twice)
    math = [row["path"] for row in row_files.read(tmp_path / "twice") if row["part"] == "math"]
    assert len(math) > len(set(math)) and max(math.count(path) for path in set(math)) == 2


def test_the_seed_decides_choice_and_order(parts: dict[str, dict[str, object]], tmp_path: Path) -> None:
    hashes = [
        run_builder("mixture", tmp_path / name, parts=parts, tokens=50_000, seed=seed)["sha256"]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_an_interrupted_build_reuses_its_token_counts(
    parts: dict[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_builder("mixture", tmp_path / "out", parts=parts, tokens=50_000)
    (tmp_path / "out" / "report.json").unlink()
    monkeypatch.setattr(
        "data_builders.storage.token_counts.TokenCounter.count", lambda *_: pytest.fail("counted again")
    )
    assert run_builder("mixture", tmp_path / "out", parts=parts, tokens=50_000) == first


def test_too_many_tokens_name_the_scarce_part(parts: dict[str, dict[str, object]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'math' has"):
        run_builder(
            "mixture", tmp_path / "out", parts={**parts, "math": {**parts["math"], "share": 0.9}}, tokens=10_000_000
        )


def test_rows_too_long_for_a_share_are_an_error(tmp_path: Path) -> None:
    coarse = {
        name: {"path": str(dataset(tmp_path / name, 2, seed)), "share": share}
        for seed, (name, share) in enumerate({"a": 0.6, "b": 0.4}.items())
    }
    with pytest.raises(ValueError, match="share of"):
        run_builder("mixture", tmp_path / "out", parts=coarse)
