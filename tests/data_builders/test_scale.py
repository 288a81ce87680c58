"""Builders on datatrove and Ray write the same bytes as in local processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_helpers import MakeRepository, code, commit, run_builder
from test_no_leaks import hashes

from data_builders.storage import scale


def make(firm: Path, base: Path) -> list[Path]:
    run_builder("corpus", base / "corpus", sources=[firm])
    run_builder("commits", base / "commits", sources=[firm], seed=3)
    run_builder("fim", base / "fim", inputs=[base / "corpus"], seed=3)
    return [base / name for name in ("corpus", "commits", "fim")]


@pytest.fixture
def firm(repository: MakeRepository) -> Path:
    folder = repository({f"shop/module_{number}.py": code(f"part{number}", 6 + number % 9) for number in range(600)})
    for number in range(4):
        path = f"shop/module_{number}.py"
        commit(folder, f"Make part {number} take one more step", {path: code(f"part{number}", 16 + number)})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", scale.ENGINES)
def test_datatrove_on_this_machine_and_on_ray_writes_what_a_local_run_writes(
    name: scale.EngineName, firm: Path, tmp_path: Path
) -> None:
    pytest.importorskip("datatrove", reason="needs pip install 'code-alignment[scale]'")
    if name == "ray":
        ray = pytest.importorskip("ray", reason="needs pip install 'code-alignment[scale]'")
    alone = make(firm, tmp_path / "alone")
    try:
        with scale.engine(name, tmp_path / "work", tasks=3, workers=2) as engine:
            together = make(firm, tmp_path / "together")
    except Exception as error:
        if "timed out during startup" in str(error):
            pytest.skip("Ray's processes did not start within 30 seconds: the machine is too busy")
        raise
    assert engine.jobs == 3
    if name == "ray":
        assert not ray.is_initialized(), "Ray's threads and processes must not outlive the builds"
    assert [hashes(folder) for folder in together] == [hashes(folder) for folder in alone]
    assert not any((tmp_path / "work").iterdir())


def test_without_the_extra_the_error_says_what_to_install(
    firm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datatrove.executor", None)
    with pytest.raises(ValueError, match=r"code-alignment\[scale\]"), scale.engine("local", tmp_path / "work"):
        run_builder("corpus", tmp_path / "out", sources=[firm])
