"""Where a benchmark's rows come from: a path that you give, the cache, or the benchmark's home on the network.

Nothing is downloaded where a path is given or where `HF_HUB_OFFLINE=1` is set. What is downloaded lies in
`$ALIGN_CACHE/benchmarks` (default `~/.cache/code-alignment/benchmarks`) and is checked by SHA-256 on every use: against
the sum that is written in the benchmark's module, or, where none is known, against the sum of the first download.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

from alignment.cache import cache_root
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.files import write_text


@dataclass(frozen=True)
class Home:
    """The public place of a file."""

    file: str
    """Its name in the cache, and in a folder that you give."""
    url: str
    """What is downloaded; or, with `by_hand`, where a person gets it."""
    sha256: str | None = None
    """Of the uncompressed content."""
    by_hand: bool = False
    """Whether it takes more than one download: then it is only said how."""
    aliases: tuple[str, ...] = ()
    """Other names under which it lies in folders."""
    note: str = ""
    """What else to know to get it."""


def cache_folder() -> Path:
    return cache_root() / "benchmarks"


def locate(request: BenchmarkRequest, home: Home) -> Path:
    """The file with the rows, downloaded if need be. ValueError says what to get and how."""
    if request.data is not None:
        return _given(Path(request.data), request, home)
    cached = cache_folder() / home.file
    for name in home.aliases:
        if not cached.exists() and (cache_folder() / name).exists():
            return cache_folder() / name
    if not cached.exists():
        if home.by_hand:
            raise ValueError(f"{request.name}: {_how(home)}")
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise ValueError(f"{request.name}: {_how(home)} (nothing is downloaded while HF_HUB_OFFLINE is set)")
        cached.parent.mkdir(parents=True, exist_ok=True)
        with cached.with_name(cached.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several ranks start at once: one downloads
            if not cached.exists():
                _download(request, home, cached)
    _check(request, home, cached)
    return cached


def _given(path: Path, request: BenchmarkRequest, home: Home) -> Path:
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


def _download(request: BenchmarkRequest, home: Home, target: Path) -> None:
    """Into the cache, going on where an earlier download of the same file was cut off; unpacked, where `file` is."""
    source = urllib.parse.urlparse(home.url).path
    packed = target.with_name(target.name + ".gz") if source.endswith(".gz") and target.suffix != ".gz" else target
    partial = packed.with_name(packed.name + ".partial")
    try:
        _fetch(home.url, partial)
        if packed != target:
            whole = target.with_name(f"{target.name}.{os.getpid()}.unpacked")
            with gzip.open(partial, "rb") as content, whole.open("wb") as file:
                shutil.copyfileobj(content, file)
            whole.replace(target)
            partial.unlink()
        else:
            partial.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{request.name}: the download failed ({error}); {_how(home)}") from error


def _fetch(url: str, partial: Path) -> None:
    """`partial` becomes the whole file; what is there already is not asked for again, where the server can do that."""
    begun = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not begun:
            raise
        partial.unlink()  # longer than the file: of something else
        return _fetch(url, partial)
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
        length = answer.headers.get("Content-Length")
        with partial.open("ab" if goes_on else "wb") as file:
            shutil.copyfileobj(answer, file)
    expected = int(length) + (begun if goes_on else 0) if length else None
    if expected is not None and partial.stat().st_size != expected:
        raise ValueError(
            f"the connection broke after {partial.stat().st_size} of {expected} bytes; the next start goes on"
        )
    return None


def _check(request: BenchmarkRequest, home: Home, path: Path) -> None:
    found = content_sha256(path)
    remembered = path.with_name(path.name + ".sha256")
    expected = home.sha256 or (remembered.read_text().strip() if remembered.exists() else None)
    if expected is None:
        write_text(remembered, found + "\n")  # at once: other ranks may read it in this moment
    elif found != expected:
        raise ValueError(
            f"{request.name}: {path} has SHA-256 {found}, not {expected}: remove it and start again, or name the rows "
            f"that you trust with `data:`. It should be {home.url}"
        )


def content_sha256(path: Path) -> str:
    """SHA-256 of the content; a gzipped file is unpacked first, as its container differs from copy to copy."""
    hasher = hashlib.sha256()
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
