"""Repo-level documents: dependencies first, whole files, up to a length."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_helpers import code, run_builder

from alignment.models.formats import repo_document
from alignment.rows import reading as row_files
from data_builders.fim import FimSettings
from data_builders.parsing.imports import Resolver, imports
from data_builders.repo_level import dependency_order, split_text
from data_builders.storage.dataset import DatasetWriter

PLAIN = FimSettings(rate=0.0)

CASES = {
    "python": (
        {
            "src/app/__init__.py": "",
            "src/app/core.py": "",
            "src/app/util/__init__.py": "",
            "src/app/util/text.py": "",
            "src/app/main.py": "import os, app.core\nfrom .util import text\nfrom app import core as c\n",
            "tests/core.py": "",
        },
        "src/app/main.py",
        ["src/app/__init__.py", "src/app/core.py", "src/app/util/__init__.py", "src/app/util/text.py"],
    ),
    "typescript": (
        {
            "src/a.ts": "",
            "src/lib/index.ts": "",
            "src/b.tsx": "",
            "src/x.ts": "import {A} from './a'\nimport './lib'\nexport * from './b.js'\nconst z = require('react')\n",
        },
        "src/x.ts",
        ["src/a.ts", "src/b.tsx", "src/lib/index.ts"],
    ),
    "javascript": (
        {
            "lib/router.js": "",
            "lib/app.js": "var r = require('./router');\nvar fs = require('fs');\nimport('../index.js')\n",
            "index.js": "",
        },
        "lib/app.js",
        ["index.js", "lib/router.js"],
    ),
    "java": (
        {
            "src/main/java/com/firm/A.java": "",
            "src/main/java/com/firm/b/B.java": "",
            "src/main/java/com/firm/b/C.java": "",
            "M.java": "import com.firm.A;\nimport com.firm.b.*;\nimport static com.firm.A.run;\n",
        },
        "M.java",
        ["src/main/java/com/firm/A.java", "src/main/java/com/firm/b/B.java", "src/main/java/com/firm/b/C.java"],
    ),
    "go": (
        {
            "doc/doc.go": "",
            "doc/doc_test.go": "",
            "cobra.go": "",
            "cmd/main.go": 'import (\n\t"fmt"\n\t"github.com/spf13/cobra/doc"\n\t"github.com/spf13/cobra"\n)',
        },
        "cmd/main.go",
        ["cobra.go", "doc/doc.go"],
    ),
    "rust": (
        {
            "src/lib.rs": "",
            "src/model/mod.rs": "",
            "src/model/bpe.rs": "",
            "src/utils.rs": "",
            "src/main.rs": "mod model;\nuse crate::utils::parallelism;\nuse crate::model::bpe::Bpe;\nuse std::io;\n",
        },
        "src/main.rs",
        ["src/model/bpe.rs", "src/model/mod.rs", "src/utils.rs"],
    ),
    "c": (
        {
            "include/firm/list.h": "",
            "src/util.h": "",
            "src/main.c": '#include <stdio.h>\n#include <firm/list.h>\n#include "util.h"\n',
        },
        "src/main.c",
        ["include/firm/list.h", "src/util.h"],
    ),
}


@pytest.mark.parametrize("language", CASES)
def test_imports_are_resolved_within_the_repository(language: str) -> None:
    files, path, wanted = CASES[language]
    resolver = Resolver(files, "cobra")
    assert resolver.dependencies(path, language, imports(language, files[path])) == wanted


def test_dependencies_come_first() -> None:
    assert dependency_order({"a": ["b"], "b": ["c"], "c": [], "d": []}) == [["c", "b", "a"], ["d"]]


def test_cycles_are_fine_and_every_file_comes_once() -> None:
    groups = dependency_order({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
    assert len(groups) == 1 and sorted(groups[0]) == ["a", "b", "c", "d"]


def test_a_chain_of_ten_thousand_files_is_ordered() -> None:
    chain = {f"{number:05d}": [f"{number + 1:05d}"] if number < 9999 else [] for number in range(10_000)}
    assert dependency_order(chain)[0] == sorted(chain, reverse=True)


def write(folder: Path, files: dict[str, str]) -> Path:
    writer = DatasetWriter(folder, "document")
    for path, text in sorted(files.items()):
        writer.write(
            {
                "text": text,
                "repository": "project",
                "path": path,
                "commit": "c",
                "language": "python",
                "license": "owned",
                "kind": "code",
            }
        )
    writer.finish("in", {}, {})
    return folder


def test_a_small_repository_is_one_document_to_the_byte(tmp_path: Path) -> None:
    files = {"a.py": "import b\n" + code("alpha"), "b.py": code("beta")}
    run_builder("repo_level", tmp_path / "out", inputs=[write(tmp_path / "in", files)], render=True, fim=PLAIN)
    (row,) = row_files.read(tmp_path / "out")
    assert row["text"] == repo_document("project", [("b.py", files["b.py"]), ("a.py", files["a.py"])])
    assert row["files"] == 2


def test_documents_stay_within_the_length_and_lose_no_text(tmp_path: Path) -> None:
    files = {f"m{number}.py": code(f"module{number}", 4 + 9 * number) for number in range(12)}
    run_builder(
        "repo_level", tmp_path / "out", inputs=[write(tmp_path / "in", files)], max_length=600, render=True, fim=PLAIN
    )
    rows = list(row_files.read(tmp_path / "out"))
    assert len(rows) > 3
    assert all(len(row["text"].encode()) / 3 <= 600 for row in rows)
    lines = {line for row in rows for line in row["text"].split("\n")}
    assert all(line in lines for text in files.values() for line in text.split("\n"))


def test_fim_is_in_the_last_file_only(tmp_path: Path) -> None:
    files = {"a.py": code("alpha"), "b.py": code("beta")}
    run_builder(
        "repo_level", tmp_path / "out", inputs=[write(tmp_path / "in", files)], render=True, fim=FimSettings(rate=1.0)
    )
    (row,) = row_files.read(tmp_path / "out")
    assert row["text"].count("<|fim_prefix|>") == 1
    assert row["text"].rindex("<|file_sep|>") < row["text"].index("<|fim_prefix|>")
    assert row["text"].startswith(
        f"<|repo_name|>project\n<|file_sep|>a.py\n{files['a.py']}\n<|file_sep|>b.py\n<|fim_prefix|>"
    )


def test_a_file_name_cannot_smuggle_in_a_token_or_a_line(tmp_path: Path) -> None:
    run_builder(
        "repo_level",
        tmp_path / "out",
        inputs=[write(tmp_path / "in", {"x<|endoftext|>\n.py": code("name")})],
        render=True,
        fim=PLAIN,
    )
    (row,) = row_files.read(tmp_path / "out")
    assert row["text"].count("<|endoftext|>") == 1


def test_splitting_keeps_every_character() -> None:
    text = "".join(f"line {number}\n" for number in range(500)) + "x" * 5000
    assert "".join(split_text(text, 3000, 100)) == text


def test_rows_of_one_repository_must_be_together(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "in", "document")
    for repository in ("one", "two", "one"):
        writer.write(
            {"text": code("x"), "repository": repository, "path": "x.py", "language": "python", "license": "owned"}
        )
    writer.finish("in", {}, {})
    with pytest.raises(ValueError, match="not adjacent"):
        run_builder("repo_level", tmp_path / "out", inputs=[tmp_path / "in"])
