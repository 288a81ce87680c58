"""Grading completions that were made elsewhere, and the one JSON form in which all results are told.

    align evaluate --completions samples.jsonl --data benchmarks/ --json

Known by their look: HumanEval samples (`task_id, completion`), EvalPlus samples (`task_id, solution`) and results
(`eval`), MultiPL-E (per-problem files with `completions`, or `{name: [[0, {code}]]}` with whole programs), and this
toolkit's own `completions.jsonl`.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.evaluation import catalogue, judge
from alignment.evaluation.benchmarks import multipl_e
from alignment.evaluation.data import read_rows
from alignment.evaluation.figures import Figure, figures
from alignment.evaluation.judge import Outcome
from alignment.evaluation.problem import Benchmark, Problem, Text
from alignment.evaluation.request import Request
from alignment.evaluation.run import write_results
from alignment.evaluation.store import Store, read_jsonl

Document = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One completion; `whole` when it needs no prompt before it, `raw` when a benchmark still has to assemble it."""

    benchmark: str
    task_id: str
    text: str
    form: str = "completion"
    """`completion` (behind the prompt), `program` (whole), or `raw` (what the model said, one of ours)."""


def grade_completions(
    file: str | Path,
    out_dir: str | Path,
    *,
    benchmark: str | None = None,
    data: str | Path | None = None,
    workers: int | None = None,
    limits: Any = None,
    limit: int | None = None,
) -> list[Document]:
    """Grade a file of completions; returns documents `{benchmark, metric, value, n, low, high, verdicts}`.

    `benchmark` is only needed where the ids do not tell it; `data` names the benchmark's rows as in a request. Writes
    what `evaluate` writes. ValueError for a file of no known form, or ids that the benchmark does not have.
    """
    samples = read_samples(Path(file), benchmark)
    names = list(dict.fromkeys(name for sample in samples for name in _benchmarks_of(sample, benchmark)))
    results: dict[str, list[Outcome]] = {}
    found: list[Figure] = []
    with Store(Path(out_dir) / "raw", "verdicts") as verdicts:
        for name in names:
            mine = [sample for sample in samples if name in _benchmarks_of(sample, benchmark)]
            outcomes = _grade(name, mine, data, verdicts, workers, limits, limit)
            results[name] = outcomes
            found += figures(name, outcomes, seed=0)
    write_results(Path(out_dir), found, results)
    return documents(found, results)


def documents(found: Sequence[Figure], results: Mapping[str, Sequence[Outcome]]) -> list[Document]:
    """One document per figure, with every task's verdict: a word, or a list of words where a task has many samples."""
    return [
        {key: figure[key] for key in ("benchmark", "metric", "value", "n", "low", "high")}
        | {"verdicts": _verdicts((o.task_id, o.status) for o in results[figure["benchmark"]])}
        for figure in found
    ]


def read_documents(out_dir: str | Path) -> list[Document]:
    """The same documents from what `evaluate` or `grade_completions` has written."""
    folder = Path(out_dir)
    if not (folder / "figures.json").exists():
        raise ValueError(f"{folder} has no figures.json: run `align evaluate` with that folder first")
    found = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    rows = list(read_jsonl(folder / "verdicts.jsonl"))
    return [
        {key: figure[key] for key in ("benchmark", "metric", "value", "n", "low", "high")}
        | {
            "verdicts": _verdicts(
                (row["task_id"], row["status"]) for row in rows if row["benchmark"] == figure["benchmark"]
            )
        }
        for figure in found
    ]


def _verdicts(pairs: Any) -> dict[str, Any]:
    verdicts: dict[str, list[str]] = {}
    for task_id, status in pairs:
        verdicts.setdefault(task_id, []).append(status)
    return {task_id: words[0] if len(words) == 1 else words for task_id, words in verdicts.items()}


def read_samples(path: Path, benchmark: str | None) -> list[Sample]:
    """All completions of a file, whatever its form."""
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    if path.is_dir():
        files = sorted([*path.glob("*.json"), *path.glob("*.json.gz"), *path.glob("*.jsonl")])
        return [sample for file in files for sample in read_samples(file, benchmark)]
    if path.suffixes[-2:] == [".json", ".gz"] or path.suffix == ".json":
        content = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        return _samples_of_document(path, content, benchmark)
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path} is empty")
    return [_sample_of_row(path, number, row, benchmark) for number, row in enumerate(rows, 1)]


def _sample_of_row(path: Path, number: int, row: dict[str, Any], benchmark: str | None) -> Sample:
    if "task_id" not in row:
        raise ValueError(f"{path}, row {number}: no `task_id`")
    if "benchmark" in row and "completion" in row:
        return Sample(benchmark or row["benchmark"], row["task_id"], row["completion"], "raw")
    if "solution" in row:
        return Sample(benchmark or "", row["task_id"], row["solution"], "program")
    if "completion" not in row:
        raise ValueError(f"{path}, row {number}: neither `completion` nor `solution`")
    return Sample(benchmark or "", row["task_id"], row["completion"])


def _samples_of_document(path: Path, content: Any, benchmark: str | None) -> list[Sample]:
    if isinstance(content, dict) and isinstance(content.get("eval"), dict):
        return [
            Sample(benchmark or "", task_id, sample["solution"], "program")
            for task_id, samples in content["eval"].items()
            for sample in samples
        ]
    if isinstance(content, dict) and "completions" in content:
        name = benchmark or f"multipl-e-{content['language']}"
        return [
            Sample(name, content["name"], f"{content['prompt']}{completion}\n{content['tests']}", "program")
            for completion in content["completions"]
        ]
    if isinstance(content, dict) and content and all(isinstance(value, list) for value in content.values()):
        short = path.name.split(".")[0].split("-")[-1]
        name = benchmark or f"multipl-e-{short}"
        if name not in catalogue.BENCHMARKS:
            raise ValueError(f"{path}: which language is this? Name the benchmark, as in multipl-e-java")
        return [
            Sample(name, task_id, sample["code"], "program")
            for task_id, samples in content.items()
            for _, sample in samples
        ]
    raise ValueError(f"{path}: no form of completions that is known here (HumanEval, EvalPlus, MultiPL-E, own)")


def _benchmarks_of(sample: Sample, given: str | None) -> tuple[str, ...]:
    """What a sample can be graded with: HumanEval and MBPP completions with the extended tests as well."""
    if given or sample.benchmark:
        return (given or sample.benchmark,)
    if re.fullmatch(r"HumanEval/\d+", sample.task_id):
        return ("humaneval", "humaneval+")
    if re.fullmatch(r"Mbpp/\d+", sample.task_id):
        return ("mbpp", "mbpp+")
    raise ValueError(f"which benchmark has the task {sample.task_id!r}? Name it")


def _grade(
    name: str,
    samples: Sequence[Sample],
    data: str | Path | None,
    verdicts: Store,
    workers: int | None,
    limits: Any,
    limit: int | None,
) -> list[Outcome]:
    short = name.removeprefix("multipl-e-")
    if name.startswith("multipl-e-") and all(sample.form == "program" for sample in samples):
        identities = list(dict.fromkeys(sample.task_id for sample in samples))
        problems = [Problem(id=task, prompt=Text(""), task=multipl_e.task_of(task, short)) for task in identities]
        benchmark = Benchmark(
            name=name,
            problems=problems,
            max_new_tokens=0,
            least_limits=multipl_e.LEAST_LIMITS,
            hidden=multipl_e.HIDDEN,
        )
    else:
        benchmark = catalogue.load(Request(name, data=str(data) if data else None))
    by_id = {problem.id: problem for problem in benchmark.problems}
    unknown = [sample.task_id for sample in samples if sample.task_id not in by_id]
    if unknown:
        raise ValueError(f"{name} has no task {unknown[0]!r} ({len(unknown)} ids are unknown)")
    chosen = set(list(dict.fromkeys(sample.task_id for sample in samples))[:limit])
    samples = [sample for sample in samples if sample.task_id in chosen]
    records: list[dict[str, Any]] = [
        {"text": _program(benchmark, by_id[s.task_id], s), "finish": "", "tokens": 0} for s in samples
    ]
    plain = dataclasses.replace(benchmark, assemble=_as_it_is, score=_raw_score(benchmark, samples))
    pairs = [
        (task, record["text"])
        for sample, record in zip(samples, records, strict=True)
        if (task := by_id[sample.task_id].task) is not None
    ]
    if pairs:
        needed = judge.limits_for(benchmark, limits)
        judge.grade(pairs, verdicts, workers=workers, limits=needed, hidden=benchmark.hidden)
    counts: dict[str, int] = {}
    outcomes = []
    for sample, record in zip(samples, records, strict=True):
        number = counts[sample.task_id] = counts.get(sample.task_id, -1) + 1
        outcome = judge.judged(plain, by_id[sample.task_id], number, record, verdicts, limits)
        assert outcome is not None
        outcomes.append(outcome)
    return outcomes


def _as_it_is(problem: Problem, text: str) -> str:
    return text


def _raw_score(benchmark: Benchmark, samples: Sequence[Sample]) -> Any:
    """Text scores hold for what a model said, not for whole programs."""
    executed = any(problem.task is not None for problem in benchmark.problems)
    return None if executed or any(sample.form == "program" for sample in samples) else benchmark.score


def _program(benchmark: Benchmark, problem: Problem, sample: Sample) -> str:
    if sample.form == "program":
        return sample.text
    if sample.form == "raw":
        return benchmark.assemble(problem, sample.text)
    prompt = str(problem.row.get("prompt", ""))
    return prompt + sample.text
