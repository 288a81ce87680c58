"""Measure a released model on the benchmarks of its report, and put the scores beside the published ones in one table.

    table = measure_published("models/qwen2.5-coder-0.5b-instruct", "published", data="benchmarks/")
    print(markdown(table))

Prompts, limits and graders are those of the built-in benchmarks, and generation is greedy. Benchmarks whose rows or
toolchains are missing are left out, with the reason. HumanEval and HumanEval+ have equal prompts, as have MBPP and
MBPP+: their answers are generated once and graded twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from alignment.evaluation import catalogue, scoring
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.engines.protocol import Engine
from alignment.evaluation.problem import Benchmark
from alignment.evaluation.published_scores import PublishedModel, Recognized, published_model, recognize
from alignment.evaluation.results import GENERATION_FILE, GenerationCost
from alignment.evaluation.runner import evaluate
from alignment.evaluation.statistics.figures import Figure
from alignment.evaluation.store import read_jsonl
from alignment.files import write_json, write_text
from alignment.grading import SandboxSettings
from alignment.logs import get_logger
from alignment.models.source import DType, EngineName

logger = get_logger(__name__)

BOTH_MODES = ("humaneval", "mbpp", "multipl-e")
"""Beginnings of the names of benchmarks that have base and chat prompts. The report measured CRUXEval with plain prompts
for all models (`qwencoder-eval/instruct/cruxeval` applies no chat template)."""


class SuiteRow(TypedDict):
    """One benchmark in the table. Scores are percents."""

    benchmark: str
    metric: str
    mode: str
    tasks: int
    ours: float
    low: float
    high: float
    published: float
    inside: bool | None
    """Whether the published score lies in the 95% interval of ours. None if only the first tasks were measured."""
    source: str
    """Publication and table of the published score."""
    answers: int
    cut: int
    """Number of answers that reached the token limit."""
    tokens: int
    seconds: float | None
    tokens_per_second: float | None
    shared_with: str | None
    """The benchmark whose answers are graded here too, or None. Its row has the same number of tokens and seconds."""
    failures: dict[str, int]
    """Reason of a failed answer -> number of answers."""


class SuiteTable(TypedDict):
    """All rows, and what was compared."""

    model: str
    compared_with: str
    recognized_by: str
    limit: int | None
    """Number of tasks of each benchmark that were measured, from the first one on. None if all were measured."""
    rows: list[SuiteRow]
    left_out: dict[str, str]
    """Benchmark with a published score -> why it was not measured."""


def measure_published(
    model_path: str,
    out_dir: str | Path,
    *,
    compared_with: str | None = None,
    only: Sequence[str] = (),
    data: str | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    engine: EngineName | Engine = "auto",
    dtype: DType = "auto",
    sandbox: SandboxSettings | None = None,
) -> SuiteTable | None:
    """Measure a model on the benchmarks for which its released model has published scores.

    Args:
        model_path: a checkpoint folder, a name on the hub, or a GGUF file.
        out_dir: the folder for the results of `evaluate`, and for `published.json` and `published.md`.
        compared_with: name of the released model; by default recognized from the checkpoint.
        only: names of benchmarks; by default all with a published score.
        data: folder with the rows of the benchmarks; by default the cache, or a download.
        limit: use only the first tasks of each benchmark, at most this many.
        batch_size: number of sequences that are generated at the same time.
        seed: seed of bootstrap intervals.
        engine: name of an engine, or an engine with a loaded model.
        dtype: number format of the weights.
        sandbox: how programs run; by default on this machine.

    Returns:
        The table, or None on ranks other than 0.

    Raises:
        ValueError: the model is not recognized, or no benchmark can be measured.
    """
    sandbox = sandbox or SandboxSettings()
    released = Recognized(published_model(compared_with), "--published") if compared_with else recognize(model_path)
    names = _chosen(released.model, only)
    common = BenchmarkRequest(
        benchmark="", name="suite", data=data, limit=limit, batch_size=batch_size, sandbox=sandbox
    )
    loaded, left_out = _load(names, released.model, common)
    for name, reason in left_out.items():
        logger.warning("%s is left out: %s", name, reason)
    if not loaded:
        raise ValueError(f"none of the benchmarks can be measured. {names[0]}: {left_out[names[0]]}")
    logger.info("compared with the published scores of %s (recognized by %s)", released.model.name, released.reason)
    figures = evaluate(model_path, loaded, out_dir, seed=seed, engine=engine, dtype=dtype, sandbox=sandbox)
    if not figures:
        return None
    table: SuiteTable = {
        "model": model_path,
        "compared_with": released.model.name,
        "recognized_by": released.reason,
        "limit": limit,
        "rows": _rows(Path(out_dir), figures, [benchmark for _, benchmark in loaded], released.model, limit),
        "left_out": left_out,
    }
    write_json(Path(out_dir) / "published.json", table)
    write_text(Path(out_dir) / "published.md", markdown(table))
    return table


def _chosen(model: PublishedModel, only: Sequence[str]) -> list[str]:
    """Return the names of the benchmarks to measure, in the order of the report's tables."""
    for name in only:
        if name not in model.scores:
            known = ", ".join(model.scores)
            raise ValueError(f"there is no published score of {model.name} on {name!r}. Published are: {known}")
    return [name for name in model.scores if not only or name in only]


def _load(
    names: Sequence[str], model: PublishedModel, common: BenchmarkRequest
) -> tuple[list[tuple[BenchmarkRequest, Benchmark]], dict[str, str]]:
    """Load the benchmarks whose rows and toolchains are there. Return also the reasons for those left out."""
    loaded: list[tuple[BenchmarkRequest, Benchmark]] = []
    left_out: dict[str, str] = {}
    for name in names:
        mode = model.mode if name.startswith(BOTH_MODES) else None
        request = dataclasses.replace(common, benchmark=name, name=name, mode=mode)
        try:
            benchmark = catalogue.load(request)
            scoring.check_tools([benchmark], common.sandbox)
        except ValueError as error:
            left_out[name] = str(error).removeprefix(f"{name}: ")
        else:
            loaded.append((request, benchmark))
    return loaded, left_out


def _rows(
    out_dir: Path, figures: Sequence[Figure], benchmarks: Sequence[Benchmark], model: PublishedModel, limit: int | None
) -> list[SuiteRow]:
    costs: dict[str, GenerationCost] = json.loads((out_dir / GENERATION_FILE).read_text(encoding="utf-8"))
    failures: dict[str, Counter[str]] = {}
    for verdict in read_jsonl(out_dir / "verdicts.jsonl"):
        if verdict["status"] != "passed":
            failures.setdefault(verdict["benchmark"], Counter())[verdict["reason"] or verdict["status"]] += 1
    main = {figure["benchmark"]: figure for figure in reversed(figures)}  # the first figure of each benchmark
    rows: list[SuiteRow] = []
    for benchmark in benchmarks:
        figure, cost, published = main[benchmark.name], costs[benchmark.name], model.scores[benchmark.name]
        seconds = cost["seconds"]
        base = benchmark.name.removesuffix("+")
        rows.append(
            {
                "benchmark": benchmark.name,
                "metric": figure["metric"],
                "mode": benchmark.mode,
                "tasks": figure["n"],
                "ours": figure["value"],
                "low": figure["low"],
                "high": figure["high"],
                "published": published.value,
                "inside": None if limit is not None else _inside(figure, published.value),
                "source": published.source,
                "answers": cost["completions"],
                "cut": cost["cut"],
                "tokens": cost["tokens"],
                "seconds": seconds,
                "tokens_per_second": cost["tokens"] / seconds if seconds else None,
                "shared_with": base if base != benchmark.name and base in main else None,
                "failures": dict(failures.get(benchmark.name, Counter()).most_common()),
            }
        )
    return rows


def _inside(figure: Figure, published: float) -> bool:
    """Whether a published score, which has one decimal, lies in the interval of a figure."""
    return figure["low"] - 0.05 <= published <= figure["high"] + 0.05


def markdown(table: SuiteTable) -> str:
    """Format the table in Markdown: scores, costs, sources, and the benchmarks that were left out."""
    first = "" if table["limit"] is None else f" Only the first {table['limit']} tasks of each benchmark were measured."
    lines = [
        f"{table['model']} beside the published scores of {table['compared_with']} "
        f"(recognized by {table['recognized_by']}), greedy, pass@1 in percent.{first}",
        "",
        "| benchmark | prompts | tasks | ours, 95% interval | published | inside | cut at the limit | tokens | seconds | tokens/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        inside = {True: "yes", False: "**no**", None: "-"}[row["inside"]]
        score = f"{row['ours']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        cost = [f"{row['cut']} of {row['answers']}", f"{row['tokens']:,}"]
        cost += [_number(row["seconds"]), _number(row["tokens_per_second"])]
        if row["shared_with"]:
            cost = [f"answers of {row['shared_with']}", "", "", ""]
        cells = [row["benchmark"], row["mode"], str(row["tasks"]), score, str(row["published"]), inside, *cost]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_footnotes(table)]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _footnotes(table: SuiteTable) -> list[str]:
    sources: dict[str, list[str]] = {}
    for row in table["rows"]:
        sources.setdefault(row["source"], []).append(row["benchmark"])
    lines = [f"- {source}: {', '.join(names)}" for source, names in sources.items()]
    lines += [
        f"- {row['benchmark']}, answers that did not pass: "
        + ", ".join(f"{count} {reason}" for reason, count in row["failures"].items())
        for row in table["rows"]
        if row["inside"] is False and row["failures"]
    ]
    return lines + [f"- {name} was not measured: {reason}" for name, reason in table["left_out"].items()]
