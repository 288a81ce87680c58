"""Redaction in the builders: code that parsed still parses, or its row is dropped and counted; options are passed on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_builders.builder import BuildContext
from data_builders.cleaning import clean_files, clean_rows
from data_builders.cleaning.clean_rows import CleanRowsSettings, build_clean, redact_row
from data_builders.cleaning.redaction_settings import DEFAULT, RedactionSettings
from data_builders.cleaning.secrets import Redacted, redact
from data_builders.cleaning.syntax_check import fenced_code_still_parses, still_parses
from data_builders.corpus import CorpusSettings, build_corpus
from data_builders.tasks import task_rows

CODE = 'def connect():\n    return login("ada", password="Kobalt77-xq")\n'


def breaking(text: str, language: str = "", settings: RedactionSettings = DEFAULT) -> Redacted:
    """Replace a password together with its quotes, as a faulty redaction would."""
    if "Kobalt" not in text:
        return Redacted(text, Counter())
    return Redacted(text.replace('"Kobalt77-xq"', "(("), Counter({"PASSWORD": 1}))


@pytest.mark.parametrize(
    ("language", "before", "after"),
    [
        ("javascript", "const a = 'x';\n", "const a = x';\n"),
        ("go", 'package a\n\nvar x = "y"\n', 'package a\n\nvar x = y"\n'),
        ("shell", "a='b'\n", "a=b'\n"),
    ],
)
def test_a_change_that_breaks_the_syntax_of_other_languages_is_noticed(language: str, before: str, after: str) -> None:
    pytest.importorskip("tree_sitter_language_pack", reason="needs the extra [syntax]")
    assert not still_parses(before, after, language)
    assert still_parses(after, before, language)


def test_code_between_fences_is_checked() -> None:
    before = "Look:\n\n```python\nx = 1\n```\nand ```json\n"
    assert fenced_code_still_parses(before, before.replace("x = 1", "y = 2"))
    assert not fenced_code_still_parses(before, before.replace("x = 1", "x = ("))
    assert not fenced_code_still_parses(before, before.replace("```python", "python"))


def test_clean_drops_a_row_whose_code_would_break(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clean_rows, "redact_text", breaking)
    document = {
        "text": CODE,
        "language": "python",
        "repository": "r",
        "path": "a.py",
        "commit": "",
        "license": "MIT",
        "kind": "code",
    }
    answer = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": f"```python\n{CODE}```"}]}
    assert redact_row(document, "python")[0] is None
    assert redact_row(answer)[0] is None
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in (document, document | {"text": "x = 1\n"})))
    report = build_clean(
        CleanRowsSettings.model_validate({"inputs": [str(rows)]}), BuildContext(out=tmp_path / "out", seed=0, workers=1)
    )
    assert report["removed"] == {"redaction_breaks_syntax": 1}
    assert report["rows"] == 1


def test_the_corpus_drops_a_file_that_would_break(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clean_files, "redact", breaking)
    source = tmp_path / "source"
    source.mkdir()
    (source / "LICENSE").write_text("MIT License\n\nPermission is hereby granted, free of charge, to any person")
    (source / "a.py").write_text(CODE * 3)
    settings = CorpusSettings.model_validate({"sources": [{"path": str(source), "license": "MIT"}]})
    report = build_corpus(settings, BuildContext(out=tmp_path / "out", seed=0, workers=1))
    assert report["removed"]["redaction_breaks_syntax"] == 1


def test_tasks_whose_code_would_break_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_rows, "redact", breaking)
    fim: dict[str, Any] = {
        "language": "python",
        "prefix": f"{CODE}\ndef f():\n",
        "middle": "    return 1\n",
        "suffix": "",
    }
    chat = {"language": "python", "prompt": f"Complete:\n\n```python\n{CODE}```\n", "reference": "return 1"}
    left_out: Counter[str] = Counter()
    assert task_rows.without_secrets([fim, chat, fim | {"prefix": "def f():\n"}], left_out)[0] == [
        fim | {"prefix": "def f():\n"}
    ]
    assert left_out == {"redaction_breaks_syntax": 2}


def test_internal_hosts_are_replaced_only_on_request(tmp_path: Path) -> None:
    text = 'URL = "https://db01.corp.nordhafen.internal:5432/x"\nhost = "build7.local"\n'
    assert redact(text, "python").text == text
    settings = RedactionSettings(internal_hosts=("internal", "local"))
    assert redact(text, "python", settings).text == text.replace(
        "db01.corp.nordhafen.internal", "host1.example.com"
    ).replace("build7.local", "host2.example.com")
    code = "x = config.local\ny = self.state.internal\nz = this.local(1)\n"
    assert redact(code, "python", settings).text == code
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": text, "language": "python"}))
    chosen = CleanRowsSettings.model_validate({"inputs": [str(rows)], "redaction": {"internal_hosts": ["internal"]}})
    report = build_clean(chosen, BuildContext(out=tmp_path / "out", seed=0, workers=1))
    assert report["redacted"] == {"HOST": 1}


def test_telephone_numbers_can_be_kept() -> None:
    text = "# on call: +49 30 23125 042\n"
    assert "23125" not in redact(text, "python").text
    assert redact(text, "python", RedactionSettings(phone_numbers=False)).text == text
