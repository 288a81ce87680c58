"""`align export`: convert and quantize a model, and compare each result with the original.

align export MODEL --to f16 q4_K_M --out DIR
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.cli.shared_options import add_command, add_consent, add_json, add_set

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands
    from alignment.recipe import ExportStage

# Keys of an export stage that have a command-line option.
OPTIONS = {
    "formats": "--to",
    "data": "--held-out",
    "calibration": "--calibration",
    "imatrix": "--imatrix",
    "benchmark": "--benchmark",
    "license": "--license",
    "base_model": "--base-model",
    "split_bytes": "--split-bytes",
    "push": "--push",
}


def add(commands: Commands) -> None:
    """Add the parser of `align export`."""
    export = add_command(commands, "export", "Convert and quantize a model, and compare each result with the original.")
    export.add_argument("model", type=Path, help="folder of the model")
    export.add_argument(
        "--to", nargs="+", required=True, metavar="FORMAT",
        help="GGUF levels (f16, q8_0, q4_K_M and others), gptq-int4, gptq-int8, awq-int4, ollama:LEVEL, "
        "llama.cpp:LEVEL, huggingface, vllm, adapter",
    )  # fmt: skip
    export.add_argument("--out", type=Path, default=Path("export"), help="output folder (default: export)")
    export.add_argument(
        "--held-out", metavar="ROWS", help="rows to compare on (default: code of Python's standard library)"
    )
    export.add_argument(
        "--calibration", nargs="+", default=[], metavar="ROWS", help="rows for importance matrices, GPTQ and AWQ"
    )
    export.add_argument(
        "--imatrix", action="store_true", help="weight the quantization of GGUF levels by an importance matrix"
    )
    export.add_argument(
        "--benchmark", metavar="NAME[:ROWS]", help="benchmark to measure pass@1 of the original and of every export on"
    )
    export.add_argument("--adapter", type=Path, metavar="DIR", help="the LoRA adapter, for the format `adapter`")
    export.add_argument(
        "--adapter-base",
        type=Path,
        metavar="DIR",
        help="the adapter's base model (default: as the adapter's config says)",
    )
    export.add_argument("--name", help="name in file names and the model card (default: the folder's name)")
    export.add_argument("--license", help="licence for metadata and model card, for example apache-2.0")
    export.add_argument("--base-model", metavar="OWNER/NAME", help="base model for metadata and model card")
    export.add_argument("--split-bytes", type=int, metavar="N", help="split GGUF files into parts of about this size")
    export.add_argument("--push", metavar="OWNER/NAME", help="upload to this private repository of the hub")
    export.add_argument("--seed", type=int, default=0, help="seed for sampling rows (default: 0)")
    add_consent(export)
    add_set(
        export,
        "any other key of a recipe's export stage, for example quantize.group_size=64 or "
        "compare.thresholds.q4_K_M.max_kl_divergence=0.1. Put a key that has dots in quotes: "
        "'max_perplexity_change.\"llama.cpp:q8_0\"=3'",
    )
    add_json(export)
    export.set_defaults(handler=_export)


def _export(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from alignment.export import export
    from alignment.export.card import row_line
    from alignment.grading import SandboxSettings
    from alignment.provenance.export_documents import artifact_of, with_documents
    from alignment.stages.export import export_options

    sandbox = SandboxSettings(allow_weaker=arguments.allow_weaker_sandbox)
    options = dataclasses.replace(
        export_options(export_stage(arguments), sandbox, arguments.seed),
        name=arguments.name,
        adapter=arguments.adapter,
        adapter_base=arguments.adapter_base,
    )
    options = with_documents(options, artifact_of(arguments.model), arguments.model)
    rows = export(arguments.model, arguments.to, arguments.out, options)
    print(json.dumps(rows, indent=2, default=str) if arguments.json else "\n".join(map(row_line, rows)))
    return 0 if all(row["passed"] for row in rows) else 1


def export_stage(arguments: argparse.Namespace) -> ExportStage:
    """Turn the command line into the export stage of a recipe, and check the stage.

    Raises:
        RecipeError: a setting is wrong.
    """
    from alignment.evaluation.benchmark_request import parse_request
    from alignment.recipe.overlays import override
    from alignment.recipe.recipe_file import validate_export
    from alignment.recipe.yaml_source import YamlSource

    settings: dict[str, Any] = {"name": "export", "kind": "export", "formats": arguments.to}
    for key in ("imatrix", "license", "base_model", "split_bytes"):
        if value := getattr(arguments, key):
            settings[key] = value
    if arguments.held_out:
        settings["data"] = arguments.held_out
    if arguments.calibration:
        settings["calibration"] = {"data": [{"data": rows} for rows in arguments.calibration]}
    if arguments.benchmark:
        request = parse_request(arguments.benchmark)
        settings["benchmark"] = {"name": "benchmark", "benchmark": request.benchmark}
        settings["benchmark"] |= {"data": request.data} if request.data else {}
    if arguments.push:
        settings["push"] = {"repository": arguments.push, "visibility": "private"}
    source = YamlSource(settings, {(): ("align export", 0), **{(key,): (flag, 0) for key, flag in OPTIONS.items()}})
    for assignment in arguments.overrides:
        source = override(source, assignment)
    return validate_export(source)
