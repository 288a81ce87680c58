"""Grading completions that were made elsewhere, and the one JSON form in which all results are told.

align evaluate --completions samples.jsonl --data benchmarks/ --json
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.evaluation import catalogue, scoring
from alignment.evaluation.benchmark_request import BenchmarkRequest, resolve_task_id
from alignment.evaluation.benchmarks import multipl_e
from alignment.evaluation.problem import Benchmark, Problem, TextPrompt
from alignment.evaluation.runner import write_results
from alignment.evaluation.samples import MULTIPL_E, Sample, benchmarks_of, read_samples
from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.figures import Figure, figures
from alignment.evaluation.store import Store, read_jsonl
from alignment.grading import SandboxSettings

logger = logging.getLogger(__name__)

Document = dict[str, Any]
WHOLE = ("program", "tested")
BEHIND_THE_PROMPT = ("humaneval", "humaneval+", "mbpp", "mbpp+")
"""A completion of these is graded as EvalPlus does: the row's prompt, and the completion as it is."""


def grade_completions(
    files: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    *,
    benchmark: str | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
    sanitize: bool = False,
    sandbox: SandboxSettings | None = None,
) -> list[Document]:
    """Grade files or folders of completions; returns documents `{benchmark, metric, value, n, low, high, verdicts}`.

    `benchmark` is only needed where the ids do not tell it; `data` names the benchmark's rows as in a request; with
    `sanitize` the texts are chat answers, out of which the code is taken first. Writes what `evaluate` writes.
    ValueError for a file of no known form, or ids that the benchmark does not have.
    """
    sandbox = sandbox or SandboxSettings()
    paths = [files] if isinstance(files, str | Path) else files
    samples = [sample for path in paths for sample in read_samples(Path(path), benchmark)]
    names = list(dict.fromkeys(name for sample in samples for name in benchmarks_of(sample, benchmark)))
    work = []
    for name in names:  # everything is read before anything is graded: a mistake shows at once
        mine = [sample for sample in samples if name in benchmarks_of(sample, benchmark)]
        try:
            work.append(_loaded(name, mine, data, limit, sanitize, sandbox))
        except ValueError as error:
            if not (name.endswith("+") and name.removesuffix("+") in names):
                raise
            logger.warning("%s is left out: %s", name, error)  # nobody asked for it by name
    _warn_of_fences(samples, sanitize)
    scoring.check_tools([loaded for loaded, _ in work], sandbox)
    results: dict[str, list[Outcome]] = {}
    with Store(Path(out_dir) / "raw", "verdicts") as verdicts:
        for loaded, mine in work:
            results[loaded.name] = _grade(loaded, mine, verdicts, sanitize, sandbox)
    found = [figure for name, outcomes in results.items() for figure in figures(name, outcomes, seed=0)]
    write_results(Path(out_dir), found, results, {loaded.name: loaded.mode for loaded, _ in work})
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


def _loaded(
    name: str,
    samples: Sequence[Sample],
    data: str | Path | None,
    limit: int | None,
    sanitize: bool,
    sandbox: SandboxSettings,
) -> tuple[Benchmark, list[Sample]]:
    """The benchmark, and its samples with the ids as it spells them; of the first `limit` tasks only."""
    asked = list(dict.fromkeys(sample.task_id for sample in samples))[:limit]
    samples = [sample for sample in samples if sample.task_id in set(asked)]
    short = name.removeprefix(MULTIPL_E)
    if name.startswith(MULTIPL_E) and not sanitize and all(sample.form in WHOLE for sample in samples):
        published = any(sample.form == "program" for sample in samples)
        identities = list(dict.fromkeys(sample.task_id for sample in samples))  # programs that bring their tests
        tasks = {task: multipl_e.task_of(task, short, published=published) for task in identities}
        problems = [Problem(id=name, prompt=TextPrompt(""), task=task) for name, task in tasks.items()]
        benchmark = Benchmark(
            name,
            problems,
            0,
            least_limits=multipl_e.LEAST_LIMITS,
            hidden=multipl_e.HIDDEN,
            needs=multipl_e.NEEDS.get(short),
        )
    else:
        modes = {sample.mode for sample in samples}
        mode = "chat" if sanitize else modes.pop() if len(modes) == 1 else None
        for _, message in catalogue.check_benchmark(name, has_data=data is not None):
            raise ValueError(f"{message} (with --completions, --benchmark names what the samples belong to)")
        mode = None if mode == "base" else mode
        request = BenchmarkRequest(
            name, data=str(data) if data else None, mode=mode, only=frozenset(asked), sandbox=sandbox
        )
        benchmark = catalogue.load(request)
    known = {problem.id for problem in benchmark.problems}
    spelled = [(sample, resolve_task_id(sample.task_id, known)) for sample in samples]
    unknown = list(dict.fromkeys(sample.task_id for sample, identity in spelled if identity is None))
    if unknown:
        raise ValueError(f"{name} has no task {unknown[0]!r} ({len(unknown)} of the completions' ids are unknown)")
    mine = [dataclasses.replace(sample, task_id=identity) for sample, identity in spelled if identity is not None]
    found, size = len({sample.task_id for sample in mine}), benchmark.size or len(known)
    if limit is None and found < size:
        logger.warning("%s: completions of %d of its %d tasks: the score is of those alone", name, found, size)
    return benchmark, mine


def _warn_of_fences(samples: Sequence[Sample], sanitize: bool) -> None:
    fenced = sum("```" in sample.text for sample in samples if sample.form in (*WHOLE, "completion"))
    if fenced and not sanitize:
        logger.warning(
            "%d of %d completions hold ``` fences and are graded as they are; with --sanitize the code is taken out "
            "of them first",
            fenced, len(samples),
        )  # fmt: skip


def _grade(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    verdicts: Store,
    sanitize: bool,
    sandbox: SandboxSettings,
) -> list[Outcome]:
    by_id = {problem.id: problem for problem in benchmark.problems}
    plain = dataclasses.replace(benchmark, assemble=_as_it_is, score=None)
    judged_by, pairs = [], []
    for sample in samples:
        problem = by_id[sample.task_id]
        program = _program(benchmark, problem, sample, sanitize)
        own = program is None
        text = sample.text if program is None else program
        record = {"text": text, "finish": "", "tokens": 0}
        judged_by.append((benchmark if own else plain, problem, record))
        if problem.task is not None:
            pairs.append((problem, benchmark.assemble(problem, text) if own else text))
    if pairs:
        limits = scoring.limits_for(benchmark, sandbox.limits())
        scoring.grade(pairs, verdicts, sandbox=sandbox, limits=limits, hidden=benchmark.hidden)
    counts: dict[str, int] = {}
    outcomes = []
    for rule, problem, record in judged_by:
        number = counts[problem.id] = counts.get(problem.id, -1) + 1
        outcome = scoring.judged(rule, problem, number, record, verdicts, sandbox.limits())
        assert outcome is not None
        outcomes.append(outcome)
    return outcomes


def _as_it_is(problem: Problem, text: str) -> str:
    return text


def _program(benchmark: Benchmark, problem: Problem, sample: Sample, sanitize: bool) -> str | None:
    """The program of a sample, or None where the benchmark has to make one of what the model said."""
    if sanitize or sample.form == "raw":
        return None
    if sample.form in WHOLE:
        return multipl_e.go_main(sample.text) if benchmark.name == "multipl-e-go" else sample.text
    if sample.form == "function":
        return multipl_e.join_tests(sample.text, problem.row, benchmark.name.removeprefix(MULTIPL_E))
    if benchmark.name in BEHIND_THE_PROMPT:
        return str(problem.row["prompt"]) + sample.text
    return None
