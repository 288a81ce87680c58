"""The published completions of Qwen2.5-Coder-1.5B get the published scores."""

import json
import random
import shutil
from pathlib import Path

import pytest

from alignment.evaluation import grade_completions
from alignment.sandbox.toolchains import JAVATUPLES

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
def test_multipl_e_verdicts_agree_on_a_random_sample(data_dir, tmp_path, short):
    """A whole language takes minutes: `align evaluate --completions .../multipl_e/java.json --json`."""
    if shutil.which(TOOLS[short]) is None:
        pytest.skip(f"no {TOOLS[short]} on this machine")
    if short == "java" and not Path(JAVATUPLES).exists():
        pytest.skip(f"the Java programs need {JAVATUPLES}: apt-get install libjavatuples-java")
    published = json.loads((data_dir / PUBLISHED / "multipl_e" / f"{short}.json").read_text())
    sampled = random.Random(0).sample(sorted(published), 30 if short in ("sh", "php", "js") else 10)
    file = tmp_path / f"{short}.json"
    file.write_text(json.dumps({name: published[name] for name in sampled}))
    (document,) = grade_completions(file, tmp_path / "out")
    different = [
        name for name in sampled if (document["verdicts"][name] == "passed") != published[name][0][1]["passed"]
    ]
    assert len(different) <= 1, different


def test_completions_of_an_unknown_format_are_refused(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match="no `task_id`"):
        grade_completions(file, tmp_path / "out")
    file.write_text('{"task_id": "Other/1", "completion": ""}\n')
    with pytest.raises(ValueError, match="the benchmark of task 'Other/1' is unknown"):
        grade_completions(file, tmp_path / "out")
    (tmp_path / "y.json").write_text("[1]")
    with pytest.raises(ValueError, match="unknown format of completions"):
        grade_completions(tmp_path / "y.json", tmp_path / "out")
