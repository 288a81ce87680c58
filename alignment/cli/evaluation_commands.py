"""`align evaluate`: measure a model on benchmarks, grade completions made elsewhere, or compare two evaluations.

align evaluate MODEL --tasks humaneval mbpp --data BENCHMARKS --out DIR
align evaluate MODEL --suite published --data BENCHMARKS --out DIR
align evaluate --completions FILE --out DIR
align evaluate --compare BEFORE AFTER
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.cli.shared_options import add_command, add_consent, add_json

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands
    from alignment.evaluation.engines.protocol import Engine
    from alignment.evaluation.results import Document
    from alignment.grading import SandboxSettings

SAMPLING_OPTIONS = ("n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty")
GENERATION_OPTIONS = ("mode", *SAMPLING_OPTIONS, "max_new_tokens", "batch_size")
COMPLETION_OPTIONS = ("sanitize", "benchmark")


def add(commands: Commands) -> None:
    """Add the parser of `align evaluate`."""
    evaluate = add_command(
        commands, "evaluate", "Measure a model, grade completions made elsewhere, or compare two evaluations."
    )
    evaluate.add_argument(
        "model", nargs="?", help="folder of a model, its name on the Hugging Face hub, or a GGUF file"
    )
    evaluate.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME",
        help="benchmarks: humaneval; fim:rows.jsonl with a file of its rows; my_bench.py:Tasks for your own code",
    )  # fmt: skip
    evaluate.add_argument(
        "--suite", choices=("published",),
        help="measure all benchmarks for which the model's report has scores, and print both in one table; --tasks selects "
        "some of them",
    )  # fmt: skip
    evaluate.add_argument(
        "--published", metavar="NAME", help="with --suite: the released model to compare with (default: recognized)"
    )
    evaluate.add_argument("--list", action="store_true", help="list all benchmarks")
    evaluate.add_argument(
        "--completions", type=Path, nargs="+", metavar="FILE", help="grade these files or folders instead of generating"
    )
    evaluate.add_argument(
        "--sanitize", action="store_true", help="with --completions: extract the code from chat answers first"
    )
    evaluate.add_argument(
        "--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"),
        help="compare two result folders: tasks won and lost, with a significance test",
    )  # fmt: skip
    evaluate.add_argument(
        "--benchmark", help="with --completions: the benchmark of the completions, if the task ids do not show it"
    )
    evaluate.add_argument("--data", type=Path, help="rows of the benchmarks: a file, or a folder of files")
    evaluate.add_argument("--out", type=Path, default=Path("evaluation"), help="result folder (default: evaluation)")
    evaluate.add_argument("--mode", choices=("base", "chat"), help="plain prompts for base models, or ChatML")
    evaluate.add_argument("--limit", type=int, help="use only this many tasks, the first ones")
    evaluate.add_argument("--n", type=int, help="samples per task, for pass@k; needs --temperature")
    evaluate.add_argument("--temperature", type=float, help="sampling temperature; 0 is greedy (default: as published)")
    evaluate.add_argument("--top-p", type=float, help="nucleus sampling (default: as published)")
    evaluate.add_argument("--top-k", type=int, help="sample from this many most likely tokens (default: all)")
    evaluate.add_argument(
        "--min-p",
        type=float,
        help="sample from tokens at least this times as likely as the most likely one (default: 0)",
    )
    evaluate.add_argument(
        "--repetition-penalty",
        type=float,
        help="make tokens of prompt and completion less likely, also greedily (default: 1)",
    )
    evaluate.add_argument("--max-new-tokens", type=int, help="tokens per sample (default: as published)")
    evaluate.add_argument("--batch-size", type=int, help="sequences per batch (default: as many as fit)")
    evaluate.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
        help="number format of the weights (default: bfloat16 on GPUs and on CPUs that multiply it in hardware)",
    )  # fmt: skip
    evaluate.add_argument(
        "--engine", choices=("auto", "transformers", "vllm", "llamacpp"), default="auto",
        help="generation engine (default: llamacpp for a GGUF file, vllm if it is installed and there is a GPU)",
    )  # fmt: skip
    evaluate.add_argument(
        "--server", metavar="URL",
        help="generate with this OpenAI-compatible server, for example http://127.0.0.1:8000 (vLLM, llama.cpp); MODEL is "
        "then the folder of its tokenizer. A token is read from the environment variable ALIGN_SERVER_TOKEN",
    )  # fmt: skip
    evaluate.add_argument("--served-model", metavar="NAME", help="with --server: the model's name on the server")
    evaluate.add_argument("--seed", type=int, default=0, help="sampling seed (default: 0)")
    evaluate.add_argument(
        "--sandbox", metavar="URL", help="a grading service, for example http://host:8711 (default: this machine)"
    )
    add_consent(evaluate)
    evaluate.add_argument("--workers", type=int, help="programs to run at the same time (default: one per core)")
    add_json(evaluate)
    evaluate.set_defaults(handler=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if arguments.list:
        return _list()
    subjects = [arguments.model, arguments.completions, arguments.compare]
    if sum(value is not None for value in subjects) != 1:
        raise ValueError("give either a model, or --completions FILE, or --compare BEFORE AFTER")
    if arguments.compare is not None:
        return print_comparison(*arguments.compare, as_json=arguments.json)
    if arguments.suite is not None:
        return _measure_suite(arguments)
    _reject(arguments, ("published",), "belongs to --suite published: add it, or remove --published")
    documents = _grade(arguments) if arguments.completions is not None else _measure(arguments)
    if documents is None:
        return 0
    if arguments.json:
        print(json.dumps(documents, indent=2))
        return 0
    for figure in documents:
        interval = f"[{figure['low']:.1f}, {figure['high']:.1f}]"
        print(f"{figure['benchmark']} {figure['metric']}: {figure['value']:.1f} {interval}, n = {figure['n']}")
    return 0


def _list() -> int:
    from alignment.evaluation import catalogue

    for name, (_, text) in catalogue.BENCHMARKS.items():
        print(f"{name:24} {text}")
    return 0


def _sandbox(arguments: argparse.Namespace) -> SandboxSettings:
    """Return the sandbox settings from `--sandbox`, `--workers` and `--allow-weaker-sandbox`."""
    from alignment.grading import SandboxSettings

    if arguments.sandbox in ("namespaces", "landlock"):
        raise ValueError(
            f"--sandbox {arguments.sandbox}: give the URL of a grading service, or remove --sandbox to run programs on "
            "this machine. --allow-weaker-sandbox allows a weaker sandbox"
        )
    return SandboxSettings(
        address=arguments.sandbox, workers=arguments.workers, allow_weaker=arguments.allow_weaker_sandbox
    )


def _reject(arguments: argparse.Namespace, names: tuple[str, ...], reason: str) -> None:
    """Raise ValueError with `reason` if one of the named options is given."""
    for name in names:
        if getattr(arguments, name) not in (None, False, []):
            raise ValueError(f"--{name.replace('_', '-')} {reason}")


def _grade(arguments: argparse.Namespace) -> list[Document]:
    from alignment.evaluation import grade_completions

    _reject(
        arguments, (*GENERATION_OPTIONS, "tasks"), "is for generating and has no effect with --completions: remove it"
    )
    return grade_completions(
        arguments.completions,
        arguments.out,
        benchmark=arguments.benchmark,
        data=arguments.data,
        limit=arguments.limit,
        sanitize=arguments.sanitize,
        sandbox=_sandbox(arguments),
    )


def _measure(arguments: argparse.Namespace) -> list[Document] | None:
    """Measure the model and return the results. Return None on ranks other than 0."""
    from alignment.evaluation import evaluate, read_documents
    from alignment.evaluation.benchmark_request import parse_request

    if not arguments.tasks:
        raise ValueError("name the benchmarks with --tasks; `align evaluate --list` lists them")
    _reject(arguments, COMPLETION_OPTIONS, "is for --completions and has no effect with a model: remove it")
    settings = {
        name: getattr(arguments, name)
        for name in (*GENERATION_OPTIONS, "limit")
        if getattr(arguments, name) is not None
    }
    requests = []
    for request in map(parse_request, arguments.tasks):
        data: dict[str, Any] = (
            {"data": str(arguments.data)} if request.data is None and arguments.data is not None else {}
        )
        requests.append(dataclasses.replace(request, **data, **settings))
    figures = evaluate(
        arguments.model,
        requests,
        arguments.out,
        seed=arguments.seed,
        engine=_server_engine(arguments) if arguments.server else arguments.engine,
        dtype=arguments.dtype,
        sandbox=_sandbox(arguments),
    )
    return read_documents(arguments.out) if figures else None


def _measure_suite(arguments: argparse.Namespace) -> int:
    """Measure the model on the benchmarks with published scores, and print the table."""
    from alignment.evaluation.published_suite import markdown, measure_published

    if arguments.model is None:
        raise ValueError("--suite published measures a model: name it")
    _reject(
        arguments,
        (*COMPLETION_OPTIONS, "mode", *SAMPLING_OPTIONS, "max_new_tokens"),
        "has no effect with --suite published, which measures as published: remove it",
    )
    table = measure_published(
        arguments.model,
        arguments.out,
        compared_with=arguments.published,
        only=arguments.tasks,
        data=str(arguments.data) if arguments.data is not None else None,
        limit=arguments.limit,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        engine=_server_engine(arguments) if arguments.server else arguments.engine,
        dtype=arguments.dtype,
        sandbox=_sandbox(arguments),
    )
    if table is not None:
        print(json.dumps(table, indent=2) if arguments.json else markdown(table), end="\n" if arguments.json else "")
    return 0


def _server_engine(arguments: argparse.Namespace) -> Engine:
    """Return an engine that generates with the server of `--server`."""
    from alignment.evaluation.engines.selection import open_server

    return open_server(
        arguments.server, arguments.model, served_model=arguments.served_model, batch_size=arguments.batch_size
    )


NAMED_TASKS = 10
"""Maximum number of tasks won and of tasks lost that a comparison names for each pass rate."""


def print_comparison(before: Path, after: Path, *, as_json: bool = False) -> int:
    """Print a paired test of two result folders, and the tasks won and lost. Returns the exit code."""
    from alignment.evaluation import compare

    rows = compare(before, after)
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    names = [f"{row['benchmark']}.{row['score']}" for row in rows]
    width = max(map(len, names))
    print(f"{'':{width}}  before   after   paired difference         won  lost   tasks    p")
    for name, row in zip(names, rows, strict=True):
        difference = f"{row['difference']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        print(
            f"{name:{width}}  {row['before']:6.1f}  {row['after']:6.1f}   {difference:24}  {len(row['won']):3}  {len(row['lost']):4}"
            f"  {row['n']:6}  {row['p_value']:.3f}"
        )
    for name, row in zip(names, rows, strict=True):
        for outcome in ("won", "lost") if row["score"] == "pass" else ():
            if tasks := row[outcome]:
                more = f" and {len(tasks) - NAMED_TASKS} more (--json lists them)" if len(tasks) > NAMED_TASKS else ""
                print(f"{name} {outcome}: {', '.join(tasks[:NAMED_TASKS])}{more}")
    return 0
