"""The commands that need no recipe: `align evaluate`, `align export`, `align doctor`, `align build`, `align show`.

align evaluate MODEL --tasks humaneval mbpp --data BENCHMARKS --out DIR
align evaluate --completions FILE --out DIR      grade completions made elsewhere
align export MODEL --to f16 q4_K_M --out DIR     convert, quantize, and compare with the original
align doctor                                     what this machine can do
align build corpus PATH... --out DIR             make a dataset; `alignment.data_commands` has this and `align show`
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from alignment import data_commands

NAMES = ("evaluate", "export", "doctor", *data_commands.NAMES)


def add(commands: Any) -> None:
    """Add the commands to the command line's subparsers."""
    evaluate = commands.add_parser("evaluate", help="Measure a model, or grade completions made elsewhere.")
    evaluate.add_argument("model", nargs="?", help="a model's folder, or its name on the hub")
    evaluate.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME", help="benchmarks, for example humaneval or fim:rows.jsonl"
    )
    evaluate.add_argument("--list", action="store_true", help="name all benchmarks")
    evaluate.add_argument("--completions", type=Path, metavar="FILE", help="grade this file instead of generating")
    evaluate.add_argument("--benchmark", help="with --completions: which benchmark, where the ids do not tell")
    evaluate.add_argument("--data", type=Path, help="the benchmarks' rows: a file, or a folder of them")
    evaluate.add_argument("--out", type=Path, default=Path("evaluation"), help="where results go (default: evaluation)")
    evaluate.add_argument("--mode", choices=("base", "chat"), help="prompts of base models, or ChatML")
    evaluate.add_argument("--limit", type=int, help="only the first so many tasks")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--workers", type=int, help="programs at a time (default: one a core)")
    evaluate.add_argument("--json", action="store_true", help="print one JSON document")
    export = commands.add_parser("export", help="Convert and quantize a model, and prove each file against it.")
    export.add_argument("model", type=Path, help="a model's folder")
    export.add_argument("--to", nargs="+", required=True, metavar="TARGET", help="for example f16 q8_0 q4_K_M")
    export.add_argument("--out", type=Path, default=Path("export"), help="where files go (default: export)")
    export.add_argument(
        "--held-out", type=Path, metavar="ROWS", help="rows to compare on (default: Python's own library)"
    )
    export.add_argument("--calibration", type=Path, metavar="ROWS", help="rows for importance matrices")
    export.add_argument("--imatrix", action="store_true", help="weigh the quantization by an importance matrix")
    export.add_argument("--json", action="store_true", help="print one JSON document")
    doctor = commands.add_parser("doctor", help="What this machine can do, and what to install for the rest.")
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    data_commands.add(commands)


def run(arguments: argparse.Namespace) -> int:
    """Run one of `NAMES`."""
    if arguments.command in data_commands.NAMES:
        return data_commands.run(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return {"evaluate": _evaluate, "export": _export, "doctor": _doctor}[arguments.command](arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from alignment.evaluation import catalogue

    if arguments.list:
        for name, (_, text) in catalogue.BENCHMARKS.items():
            print(f"{name:24} {text}")
        return 0
    if (arguments.model is None) == (arguments.completions is None):
        raise ValueError("give either a model, or --completions FILE")
    from alignment.evaluation.completions import grade_completions, read_documents

    if arguments.completions is not None:
        documents = grade_completions(
            arguments.completions,
            arguments.out,
            benchmark=arguments.benchmark,
            data=arguments.data,
            workers=arguments.workers,
            limit=arguments.limit,
        )
    else:
        if not arguments.tasks:
            raise ValueError("name the benchmarks with --tasks; `align evaluate --list` shows them")
        from alignment.evaluation import evaluate
        from alignment.evaluation.request import as_request

        requests = [_request(as_request(task), arguments) for task in arguments.tasks]
        say = None if arguments.json else (lambda text: print(text, file=sys.stderr))
        evaluate(arguments.model, requests, arguments.out, seed=arguments.seed, workers=arguments.workers, progress=say)
        documents = read_documents(arguments.out)
    if arguments.json:
        print(json.dumps(documents, indent=2))
    else:
        for found in documents:
            interval = f"[{found['low']:.1f}, {found['high']:.1f}]"
            print(f"{found['benchmark']} {found['metric']}: {found['value']:.1f} {interval}, n = {found['n']}")
    return 0


def _request(request: Any, arguments: argparse.Namespace) -> Any:
    import dataclasses

    given = {"mode": arguments.mode, "limit": arguments.limit}
    if request.data is None and arguments.data is not None:
        given["data"] = str(arguments.data)
    return dataclasses.replace(request, **{key: value for key, value in given.items() if value is not None})


def _export(arguments: argparse.Namespace) -> int:
    from alignment.export import export

    rows = export(
        arguments.model,
        arguments.to,
        arguments.out,
        held_out=arguments.held_out,
        calibration=arguments.calibration,
        imatrix=arguments.imatrix,
    )
    if arguments.json:
        print(json.dumps(rows, indent=2, default=str))
    else:
        for row in rows:
            verdict = "ok" if row["passed"] else "BROKEN: " + "; ".join(row["reasons"])
            print(f"{row['target']}: {row['size_bytes'] / 1e6:.1f} MB, perplexity {row['perplexity']:.4f} "
                  f"(original {row['original_perplexity']:.4f}), {verdict}")  # fmt: skip
    return 0 if all(row["passed"] for row in rows) else 1


def _doctor(arguments: argparse.Namespace) -> int:
    from alignment import doctor

    return doctor.main(json_output=arguments.json)
