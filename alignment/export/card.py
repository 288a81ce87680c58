"""Write the model card of an export: the exported files, their measurements, and commands to run them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.export import serving_files
from alignment.export.checkpoint import Qwen2Checkpoint
from alignment.export.export_row import ExportRow
from alignment.export.gguf_metadata import ModelDescription

COLUMNS = (
    ("Target", "target", "{}"),
    ("Size (MB)", "size_bytes", "{:.1f}"),
    ("Bits per weight", "bits_per_weight", "{:.2f}"),
    ("Perplexity", "perplexity", "{:.4g}"),
    ("Change (%)", "perplexity_increase", "{:+.2f}"),
    ("Top-1 agreement (%)", "top1_agreement", "{:.2f}"),
    ("KL divergence", "kl_divergence", "{:.2g}"),
    ("Greedy agreement (%)", "greedy_agreement", "{:.1f}"),
    ("pass@1 (%)", "pass_at_1", "{:.1f}"),
    ("Tokens/s", "tokens_per_second", "{:.0f}"),
    ("Fallback tensors", "fallback_tensors", "{}"),
    ("Gate", "passed", "{}"),
)
"""Columns of the table, each (title, key in `ExportRow`, format of the values)."""

SUMMARY_KEYS = (*(key for _, key, _ in COLUMNS[:-1]), "original_perplexity", "original_pass_at_1", "passed", "reasons")
"""Keys of an `ExportRow` that are copied into artifacts and reports."""


def figures_table(rows: Sequence[ExportRow]) -> str:
    """Return the measurements of all rows as a Markdown table. Columns without any value are omitted."""
    columns = [column for column in COLUMNS if any(row.get(column[1]) is not None for row in rows)]
    lines = ["| " + " | ".join(title for title, _, _ in columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row, key, form) for _, key, form in columns) + " |")
    return "\n".join(lines)


def summary(row: ExportRow) -> dict[str, Any]:
    """Return the values of a row for all keys in `SUMMARY_KEYS`, with None for missing values."""
    return {key: row.get(key) for key in SUMMARY_KEYS}


def row_line(row: ExportRow) -> str:
    """Format a row as one line of text for the terminal."""
    parts = [f"{row['size_bytes'] / 1e6:.1f} MB"]
    if "perplexity" in row:
        parts.append(f"perplexity {row['perplexity']:.4f} (original {row['original_perplexity']:.4f})")
        parts.append(f"top-1 agreement {row['top1_agreement']:.1f}%")
    if "pass_at_1" in row:
        parts.append(f"pass@1 {row['pass_at_1']:.1f}% (original {row['original_pass_at_1']:.1f}%)")
    if speed := row.get("tokens_per_second"):
        parts.append(f"{speed:.0f} tokens/s")
    verdict = "ok" if row["passed"] else "BROKEN: " + "; ".join(row["reasons"])
    return f"{row['target']}: {', '.join(parts)}, {verdict}"


def _cell(row: ExportRow, key: str, form: str) -> str:
    value: Any = row.get(key)
    if value is None:
        return "-"
    if key == "passed":
        return "passed" if value else "**broken**: " + "; ".join(row["reasons"]).replace("|", "\\|")
    return form.format(value / 1e6 if key == "size_bytes" else value)


def calibration_lines(rows: Sequence[ExportRow]) -> list[str]:
    """Return lines that describe the calibration data of the targets. Targets with the same data share a line."""
    targets: dict[str, list[str]] = {}
    for row in rows:
        if data := row.get("calibration"):
            forms = ", ".join(f"{count} {form}" for form, count in sorted(data["rows"].items()))
            targets.setdefault(f"{forms} rows, {data['tokens']} tokens", []).append(row["target"])
    if not targets:
        return []
    return ["Calibration data:", "", *(f"- {', '.join(names)}: {text}" for text, names in targets.items()), ""]


def model_card(
    description: ModelDescription,
    rows: Sequence[ExportRow],
    *,
    measured_on: str,
    commands: Sequence[tuple[str, str]] = (),
    sections: str = "",
) -> str:
    """Return README.md of an export, with the metadata block that the Hugging Face Hub reads.

    Args:
        description: The model's name, licence, base model and provenance.
        rows: The model's exports.
        measured_on: A phrase that names the data on which the exports were measured.
        commands: Titles and shell commands, see `run_commands`.
        sections: Further sections, as Markdown.
    """
    header = ["---"]
    if description.license:
        header.append(f"license: {description.license}")
    if description.base_model:
        header.append(f"base_model: {description.base_model}")
    header += ["pipeline_tag: text-generation", "tags:", "- code", "---", "", f"# {description.name}", ""]
    if description.base_model:
        header += [f"Fine-tuned from {description.base_model}.", ""]
    body = _figures_section(rows, measured_on) if rows else []
    body += calibration_lines(rows)
    if commands:
        body += ["## Run it", ""]
        for title, command in commands:
            body += [f"{title}:", "", "```sh", command, "```", ""]
    body += [
        "## Limits",
        "",
        "llama.cpp and Ollama do not normalize text: input that is not in Unicode's normal form C (for example a letter "
        "followed by a combining accent) is split into other tokens than by the original tokenizer.",
        "",
    ]
    if sections:
        body.append(sections)
    if description.provenance:
        body += [
            "## Provenance",
            "",
            *(f"- {key}: {value}" for key, value in sorted(description.provenance.items())),
            "",
        ]
    return "\n".join(header + body)


def _figures_section(rows: Sequence[ExportRow], measured_on: str) -> list[str]:
    lines = [
        "## How close each file is to the original",
        "",
        "Each file was loaded by its own runtime in a fresh process and compared with the original model on "
        f"{measured_on}. The original's perplexity there is {rows[0]['original_perplexity']:.4g}.",
        "",
        figures_table(rows),
        "",
    ]
    if any(row.get("fallback_tensors") for row in rows):
        lines += [
            "Fallback tensors have rows whose length is not a multiple of 256, which the level's own type requires; they "
            "have a larger type.",
            "",
        ]
    return lines


def run_commands(checkpoint: Qwen2Checkpoint, name: str, out: Path, rows: Sequence[ExportRow]) -> list[tuple[str, str]]:
    """Return titles and shell commands that run each export that passed.

    The commands must be run in the folder `out`.
    """
    commands: list[tuple[str, str]] = []
    long = serving_files.supports_long_context(checkpoint)
    for row in rows:
        path = os.path.relpath(row["file"], out)
        if not row["passed"] or row["target"] == "adapter":
            continue
        if row["target"].startswith("ollama"):
            commands.append(("Ollama", f"cd {path} && {row['command']}"))
        elif row["target"].startswith("llama.cpp"):
            commands.append((f"llama.cpp's server, {row['level']}", f"./{path}/serve.sh"))
        elif "level" in row:
            title = f"llama.cpp's server, {row['level']}"
            commands.append((title, serving_files.llama_server_command(checkpoint, path, name)))
            if long:
                command = serving_files.llama_server_command(checkpoint, path, name, long=True)
                commands.append((f"{title}, four times the context by YaRN", command))
        else:
            title = f"vLLM, {row['target']}"
            commands.append((title, f"cd {path} && {row['command']}"))
            if long:
                command = serving_files.vllm_command(checkpoint, name, long=True)
                commands.append((f"{title}, four times the context by YaRN", f"cd {path} && {command}"))
    return commands
