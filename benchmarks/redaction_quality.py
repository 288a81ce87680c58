"""Measure the redaction of secrets: recall, false positives and broken texts, beside detect-secrets and gitleaks.

    python -m benchmarks redaction [--gitleaks PATH] [--seed 7] [--show]

Texts are generated from a seed. A secret counts as found by the other programs if they report anything in its text.
`--gitleaks` names the program of https://github.com/gitleaks/gitleaks, which runs with its own rules.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.redaction_texts import LabelledText, look_alikes, personal_data, secrets
from data_builders.cleaning.secrets import redact
from data_builders.cleaning.syntax_check import still_parses

_SUFFIXES = {"python": "py", "shell": "sh", "yaml": "yaml", "javascript": "js", "json": "json", "c": "c", "typescript": "ts", "java": "java",
             "go": "go", "ruby": "rb", "c#": "cs", "sql": "sql", "html": "html", "php": "php", "rust": "rs", "markdown": "md",
             "kotlin": "kt", "text": "txt"}  # fmt: skip
Scanner = Callable[[Sequence[LabelledText]], list[bool]]
"""Type of a function that tells for each text whether a program reports a secret in the text."""


def redacted_values(texts: Sequence[LabelledText]) -> list[bool]:
    """Return for each text whether its value is replaced; for a text without value, whether the text changes."""
    changed = [redact(item.text, item.language).text for item in texts]
    return [
        item.value not in text if item.value else text != item.text for item, text in zip(texts, changed, strict=True)
    ]


def broken_texts(texts: Sequence[LabelledText]) -> int:
    """Count the texts that parse before the redaction and not after it."""
    return sum(not still_parses(item.text, redact(item.text, item.language).text, item.language) for item in texts)


def detect_secrets_reports(texts: Sequence[LabelledText]) -> list[bool]:
    """Return for each text whether detect-secrets with its default settings reports anything."""
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    with tempfile.TemporaryDirectory() as folder, default_settings():
        return [any(True for _ in scan_file(str(file))) for file in _write(texts, Path(folder))]


def gitleaks_reports(program: str, texts: Sequence[LabelledText]) -> list[bool]:
    """Return for each text whether gitleaks reports anything.

    Raises:
        ValueError: the program cannot be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = _write(texts, Path(folder) / "texts")
        report = Path(folder) / "report.json"
        command = [
            program,
            "dir",
            str(files[0].parent),
            "--report-format",
            "json",
            "--report-path",
            str(report),
            "--exit-code",
            "0",
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"gitleaks cannot be run as {program}: {error}") from None
        reported = {Path(finding["File"]).name for finding in json.loads(report.read_text())}
    return [file.name in reported for file in files]


def _write(texts: Sequence[LabelledText], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, item in enumerate(texts):
        file = folder / f"text{number}.{_SUFFIXES.get(item.language, 'ini')}"
        file.write_text(item.text, encoding="utf-8")
        files.append(file)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks redaction", description=__doc__.splitlines()[0])
    parser.add_argument("--gitleaks", help="path of the program gitleaks (default: not measured)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the texts (default: 7)")
    parser.add_argument("--show", action="store_true", help="print the texts with a missed value or a wrong change")
    options = parser.parse_args(arguments)
    groups = {
        "secrets": secrets(options.seed),
        "personal data": personal_data(options.seed),
        "look-alikes": look_alikes(options.seed),
    }
    scanners: dict[str, Scanner] = {"redaction": redacted_values}
    try:
        import detect_secrets  # noqa: F401
    except ImportError:
        print("detect-secrets is not installed: pip install 'code-alignment[dev]'", file=sys.stderr)
    else:
        scanners["detect-secrets"] = detect_secrets_reports
    if options.gitleaks:
        scanners["gitleaks"] = lambda texts: gitleaks_reports(options.gitleaks, texts)
    try:
        for name, scanner in scanners.items():
            for group, texts in groups.items():
                results = scanner(texts)
                share = sum(results) / len(texts)
                print(f"{name:<16} {group:<14} {sum(results):>4} of {len(texts):>4} = {share:6.1%}", flush=True)
                if options.show and name == "redaction":
                    wrong = group == "look-alikes"
                    print(
                        "".join(f"  {item.text!r}\n" for item, hit in zip(texts, results, strict=True) if hit == wrong),
                        end="",
                    )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"texts that parsed and do not parse after the redaction: {sum(map(broken_texts, groups.values()))}")
    return 0
