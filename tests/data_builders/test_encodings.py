"""Files of every encoding and line end are decoded, and repositories of such files give rows of every kind."""

from __future__ import annotations

import base64
import codecs
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import MakeRepository, code, commit, run_builder, write_files

from alignment.rows import reading as row_files
from data_builders.repositories.sources import read_texts, resolve
from data_builders.repositories.text_decoding import decode, decode_python, is_plain_path, python_as_utf8

CASES = Path(os.environ.get("ALIGN_CASES_DIR", Path(__file__).resolve().parents[3] / "shared" / "cases"))
FILE = CASES / "data" / "encodings_and_shapes.jsonl"
TEXT = '# Größe und Preis, für Köln\ndef total(preis, menge):\n    return "€" * menge\n'


def cases(*kinds: str) -> list[Any]:
    if not FILE.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"{FILE} is not on this machine"))]
    rows = map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
    return [pytest.param(row, id=row["id"]) for row in rows if row["check"]["kind"] in kinds]


def contents(files: Mapping[str, Any]) -> dict[str, str | bytes]:
    return {path: base64.b64decode(file["base64"]) if isinstance(file, dict) else file for path, file in files.items()}


def check_text(text: str, check: Mapping[str, Any]) -> None:
    assert all(part in text for part in check.get("contains", []))
    assert not any(part in text for part in check.get("lacks", []))


@pytest.mark.parametrize("case", cases("decode"))
def test_a_given_file_is_decoded(case: dict[str, Any]) -> None:
    for content in contents(case["input"]).values():
        assert isinstance(content, bytes)
        text, reason = decode(content)
        assert not reason
        check_text(text, case["check"])


@pytest.mark.parametrize("case", cases("corpus"))
def test_a_given_folder_gives_its_documents(case: dict[str, Any], tmp_path: Path) -> None:
    write_files(tmp_path / "project", contents(case["input"]))
    run_builder("corpus", tmp_path / "out", sources=[tmp_path / "project"])
    paths = [row["path"] for row in row_files.read(tmp_path / "out")]
    check = case["check"]
    assert len(paths) == check.get("count", len(paths)) and set(check.get("rows", paths)) <= set(paths)


@pytest.mark.parametrize("case", cases("commits"))
def test_a_given_change_gives_its_conversation(
    case: dict[str, Any], repository: MakeRepository, tmp_path: Path
) -> None:
    files = contents({path: file for path, file in case["input"].items() if path != "message"})
    before, after = (
        {path.partition("/")[2]: content for path, content in files.items() if path.startswith(f"{side}/")}
        for side in ("before", "after")
    )
    folder = repository(before)
    commit(folder, case["input"]["message"], after)
    run_builder("commits", tmp_path / "out", sources=[folder], seed=0)
    (row,) = row_files.read(tmp_path / "out")
    check_text(row["messages"][0]["content"], case["check"]["prompt"])


@pytest.mark.parametrize("case", cases("instructions"))
def test_a_given_folder_gives_its_instructions(case: dict[str, Any], tmp_path: Path) -> None:
    write_files(tmp_path / "project", contents(case["input"]))
    check = case["check"]
    try:
        run_builder("instructions", tmp_path / "out", sources=[tmp_path / "project"], kinds=check["kinds"])
    except ValueError:
        assert check.get("may_be_none")
        return
    for row in row_files.read(tmp_path / "out"):
        check_text(row["messages"][0]["content"], check.get("prompt", {}))


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("tasks"))
def test_a_given_repository_gives_its_task(case: dict[str, Any], tmp_path: Path, grader: Any) -> None:
    write_files(tmp_path / "project", contents(case["input"]))
    run_builder("tasks", tmp_path / "out", sources=[tmp_path / "project"])
    assert case["check"]["function"] in {row["entry_point"] for row in row_files.read(tmp_path / "out")}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"), (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (b"", "utf-16-le"), (b"", "utf-16-be"),
        (b"", "cp1252"),
    ],
)  # fmt: skip
def test_marks_line_ends_and_encodings_are_no_part_of_the_text(mark: bytes, encoding: str, line_end: str) -> None:
    assert decode(mark + TEXT.replace("\n", line_end).encode(encoding)) == (TEXT, "")


def test_mixed_line_ends_become_one() -> None:
    assert decode(b"a\r\nb\nc\rd") == ("a\nb\nc\nd", "")


@pytest.mark.parametrize(
    "content",
    [
        "привет, мир, это файл".encode("cp1251"), "дела идут хорошо".encode("koi8-r"), '名前 = "日本語の文字列"'.encode("shift_jis"),
        '名字 = "中文字符串很长"'.encode("gb18030"), b"\xff\xfea",
    ],
)  # fmt: skip
def test_encodings_that_can_not_be_told_apart_are_refused(content: bytes) -> None:
    assert decode(content) == ("", "encoding")


@pytest.mark.parametrize(
    "content", [b"\x00" * 40, b"\x7fELF\x02\x01\x01\x00\x00", bytes(range(256)), b"a\x00\x00b\x00\x00c\x00\x00d"]
)
def test_binary_files_are_refused(content: bytes) -> None:
    assert decode(content) == ("", "binary")


def test_a_compressed_file_without_zero_bytes_is_refused() -> None:
    assert decode(b"\x1f\x8b\x08\x08" + bytes(range(1, 256)) * 3) == ("", "encoding")


def test_a_declared_encoding_is_used() -> None:
    assert decode("# coding: koi8-r\n# дела идут хорошо\n".encode("koi8-r")) == (
        "# coding: koi8-r\n# дела идут хорошо\n",
        "",
    )


@pytest.mark.parametrize(
    ("content", "converted"),
    [
        (b"# -*- coding: latin-1 -*-\r\nx = '\xe9'\r\n", "# -*- coding: utf-8 -*-\nx = 'é'\n"),
        (b"#!/bin/python\r# vim: set fileencoding=cp1252 :\rx = '\x80'", "#!/bin/python\n# vim: set fileencoding=utf-8 :\nx = '€'"),
        (b"\xef\xbb\xbfx = 1\r\n", "x = 1\n"),
        (b"x = 'coding: latin-1'\n", "x = 'coding: latin-1'\n"),
        (b"", ""),
    ],
)  # fmt: skip
def test_python_files_are_converted_to_utf8(content: bytes, converted: str) -> None:
    assert python_as_utf8(content).decode() == converted
    compile(python_as_utf8(content), "converted.py", "exec")


@pytest.mark.parametrize("content", [b"x = '\xe9'\n", b"# coding: nonsense\n", b"x = 1\0\n"])
def test_a_file_that_python_refuses_stays_as_it_is(content: bytes) -> None:
    assert decode_python(content) is None and python_as_utf8(content) == content


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("a/b.py", True),
        ("größe/日本.py", True),
        ("a b'\"`.py", True),
        ("a\nb.py", False),
        ("a\u2028b.py", False),
        ("a\udce9.py", False),
    ],
)
def test_paths_with_control_characters_or_other_bytes_are_not_plain(path: str, plain: bool) -> None:
    assert is_plain_path(path) == plain


def test_the_texts_of_a_repository_are_decoded_and_names_escaped(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    files: dict[str, str | bytes] = {
        "a.py": TEXT.encode("cp1252"), "b.py": TEXT.replace("\n", "\r\n"), "c.py": b"\0\1", "d.py": pointer, "e\nf.py": TEXT,
        "caf\udce9.py": TEXT,
    }  # fmt: skip
    write_files(tmp_path / "project", files)
    (repository,) = resolve([tmp_path / "project"])
    assert read_texts(repository) == dict.fromkeys(["a.py", "b.py", "caf\\xe9.py", "e\\nf.py"], TEXT)


def test_names_with_line_breaks_and_other_bytes_are_shown_escaped(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a\nb.py": code("alpha"),
        "caf\udce9.py": code("beta"),
        "x\u2028y.py": code("gamma"),
    }
    write_files(tmp_path / "project", files)
    run_builder("corpus", tmp_path / "out", sources=[tmp_path / "project"])
    assert {row["path"] for row in row_files.read(tmp_path / "out")} == {"a\\nb.py", "caf\\xe9.py", "x\\u2028y.py"}
