"""Redaction of the given texts with secrets, personal data and look-alikes: each gives its right result."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from data_builders.cleaning.redaction_settings import RedactionSettings
from data_builders.cleaning.secrets import redact
from data_builders.cleaning.syntax_check import still_parses

CASES = Path(os.environ.get("ALIGN_CASES_DIR", Path(__file__).resolve().parents[3] / "shared" / "cases"))
FILES = [CASES / "data" / f"{name}.jsonl" for name in ("secrets", "personal_data", "false_positives")]
WITH_HOSTS = RedactionSettings(internal_hosts=("internal", "local"))


def _cases() -> list[Any]:
    if not all(file.exists() for file in FILES):
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"{FILES[0].parent} does not exist"))]
    rows = [json.loads(line) for file in FILES for line in file.read_text().splitlines()]
    return [pytest.param(row, id=row["id"]) for row in rows]


@pytest.mark.parametrize("case", _cases())
def test_a_given_text_has_its_right_result(case: dict[str, Any]) -> None:
    check, text = case["check"], case["input"]
    settings = WITH_HOSTS if case["id"].startswith("host-") else RedactionSettings()
    redacted = redact(text, check["language"], settings).text
    assert not [value for value in check.get("gone", []) if value in redacted], redacted
    assert not [value for value in check.get("keep", []) if value not in redacted], redacted
    if check.get("same"):
        assert redacted == text
    assert still_parses(text, redacted, check["language"])
