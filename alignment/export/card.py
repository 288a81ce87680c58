"""The model card of an export: what was made, how it was measured, how to run it. Written from the rows alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.export import runtimes
from alignment.export.checkpoint import Checkpoint

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


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures of all rows as a Markdown table; columns that no row has are left out."""
    columns = [column for column in COLUMNS if any(row.get(column[1]) is not None for row in rows)]
    lines = ["| " + " | ".join(title for title, _, _ in columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row, key, form) for _, key, form in columns) + " |")
    return "\n".join(lines)


# What artifacts and reports keep of a row.
KEPT = (*(key for _, key, _ in COLUMNS[:-1]), "original_perplexity", "original_pass_at_1", "passed", "reasons")


def summary(row: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a row without its files; every row has the same keys, None where there is nothing."""
    return {key: row.get(key) for key in KEPT}


def said(row: Mapping[str, Any]) -> str:
    """A row in one line, for a terminal."""
    parts = [f"{row['size_bytes'] / 1e6:.1f} MB"]
    if "perplexity" in row:
        parts.append(f"perplexity {row['perplexity']:.4f} (original {row['original_perplexity']:.4f})")
        parts.append(f"top-1 agreement {row['top1_agreement']:.1f}%")
    if "pass_at_1" in row:
        parts.append(f"pass@1 {row['pass_at_1']:.1f}% (original {row['original_pass_at_1']:.1f}%)")
    if row.get("tokens_per_second"):
        parts.append(f"{row['tokens_per_second']:.0f} tokens/s")
    verdict = "ok" if row["passed"] else "BROKEN: " + "; ".join(row["reasons"])
    return f"{row['target']}: {', '.join(parts)}, {verdict}"


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    if key == "passed":
        return "passed" if value else "**broken**: " + "; ".join(row["reasons"]).replace("|", "\\|")
    return form.format(value / 1e6 if key == "size_bytes" else value)


def calibration_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each row was calibrated on, rows with the same data together; nothing where none was."""
    used: dict[str, list[str]] = {}
    for row in rows:
        if data := row.get("calibration"):
            forms = ", ".join(f"{count} {form}" for form, count in sorted(data["rows"].items()))
            used.setdefault(f"{forms} rows, {data['tokens']} tokens", []).append(row["target"])
    if not used:
        return []
    return ["Calibration data:", "", *(f"- {', '.join(names)}: {text}" for text, names in used.items()), ""]


def model_card(
    about: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    measured_on: str,
    commands: Sequence[tuple[str, str]] = (),
) -> str:
    """README.md with the metadata block that model hubs read, the table, the commands and the limits."""
    header = ["---"]
    if about.get("license"):
        header.append(f"license: {about['license']}")
    if about.get("base_model"):
        header.append(f"base_model: {about['base_model']}")
    header += ["pipeline_tag: text-generation", "tags:", "- code", "---", "", f"# {about['name']}", ""]
    if about.get("base_model"):
        header += [f"Fine-tuned from {about['base_model']}.", ""]
    body: list[str] = []
    if rows:
        original = rows[0].get("original_perplexity")
        body += ["## How close each file is to the original", ""]
        body += [
            f"Each file was loaded by its own runtime in a fresh process and compared with the original model on "
            f"{measured_on}. The original's perplexity there is {original:.4g}.",
            "",
            table(rows),
            "",
        ]
        if any(row.get("fallback_tensors") for row in rows):
            body += [
                "Fallback tensors have rows that the level's own type can't hold (no multiple of 256) and take a "
                "larger one.",
                "",
            ]
    body += calibration_lines(rows)
    if commands:
        body += ["## Run it", ""]
        for title, command in commands:
            body += [f"{title}:", "", "```sh", command, "```", ""]
    body += [
        "## Limits",
        "",
        "llama.cpp and Ollama do not normalize text: input that is not in Unicode's normal form C (such as a letter "
        "followed by a combining accent) is split into other tokens than by the original tokenizer.",
        "",
    ]
    if about.get("provenance"):
        body += ["## Provenance", "", *(f"- {key}: {value}" for key, value in sorted(about["provenance"].items())), ""]
    return "\n".join(header + body)


def commands(checkpoint: Checkpoint, name: str, out: Path, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How to run each row that passed, from inside `out`: a title and a shell command."""
    found: list[tuple[str, str]] = []
    long = runtimes.supports_long_context(checkpoint)
    for row in rows:
        here = os.path.relpath(row["file"], out)
        if not row["passed"] or row["target"] == "adapter":
            continue
        if row["target"].startswith("ollama"):
            found.append(("Ollama", f"cd {here} && {row['command']}"))
        elif row["target"].startswith("llama.cpp"):
            found.append((f"llama.cpp's server, {row['level']}", f"./{here}/serve.sh"))
        elif "level" in row:
            title = f"llama.cpp's server, {row['level']}"
            found.append((title, runtimes.llama_server_command(checkpoint, here, name)))
            if long:
                command = runtimes.llama_server_command(checkpoint, here, name, long=True)
                found.append((f"{title}, four times the context by YaRN", command))
        else:
            title = f"vLLM, {row['target']}"
            found.append((title, f"cd {here} && {row['command']}"))
            if long:
                command = runtimes.vllm_command(checkpoint, name, long=True)
                found.append((f"{title}, four times the context by YaRN", f"cd {here} && {command}"))
    return found
