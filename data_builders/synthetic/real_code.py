"""Make documents from code that every machine has: Python's standard library and the history of a git checkout."""

import hashlib
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from data_builders.repositories import git
from data_builders.synthetic.documents import document
from data_builders.synthetic.grammar_problems import Row

LARGEST_FILE = 40_000
"""Maximum size of a file in bytes. Larger files of the standard library are often tables of data instead of code."""


def standard_library_documents(seed: int, characters: int) -> Iterator[Row]:
    """Yield modules of the standard library, in an order that depends on `seed`. Tests are left out.

    Args:
        seed: seed of the hash that orders the modules.
        characters: approximate total length of the documents.
    """
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__", "encodings"}
    paths = [path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts)]
    names = {path.relative_to(root).as_posix(): path for path in paths}
    total = 0
    for name in sorted(names, key=lambda name: hashlib.sha256(f"{seed}-{name}".encode()).digest()):
        if total >= characters:
            return
        if not 200 < names[name].stat().st_size <= LARGEST_FILE:
            continue
        text = names[name].read_text(encoding="utf-8", errors="ignore")
        total += len(text)
        yield document(text, "python-standard-library", name, kind="code", license="PSF-2.0")


def history_documents(checkout: Path, characters: int, *, license: str = "Apache-2.0") -> Iterator[Row]:
    """Yield commits of a git checkout that change Python files, oldest first: the message, then the patch.

    Args:
        checkout: folder of the checkout. If the folder is not a git checkout (for example, an unpacked source archive),
            nothing is yielded.
        characters: approximate total length of the documents.
        license: value of the column `license`.
    """
    revisions = _git(checkout, "log", "--reverse", "--no-merges", "--format=%H", "--", "*.py")
    total = 0
    for revision in (revisions or "").split():
        if total >= characters:
            return
        patch = _git(
            checkout,
            "show",
            "--format=%B",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--unified=3",
            revision,
            "--",
            "*.py",
        )
        if patch:
            total += len(patch)
            yield document(
                patch,
                checkout.resolve().name,
                f"{revision[:12]}.patch",
                kind="commit",
                license=license,
                commit=revision,
            )


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "--no-pager", *git.SAFE_OPTIONS, "-C", str(checkout), *arguments]
        done = subprocess.run(command, capture_output=True, check=True, env=git.environment())
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", errors="ignore")
