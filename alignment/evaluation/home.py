"""Where a benchmark's rows come from: a path that you give, the cache, or the benchmark's home on the network.

Nothing is downloaded where a path is given or where `HF_HUB_OFFLINE=1` is set. What is downloaded lies in
`$ALIGN_CACHE/benchmarks` (default `~/.cache/code-alignment/benchmarks`) and is checked by SHA-256 on every use: against
the sum that is written in the benchmark's module, or, where none is known, against the sum of the first download.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from alignment.evaluation.request import Request


@dataclass(frozen=True)
class Home:
    """The public place of a file."""

    file: str
    """Its name in the cache, and in a folder that you give."""
    url: str
    sha256: str | None = None
    """Of the uncompressed content."""
    aliases: tuple[str, ...] = ()
    """Other names under which it lies in folders."""
    note: str = ""
    """What else to know to get it."""


def cache_folder() -> Path:
    root = os.environ.get("ALIGN_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "code-alignment") / "benchmarks"


def locate(request: Request, home: Home) -> Path:
    """The file with the rows, downloaded if need be. ValueError says what to get and how."""
    if request.data is not None:
        return _given(Path(request.data), request, home)
    cached = cache_folder() / home.file
    if not cached.exists():
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise ValueError(f"{request.name}: {_how(home)} (nothing is downloaded while HF_HUB_OFFLINE is set)")
        _download(request, home, cached)
    _check(request, home, cached)
    return cached


def _given(path: Path, request: Request, home: Home) -> Path:
    if path.is_dir():
        names = (home.file, *home.aliases)
        for name in names:
            found = [
                path / name,
                *sorted(path.glob(f"*/{name}")),
            ]  # benchmarks with many files have folders of their own
            for file in found:
                if file.exists():
                    return file
        raise ValueError(f"{request.name}: {path} has no {' or '.join(names)}. {_how(home)}")
    if not path.exists():
        raise ValueError(f"{request.name}: there is no file {path}. {_how(home)}")
    return path


def _how(home: Home) -> str:
    note = f" {home.note}" if home.note else ""
    return f"get {home.file} from {home.url}, then name it with `data:`, or put it into {cache_folder()}.{note}"


def _download(request: Request, home: Home, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with urllib.request.urlopen(home.url, timeout=60) as answer, partial.open("wb") as file:
            shutil.copyfileobj(answer, file)
        partial.replace(target)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ValueError(f"{request.name}: download failed ({error}); {_how(home)}") from error
    finally:
        partial.unlink(missing_ok=True)


def _check(request: Request, home: Home, path: Path) -> None:
    found = content_sha256(path)
    remembered = path.with_name(path.name + ".sha256")
    expected = home.sha256 or (remembered.read_text().strip() if remembered.exists() else None)
    if expected is None:
        remembered.write_text(found + "\n")
    elif found != expected:
        raise ValueError(
            f"{request.name}: {path} has SHA-256 {found}, not {expected}: remove it and start again, or name the rows "
            "that you trust with `data:`"
        )


def content_sha256(path: Path) -> str:
    """SHA-256 of the content; a gzipped file is unpacked first, as its container differs from copy to copy."""
    hasher = hashlib.sha256()
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
