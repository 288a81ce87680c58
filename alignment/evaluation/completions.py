"""Grading of completions that were generated elsewhere.

align evaluate --completions samples.jsonl --data benchmarks/ --json
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from alignment.evaluation import catalogue, scoring
from alignment.evaluation.answer_blocks import fenced_blocks
from alignment.evaluation.benchmark_request import BenchmarkRequest, resolve_task_id
from alignment.evaluation.benchmarks import multipl_e
from alignment.evaluation.problem import Benchmark, Problem, TextPrompt, unchanged
from alignment.evaluation.python_code import dedent, parses
from alignment.evaluation.results import Document, documents, write_results
from alignment.evaluation.samples import MULTIPL_E, Sample, benchmarks_of, read_samples
from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.figures import figures
from alignment.evaluation.store import Store
from alignment.grading import SandboxSettings
from alignment.logs import get_logger

logger = get_logger(__name__)

COMPLETE_FORMS = ("program", "tested")
"""Forms of samples that are complete programs."""
PROMPT_PRECEDES = ("humaneval", "humaneval+", "mbpp", "mbpp+")
"""Benchmarks whose completions are graded as EvalPlus does: the row's prompt, then the completion unchanged."""


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
    """Grade completions and write the same result files as `evaluate`.

    Args:
        files: files or folders of completions; `alignment.evaluation.samples` lists the formats.
        out_dir: the folder of results.
        benchmark: the benchmark of the completions; required if their ids do not tell it.
        data: file or folder of the benchmark's rows.
        limit: grade the completions of the first tasks only, at most this many.
        sanitize: the texts are chat answers: extract the code from them first.
        sandbox: how programs run; by default on this machine.

    Returns:
        One document per benchmark and metric.

    Raises:
        ValueError: a file has no known format, the benchmark's rows are missing, or it has no task of an id.
    """
    sandbox = sandbox or SandboxSettings()
    paths = [files] if isinstance(files, str | Path) else files
    samples = [sample for path in paths for sample in read_samples(Path(path), benchmark)]
    names = list(dict.fromkeys(name for sample in samples for name in benchmarks_of(sample, benchmark)))
    loaded: list[tuple[Benchmark, list[Sample]]] = []
    for name in names:  # load all before grading any, so that mistakes show at once
        samples_of_name = [sample for sample in samples if name in benchmarks_of(sample, benchmark)]
        try:
            loaded.append(_load(name, samples_of_name, data, limit, sanitize, sandbox))
        except ValueError as error:
            if not (name.endswith("+") and name.removesuffix("+") in names):
                raise
            logger.warning("%s is left out: %s", name, error)  # the extended tests were not asked for by name
    _warn_of_fences(samples, sanitize)
    scoring.check_tools([item for item, _ in loaded], sandbox)
    results: dict[str, list[Outcome]] = {}
    with Store(Path(out_dir) / "raw", "verdicts") as verdicts:
        for item, item_samples in loaded:
            results[item.name] = _grade(item, item_samples, verdicts, sanitize, sandbox)
    all_figures = [figure for name, outcomes in results.items() for figure in figures(name, outcomes, seed=0)]
    write_results(Path(out_dir), all_figures, results, {item.name: item.mode for item, _ in loaded})
    return documents(all_figures, results)


def _load(
    name: str,
    samples: Sequence[Sample],
    data: str | Path | None,
    limit: int | None,
    sanitize: bool,
    sandbox: SandboxSettings,
) -> tuple[Benchmark, list[Sample]]:
    """Return a benchmark, and its samples of the first `limit` tasks with the benchmark's own spelling of their ids."""
    task_ids = list(dict.fromkeys(sample.task_id for sample in samples))[:limit]
    samples = [sample for sample in samples if sample.task_id in set(task_ids)]
    if name.startswith(MULTIPL_E) and not sanitize and all(sample.form in COMPLETE_FORMS for sample in samples):
        benchmark = _multipl_e_programs(name, samples)
    else:
        modes = {sample.mode for sample in samples}
        mode = "chat" if sanitize else modes.pop() if len(modes) == 1 else None
        for _, message in catalogue.check_benchmark(name, has_data=data is not None):
            raise ValueError(f"{message} (--benchmark names the benchmark of the completions)")
        request = BenchmarkRequest(
            name,
            data=str(data) if data else None,
            mode=None if mode == "base" else mode,
            only=frozenset(task_ids),
            sandbox=sandbox,
        )
        benchmark = catalogue.load(request)
    known = {problem.id for problem in benchmark.problems}
    resolved = [(sample, resolve_task_id(sample.task_id, known)) for sample in samples]
    unknown = list(dict.fromkeys(sample.task_id for sample, task_id in resolved if task_id is None))
    if unknown:
        raise ValueError(f"{name} has no task {unknown[0]!r} ({len(unknown)} of the completions' ids are unknown)")
    samples = [dataclasses.replace(sample, task_id=task_id) for sample, task_id in resolved if task_id is not None]
    count, size = len({sample.task_id for sample in samples}), benchmark.size or len(known)
    if limit is None and count < size:
        logger.warning("%s: completions of %d of its %d tasks; the score counts these tasks only", name, count, size)
    return benchmark, samples


def _multipl_e_programs(name: str, samples: Sequence[Sample]) -> Benchmark:
    """MultiPL-E for programs that include their tests: the rows of the benchmark are not needed."""
    short = name.removeprefix(MULTIPL_E)
    published = any(sample.form == "program" for sample in samples)
    tasks = {
        task_id: multipl_e.task_of(task_id, short, published=published)
        for task_id in dict.fromkeys(sample.task_id for sample in samples)
    }
    return Benchmark(
        name,
        [Problem(id=task_id, prompt=TextPrompt(""), task=task) for task_id, task in tasks.items()],
        0,
        least_limits=multipl_e.LEAST_LIMITS,
        hidden=multipl_e.HIDDEN,
        needs=multipl_e.NEEDS.get(short),
    )


def _warn_of_fences(samples: Sequence[Sample], sanitize: bool) -> None:
    """Warn about completions with fenced code blocks. Fences inside strings and comments of a program are no fault."""
    texts = [sample.text for sample in samples if sample.form in (*COMPLETE_FORMS, "completion")]
    fenced = sum(bool(fenced_blocks(text)) and not parses(dedent(text)) for text in texts if "```" in text)
    if fenced and not sanitize:
        logger.warning(
            "%d of %d completions have fenced code blocks (```) and are graded unchanged; --sanitize extracts the code "
            "first",
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
    plain = dataclasses.replace(benchmark, assemble=unchanged, score=None)
    records, pairs = [], []
    for sample in samples:
        problem = by_id[sample.task_id]
        program = _program(benchmark, problem, sample, sanitize)
        rules, text = (benchmark, sample.text) if program is None else (plain, program)
        records.append((rules, problem, {"text": text, "finish": "", "tokens": 0}))
        if problem.task is not None:
            pairs.append((problem, rules.assemble(problem, text)))
    if pairs:
        limits = scoring.limits_for(benchmark, sandbox.limits())
        scoring.grade(pairs, verdicts, sandbox=sandbox, limits=limits, hidden=benchmark.hidden)
    counts: dict[str, int] = {}
    outcomes = []
    for rules, problem, record in records:
        number = counts[problem.id] = counts.get(problem.id, -1) + 1
        outcome = scoring.outcome_of(rules, problem, number, record, verdicts, sandbox.limits())
        assert outcome is not None
        outcomes.append(outcome)
    return outcomes


def _program(benchmark: Benchmark, problem: Problem, sample: Sample, sanitize: bool) -> str | None:
    """Return the program of a sample, or None if the benchmark's `assemble` has to make it of the model's answer."""
    if sanitize or sample.form == "raw":
        return None
    if sample.form in COMPLETE_FORMS:
        return multipl_e.go_main(sample.text) if benchmark.name == "multipl-e-go" else sample.text
    if sample.form == "function":
        return multipl_e.join_tests(sample.text, problem.row, benchmark.name.removeprefix(MULTIPL_E))
    if benchmark.name in PROMPT_PRECEDES:
        return str(problem.row["prompt"]) + sample.text
    return None
