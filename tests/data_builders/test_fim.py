"""Fill-in-the-middle documents."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from corpus_helpers import code, run_builder

from alignment.models.formats import FIM_MIDDLE, contains_special_text
from alignment.rows import reading as row_files
from data_builders.fim import FimSettings, cut_document, fim_row
from data_builders.parsing.syntax_spans import syntax_span
from data_builders.storage.dataset import DatasetWriter


def document(name: str, text: str | None = None, language: str = "python") -> dict[str, str]:
    return {
        "text": text or code(name),
        "repository": "r",
        "path": f"{name}.py",
        "commit": "c",
        "language": language,
        "license": "owned",
        "kind": "code",
    }


@pytest.mark.parametrize("syntax_rate", [0.0, 1.0])
def test_the_three_pieces_are_the_file(syntax_rate: float) -> None:
    for number in range(50):
        row = document(f"part{number}")
        made = cut_document(row, FimSettings(rate=1.0, syntax_rate=syntax_rate), seed=0)
        assert made and made.prefix + made.middle + made.suffix == row["text"]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", code("spans")),
        (
            "javascript",
            "function total(items) {\n  const sum = items.reduce((a, b) => a + b, 0);\n  return sum * 2;\n}\n" * 3,
        ),
        ("go", "package main\n\nfunc Add(left int, right int) int {\n\tsum := left + right\n\treturn sum\n}\n"),
        ("rust", "fn add(left: i32, right: i32) -> i32 {\n    let sum = left + right;\n    sum\n}\n"),
        ("java", "class A {\n  int add(int left, int right) {\n    int sum = left + right;\n    return sum;\n  }\n}\n"),
        ("c++", "int add(int left, int right) {\n  int sum = left + right;\n  return sum;\n}\n"),
    ],
)
def test_a_syntax_span_is_a_whole_node(language: str, text: str) -> None:
    pytest.importorskip("tree_sitter_language_pack", reason="needs the extra [syntax]")
    spans = {syntax_span(text, language, random.Random(seed)) for seed in range(30)} - {None}
    assert len(spans) > 3
    for span in spans:
        assert span is not None
        middle = text[span[0] : span[1]]
        assert (
            middle.strip() == middle.strip("\n ")
            and middle.count("(") == middle.count(")")
            and middle.count("{") == middle.count("}")
        )


def test_syntax_spans_count_characters_not_bytes() -> None:
    pytest.importorskip("tree_sitter_language_pack", reason="needs the extra [syntax]")
    text = '"""Grüße aus Zürich 😀😀😀"""\n' + code("umlauts")
    for seed in range(40):
        span = syntax_span(text, "python", random.Random(seed))
        if span and text[: span[0]].endswith("return "):
            ast.parse(text[span[0] : span[1]], mode="eval")


def test_the_rate_is_per_document() -> None:
    rows = [
        fim_row(document(f"rate{number}"), FimSettings(rate=0.5, spm_rate=0.5, syntax_rate=0.0), 0)
        for number in range(1000)
    ]
    cut_share = sum(row["format"] != "plain" for row in rows) / 1000
    spm_share = sum("spm" in row["format"] for row in rows) / 1000
    assert abs(cut_share - 0.5) < 0.05 and abs(spm_share - 0.25) < 0.05


def test_the_cut_of_a_file_depends_on_the_seed_and_not_on_other_files() -> None:
    settings = FimSettings(rate=1.0)
    assert fim_row(document("a"), settings, 1) == fim_row(document("a"), settings, 1)
    assert fim_row(document("a"), settings, 1) != fim_row(document("a"), settings, 2)


@pytest.mark.parametrize("spm_rate", [0.0, 1.0])
def test_special_text_of_a_file_never_becomes_a_token(spm_rate: float) -> None:
    for number in range(100):
        row = document(f"evil{number}", "x = '<|fim_middle|>' + '<|endoftext|>' + '<|file_sep|>'\n")
        text = fim_row(row, FimSettings(rate=1.0, syntax_rate=0.0, spm_rate=spm_rate), 0)["text"]
        assert text.count(FIM_MIDDLE) == 1
        pieces = text.removesuffix("<|endoftext|>").replace("<|fim_prefix|>", "", 1).replace("<|fim_suffix|>", "\0", 1)
        assert not contains_special_text(pieces.replace(FIM_MIDDLE, "", 1))


def test_build_fim_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "in", "document")
    for number in range(60):
        writer.write(document(f"worker{number}"))
    writer.finish("in", {}, {})
    reports = [
        run_builder("fim", tmp_path / f"out{workers}", inputs=[tmp_path / "in"], workers=workers) for workers in (1, 2)
    ]
    assert reports[0] == reports[1]
    assert sum(reports[0]["formats"].values()) == 60 == len(list(row_files.read(tmp_path / "out1")))


def test_a_rate_outside_0_and_1_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"rate\n.*less than or equal to 1"):
        FimSettings(rate=50)
