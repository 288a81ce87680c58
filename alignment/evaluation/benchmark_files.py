"""Find the files of public benchmarks: at the path in the setting `data`, in the cache, or by a download.

Nothing is downloaded if `data` names the file or `HF_HUB_OFFLINE=1` is set. Downloads are stored in
`$ALIGN_CACHE/benchmarks` (default `~/.cache/code-alignment/benchmarks`). The SHA-256 of a file is checked on every use.
The expected hash is in the benchmark's module; if the module has none, it is the hash of the first download.
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
class PublicFile:
    """A file with the rows of a public benchmark."""

    file: str
    """The file's name in the cache, and in a folder that `data` names."""
    url: str
    """Address of the download. If `by_hand` is set: the page where a person gets the file."""
    sha256: str | None = None
    """SHA-256 of the uncompressed content."""
    by_hand: bool = False
    """Whether the file cannot be downloaded automatically. An error then tells the user where to get the file."""
    aliases: tuple[str, ...] = ()
    """Other names that the file may have in a folder."""
    note: str = ""
    """Further instructions for a person who gets the file."""


def cache_folder() -> Path:
    """Return the folder of downloaded benchmarks."""
    return cache_root() / "benchmarks"


def locate(request: BenchmarkRequest, source: PublicFile) -> Path:
    """Return the path of a benchmark's file. Download the file if necessary.

    Raises:
        ValueError: the file is missing (the message says where to get it and where to put it), the download failed, or
            the content does not have the expected SHA-256.
    """
    if request.data is not None:
        return _given(Path(request.data), request, source)
    cached = cache_folder() / source.file
    for name in source.aliases:
        if not cached.exists() and (cache_folder() / name).exists():
            return cache_folder() / name
    if not cached.exists():
        if source.by_hand:
            raise ValueError(f"{request.name}: {_instructions(source)}")
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise ValueError(
                f"{request.name}: {_instructions(source)} (nothing is downloaded while HF_HUB_OFFLINE is set)"
            )
        cached.parent.mkdir(parents=True, exist_ok=True)
        with cached.with_name(cached.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several ranks start at the same time: only one of them downloads
            if not cached.exists():
                _download(request, source, cached)
    _check(request, source, cached)
    return cached


def _given(path: Path, request: BenchmarkRequest, source: PublicFile) -> Path:
    """Return the file to which `data` points: the file itself, its folder, or the parent of its folder."""
    if path.is_dir():
        names = (source.file, *source.aliases)
        for name in names:
            for file in [path / name, *sorted(path.glob(f"*/{name}"))]:
                if file.exists():
                    return file
        raise ValueError(f"{request.name}: {path} has no {' or '.join(names)}. {_instructions(source)}")
    if not path.exists():
        raise ValueError(f"{request.name}: there is no file {path}. {_instructions(source)}")
    return path


def _instructions(source: PublicFile) -> str:
    note = f" {source.note}" if source.note else ""
    return f"get {source.file} from {source.url}, then name it with `data:`, or put it into {cache_folder()}.{note}"


def _download(request: BenchmarkRequest, source: PublicFile, target: Path) -> None:
    """Download a file, or resume an earlier download.

    Unpack a gzipped source unless the target's name ends in `.gz`.
    """
    address = urllib.parse.urlparse(source.url).path
    packed = target.with_name(target.name + ".gz") if address.endswith(".gz") and target.suffix != ".gz" else target
    partial = packed.with_name(packed.name + ".partial")
    try:
        _fetch(source.url, partial)
        if packed != target:
            unpacked = target.with_name(f"{target.name}.{os.getpid()}.unpacked")
            with gzip.open(partial, "rb") as content, unpacked.open("wb") as file:
                shutil.copyfileobj(content, file)
            unpacked.replace(target)
            partial.unlink()
        else:
            partial.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{request.name}: the download failed ({error}); {_instructions(source)}") from error


def _fetch(url: str, partial: Path) -> None:
    """Download the rest of the file `partial`. If the server does not support ranges, download the whole file."""
    size = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={size}-"} if size else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not size:
            raise
        partial.unlink()  # the partial file is longer than the file on the server, so it belongs to another file
        return _fetch(url, partial)
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
        length = response.headers.get("Content-Length")
        with partial.open("ab" if resumed else "wb") as file:
            shutil.copyfileobj(response, file)
    expected = int(length) + (size if resumed else 0) if length else None
    if expected is not None and partial.stat().st_size != expected:
        raise ValueError(
            f"the connection broke after {partial.stat().st_size} of {expected} bytes; the next start resumes there"
        )
    return None


def _check(request: BenchmarkRequest, source: PublicFile, path: Path) -> None:
    """Raise ValueError if the content does not have the expected SHA-256 (see the docstring of this module)."""
    actual = content_sha256(path)
    remembered = path.with_name(path.name + ".sha256")
    expected = source.sha256 or (remembered.read_text().strip() if remembered.exists() else None)
    if expected is None:
        write_text(remembered, actual + "\n")  # atomically: other ranks may be reading the file
    elif actual != expected:
        raise ValueError(
            f"{request.name}: {path} has SHA-256 {actual}, not {expected}: remove the file and start again, or name a "
            f"file that you trust with `data:`. The file comes from {source.url}"
        )


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    A `.gz` file is unpacked first, since gzip headers differ between copies.
    """
    hasher = hashlib.sha256()
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
