"""The commands that need no recipe: `align evaluate`, `align export`, `align doctor`, `align build`, `align show`.

align evaluate MODEL --tasks humaneval mbpp --data BENCHMARKS --out DIR
align evaluate --completions FILE --out DIR      grade completions made elsewhere
align evaluate --compare BEFORE AFTER            two such folders, task by task
align export MODEL --to f16 q4_K_M --out DIR     convert, quantize, and compare with the original
align doctor                                     what this machine can do
align build corpus PATH... --out DIR             make a dataset; `alignment.cli.data_commands` has this and `align show`
align sandbox serve                              grade for other machines; see `alignment.cli.sandbox_commands`
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from alignment.cli import data_commands, sandbox_commands
from alignment.grading.sandbox_settings import SandboxSettings

NAMES = ("evaluate", "export", "doctor", *data_commands.NAMES, *sandbox_commands.NAMES)


def add(commands: Any) -> None:
    """Add the commands to the command line's subparsers."""
    evaluate = commands.add_parser("evaluate", help="Measure a model, or grade completions made elsewhere.")
    evaluate.add_argument("model", nargs="?", help="a model's folder, or its name on the hub")
    evaluate.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME", help="benchmarks, for example humaneval or fim:rows.jsonl"
    )
    evaluate.add_argument("--list", action="store_true", help="name all benchmarks")
    evaluate.add_argument(
        "--completions", type=Path, nargs="+", metavar="FILE", help="grade these files or folders instead of generating"
    )
    evaluate.add_argument(
        "--sanitize", action="store_true", help="with --completions: take the code out of chat answers first"
    )
    evaluate.add_argument(
        "--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"),
        help="two folders of results: which tasks were won and lost, and whether that is more than chance",
    )  # fmt: skip
    evaluate.add_argument("--benchmark", help="with --completions: which benchmark, where the ids do not tell")
    evaluate.add_argument("--data", type=Path, help="the benchmarks' rows: a file, or a folder of them")
    evaluate.add_argument("--out", type=Path, default=Path("evaluation"), help="where results go (default: evaluation)")
    evaluate.add_argument("--mode", choices=("base", "chat"), help="prompts of base models, or ChatML")
    evaluate.add_argument("--limit", type=int, help="only the first so many tasks")
    evaluate.add_argument("--n", type=int, help="samples per task, for pass@k; needs --temperature")
    evaluate.add_argument("--temperature", type=float, help="0 is greedy; by default as published")
    evaluate.add_argument("--top-p", type=float)
    evaluate.add_argument("--max-new-tokens", type=int)
    evaluate.add_argument("--batch-size", type=int, help="sequences at once (default: as many as fit)")
    evaluate.add_argument("--engine", choices=("auto", "transformers", "vllm"), default="auto")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument(
        "--sandbox", metavar="URL", help="a grading service, for example http://host:8711 (default: this machine)"
    )
    sandbox_commands.add_consent(evaluate)
    evaluate.add_argument("--workers", type=int, help="programs at a time (default: one a core)")
    evaluate.add_argument("--json", action="store_true", help="print one JSON document")
    _add_export(commands)
    doctor = commands.add_parser("doctor", help="What this machine can do, and what to install for the rest.")
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    data_commands.add(commands)
    sandbox_commands.add(commands)


def _add_export(commands: Any) -> None:
    from alignment.export.export_targets import CHOICES

    export = commands.add_parser("export", help="Convert and quantize a model, and prove each file against it.")
    export.add_argument("model", type=Path, help="a model's folder")
    export.add_argument("--to", nargs="+", required=True, metavar="FORMAT", help=", ".join(CHOICES))
    export.add_argument("--out", type=Path, default=Path("export"), help="where files go (default: export)")
    export.add_argument("--held-out", metavar="ROWS", help="rows to compare on (default: Python's own library)")
    export.add_argument(
        "--calibration", nargs="+", default=[], metavar="ROWS", help="rows for importance matrices, GPTQ and AWQ"
    )
    export.add_argument("--imatrix", action="store_true", help="weigh GGUF levels by an importance matrix")
    export.add_argument("--benchmark", metavar="NAME[:ROWS]", help="measure pass@1 of every model on it too")
    export.add_argument("--adapter", type=Path, metavar="DIR", help="the LoRA adapter, for the format adapter")
    export.add_argument("--adapter-base", type=Path, metavar="DIR", help="its base model, where its config is wrong")
    export.add_argument("--name", help="in file names and the model card (default: the folder's name)")
    export.add_argument("--license", help="for metadata and model card, for example apache-2.0")
    export.add_argument("--base-model", metavar="OWNER/NAME", help="for metadata and model card")
    export.add_argument("--split-bytes", type=int, metavar="N", help="write GGUF files in parts of about this size")
    export.add_argument("--push", metavar="OWNER/NAME", help="upload to this private repository of the hub")
    export.add_argument("--seed", type=int, default=0)
    sandbox_commands.add_consent(export)
    export.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="any other key of a recipe's export stage: compare.context=128, quantize.group_size=64, "
        "compare.thresholds.q4_K_M.max_kl_divergence=0.1; may be repeated",
    )  # fmt: skip
    export.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Run one of `NAMES`."""
    if arguments.command in data_commands.NAMES:
        return data_commands.run(arguments)
    if arguments.command in sandbox_commands.NAMES:
        return sandbox_commands.run(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return {"evaluate": _evaluate, "export": _export, "doctor": _doctor}[arguments.command](arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from alignment.evaluation import catalogue

    if arguments.list:
        for name, (_, text) in catalogue.BENCHMARKS.items():
            print(f"{name:24} {text}")
        return 0
    given = [arguments.model, arguments.completions, arguments.compare]
    if sum(value is not None for value in given) != 1:
        raise ValueError("give either a model, or --completions FILE, or --compare BEFORE AFTER")
    if arguments.compare is not None:
        return _compare(arguments)
    generating = {key: getattr(arguments, key) for key in GENERATING if getattr(arguments, key) is not None}
    if arguments.completions is not None:
        for key in [*generating, *(["tasks"] if arguments.tasks else [])]:
            raise ValueError(f"--{key.replace('_', '-')} is about generating: it has no effect on --completions")
        documents: list[dict[str, Any]] | None = _grade(arguments)
    else:
        if not arguments.tasks:
            raise ValueError("name the benchmarks with --tasks; `align evaluate --list` shows them")
        for key in ("sanitize", "benchmark"):
            if getattr(arguments, key):
                raise ValueError(f"--{key} is about --completions: it has no effect on a model")
        documents = _measure(arguments, generating)
    if documents is None:
        return 0
    if arguments.json:
        print(json.dumps(documents, indent=2))
    else:
        for found in documents:
            interval = f"[{found['low']:.1f}, {found['high']:.1f}]"
            print(f"{found['benchmark']} {found['metric']}: {found['value']:.1f} {interval}, n = {found['n']}")
    return 0


def _sandbox(arguments: argparse.Namespace) -> SandboxSettings:
    """How programs run, from `--sandbox`, `--workers` and `--allow-weaker-sandbox`."""
    if arguments.sandbox in ("namespaces", "landlock"):
        raise ValueError(
            f"--sandbox {arguments.sandbox}: give the URL of a grading service, or leave it out to run programs on this "
            "machine; --allow-weaker-sandbox allows a weaker sandbox"
        )
    return SandboxSettings(
        address=arguments.sandbox, workers=arguments.workers, allow_weaker=arguments.allow_weaker_sandbox
    )


GENERATING = ("mode", "n", "temperature", "top_p", "max_new_tokens", "batch_size")


def _grade(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from alignment.evaluation import grade_completions

    return grade_completions(
        arguments.completions,
        arguments.out,
        benchmark=arguments.benchmark,
        data=arguments.data,
        limit=arguments.limit,
        sanitize=arguments.sanitize,
        sandbox=_sandbox(arguments),
    )


def _measure(arguments: argparse.Namespace, generating: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The results; None on ranks that only help."""
    from alignment.evaluation import evaluate, read_documents
    from alignment.evaluation.benchmark_request import parse_request

    if arguments.limit is not None:
        generating["limit"] = arguments.limit
    requests = []
    for request in map(parse_request, arguments.tasks):
        data: dict[str, Any] = (
            {"data": str(arguments.data)} if request.data is None and arguments.data is not None else {}
        )
        requests.append(dataclasses.replace(request, **data, **generating))
    figures = evaluate(
        arguments.model,
        requests,
        arguments.out,
        seed=arguments.seed,
        engine=arguments.engine,
        sandbox=_sandbox(arguments),
        progress=None if arguments.json else (lambda text: print(text, file=sys.stderr)),
    )
    return read_documents(arguments.out) if figures else None


def _compare(arguments: argparse.Namespace) -> int:
    from alignment.evaluation import compare

    rows = compare(*arguments.compare)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(
            f"{row['benchmark']} {row['score']}: {row['before']:.1f} -> {row['after']:.1f}, "
            f"{row['difference']:+.1f} [{row['low']:.1f}, {row['high']:.1f}], p = {row['p_value']:.3f}, n = {row['n']}"
        )
        for word in ("won", "lost"):
            print(f"  {word} {len(row[word])}: {' '.join(row[word][:20])}{' ...' if len(row[word]) > 20 else ''}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from alignment.export import export
    from alignment.export.card import row_line
    from alignment.stages.export import export_options

    sandbox = SandboxSettings(allow_weaker=arguments.allow_weaker_sandbox)
    options = dataclasses.replace(
        export_options(export_stage(arguments), sandbox, arguments.seed),
        name=arguments.name,
        adapter=arguments.adapter,
        adapter_base=arguments.adapter_base,
    )
    rows = export(arguments.model, arguments.to, arguments.out, options)
    print(json.dumps(rows, indent=2, default=str) if arguments.json else "\n".join(map(row_line, rows)))
    return 0 if all(row["passed"] for row in rows) else 1


def export_stage(arguments: argparse.Namespace) -> Any:
    """The command line as the export stage of a recipe, checked like one."""
    import yaml
    from pydantic import ValidationError

    from alignment.recipe import ExportStage
    from alignment.recipe.export_checks import check_stage

    given: dict[str, Any] = {"name": "export", "kind": "export", "formats": arguments.to}
    for key in ("imatrix", "license", "base_model", "split_bytes"):
        if value := getattr(arguments, key):
            given[key] = value
    if arguments.held_out:
        given["data"] = arguments.held_out
    if arguments.calibration:
        given["calibration"] = {"data": [{"data": rows} for rows in arguments.calibration]}
    if arguments.benchmark:
        benchmark, _, rows = arguments.benchmark.partition(":")
        given["benchmark"] = {"name": "benchmark", "benchmark": benchmark} | ({"data": rows} if rows else {})
    if arguments.push:
        given["push"] = {"repository": arguments.push, "visibility": "private"}
    for override in arguments.overrides:
        path, equals, value = override.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, not {override!r}")
        place = given
        *parents, last = path.split(".")
        for key in parents:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ValueError(f"--set {override}: {key} holds no further keys")
        place[last] = yaml.safe_load(value)
    try:
        stage = ExportStage.model_validate(given)
    except ValidationError as error:
        found = [(item["loc"], item["msg"]) for item in error.errors()]
        raise ValueError("; ".join(f"{'.'.join(map(str, place))}: {text}" for place, text in found)) from None
    if mistakes := list(check_stage(stage)):
        raise ValueError("; ".join(f"{'.'.join(map(str, place))}: {text}" for place, text in mistakes))
    return stage


def _doctor(arguments: argparse.Namespace) -> int:
    from alignment.cli import doctor

    return doctor.main(json_output=arguments.json)
