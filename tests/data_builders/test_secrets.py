"""Secrets and personal data are replaced, ordinary code is unchanged, and code still parses."""

from __future__ import annotations

import ast
import itertools
import json
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_secrets import NEGATIVE, POSITIVE

from data_builders.cleaning.secrets import find_secrets, redact

LONGEST = "\n".join(text for _, text, _ in POSITIVE)


@pytest.mark.parametrize(("language", "text", "values"), POSITIVE, ids=range(len(POSITIVE)))
def test_a_secret_is_replaced(language: str, text: str, values: list[str]) -> None:
    redacted = redact(text, language)
    for value in values:
        assert value not in redacted.text
    assert redacted.counts.total() >= 1


@pytest.mark.parametrize(("language", "text"), NEGATIVE, ids=range(len(NEGATIVE)))
def test_ordinary_text_is_unchanged(language: str, text: str) -> None:
    assert redact(text, language).text == text


@pytest.mark.parametrize(
    "case", [case for case in POSITIVE if case[0] == "python"], ids=range(sum(c[0] == "python" for c in POSITIVE))
)
def test_python_still_parses(case: tuple[str, str, list[str]]) -> None:
    ast.parse(redact(case[1], "python").text)


def test_json_still_parses() -> None:
    for language, text, _ in POSITIVE:
        if language == "json":
            json.loads(redact(text, language).text)


def test_one_value_has_one_replacement_everywhere_in_a_file() -> None:
    text = 'password = "tr0ub4dor&3"\nlog("tried tr0ub4dor&3")\nother = connect(password="s0mething-else")\n'
    redacted = redact(text, "python")
    assert redacted.text.count("REDACTED_PASSWORD_1") == 2
    assert redacted.text.count("REDACTED_PASSWORD_2") == 1


def test_redacting_twice_changes_nothing() -> None:
    once = redact(LONGEST, "yaml").text
    assert redact(once, "yaml").text == once


def test_findings_do_not_overlap_and_are_sorted() -> None:
    findings = find_secrets(LONGEST, "yaml")
    assert all(left.end <= right.start for left, right in itertools.pairwise(findings))


def test_a_truncated_private_key_is_redacted_too() -> None:
    body = "MIIEowIBAAKCAQEA7bq98Qd1rNl1"
    assert body not in redact("-----BEGIN RSA PRIVATE " + f"KEY-----\n{body}\n", "").text


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=string.printable + "äÄİß€😀", max_size=300))
def test_any_text_is_accepted_and_is_unchanged_without_findings(text: str) -> None:
    redacted = redact(text, "yaml")
    if not redacted.counts:
        assert redacted.text == text


def test_recall_is_not_below_detect_secrets(tmp_path: Path) -> None:
    pytest.importorskip("detect_secrets", reason="needs the extra [dev]")
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    endings = {
        "python": "py",
        "shell": "sh",
        "yaml": "yaml",
        "javascript": "js",
        "typescript": "ts",
        "c#": "cs",
        "json": "json",
    }
    theirs = ours = 0
    with default_settings():
        for number, (language, text, values) in enumerate(POSITIVE):
            file = tmp_path / f"case{number}.{endings.get(language, language or 'ini')}"
            file.write_text(text)
            their_values = [item.secret_value or "" for item in scan_file(str(file))]
            redacted = redact(text, language).text
            theirs += sum(
                any(secret and (secret in value or value in secret) for secret in their_values) for value in values
            )
            ours += sum(value not in redacted for value in values)
    print(f"found: detect-secrets {theirs}, ours {ours}")
    assert ours >= theirs


def test_a_value_of_many_capitals_takes_linear_time():
    # Each capital could start a word: a pattern that tries all segmentations takes exponential time.
    value = "_".join(["GZIP", "XFL", "DEFAULT", "SSL", "CIPHER"] * 8)
    text = f'token = "{value}-t_fe?"\n'
    assert redact(text, "python").text.startswith("token = ")
