"""The published completions of Qwen2.5-Coder-1.5B, graded again: our scores are the published ones."""

import json
import random
import shutil

import pytest

from alignment.evaluation import grade_completions

PUBLISHED = "published/qwen2.5-coder-1.5b"
TOOLS = {"java": "javac", "cpp": "g++", "js": "node", "cs": "mcs", "php": "php", "sh": "bash", "ts": "tsc"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("humaneval", {"humaneval": 43.9, "humaneval+": 36.6}),
        pytest.param("mbpp", {"mbpp": 69.2, "mbpp+": 58.6}, marks=pytest.mark.nightly),
    ],
)
def test_python_scores_are_the_published_ones(data_dir, tmp_path, monkeypatch, name, scores):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    file = data_dir / PUBLISHED / f"{name}.completions.jsonl"
    documents = grade_completions(file, tmp_path, data=data_dir / "benchmarks")
    assert {document["benchmark"]: document["value"] for document in documents} == pytest.approx(scores, abs=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("short", TOOLS)
def test_multipl_e_verdicts_agree_on_a_seeded_part(data_dir, tmp_path, short):
    """All of a language: `align evaluate --completions .../multipl_e/java.json --json`; it takes minutes."""
    if shutil.which(TOOLS[short]) is None:
        pytest.skip(f"no {TOOLS[short]} on this machine")
    told = json.loads((data_dir / PUBLISHED / "multipl_e" / f"{short}.json").read_text())
    part = random.Random(0).sample(sorted(told), 30 if short in ("sh", "php", "js") else 10)
    file = tmp_path / f"{short}.json"
    file.write_text(json.dumps({name: told[name] for name in part}))
    (document,) = grade_completions(file, tmp_path / "out")
    different = [name for name in part if (document["verdicts"][name] == "passed") != told[name][0][1]["passed"]]
    assert len(different) <= 1, different


def test_completions_of_unknown_form_are_refused(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match="no `task_id`"):
        grade_completions(file, tmp_path / "out")
    file.write_text('{"task_id": "Other/1", "completion": ""}\n')
    with pytest.raises(ValueError, match="which benchmark"):
        grade_completions(file, tmp_path / "out")
    (tmp_path / "y.json").write_text("[1]")
    with pytest.raises(ValueError, match="no form of completions"):
        grade_completions(tmp_path / "y.json", tmp_path / "out")
