"""What is kept of a benchmark to recognise its texts: hashes of its runs of words, by file, in a cache.

Indexing all public benchmarks takes seconds, more than the work on a small repository; `index_file` keeps what it found
in the cache, under a hash of the file's bytes and of the code that indexes it. An entry that can't be read is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.cache import cache_root
from alignment.rows import reading as row_files
from alignment.rows import row_texts
from alignment.rows.row_texts import all_texts
from data_builders.cleaning import held_out, shingles
from data_builders.cleaning.shingles import Hashes, Runs, ngram_hashes, word_hashes, word_hashes_of, word_spans

NGRAM_WORDS = 10
"""Words of a run that counts wherever it stands."""
MIN_WORDS = 3
"""What has fewer words is in every text."""
HEAD_WORDS = MIN_WORDS + 1
"""Words of a short program that are looked up first: the fewest that one has."""
FRAME_ROWS, FRAME_SHARE = 10, 0.05

_DEFINES = re.compile(r"\b(?:def|function|func|fn|sub|fun|defn|defun|class|proc)\b")
_PROMPT_KEYS = ("prompt", "declaration", "text", "question", "instruction")
_SOLUTION_KEYS = ("canonical_solution", "code", "solution", "completion", "answer")
_IMPORT_LINE = re.compile(
    r"^[ \t]*(?:import [\w.*{}, \"]+;?|from [\w.]+ import [^\n]*|using [\w.= ]+;|#[ \t]*include[^\n]*|use [\w:{}, *]+;|"
    r"package [\w.]+;?)[ \t\r]*$",
    re.MULTILINE,
)
_BATCH = 1 << 19
"""Characters of benchmark texts that are hashed at once."""


def sequence_key(words: Hashes) -> int:
    """What a whole run of words is looked up by."""
    return int(Runs(words).sums(len(words))[0])


@dataclass
class BenchmarkIndex:
    """What is kept of one benchmark."""

    rows: int = 0
    grams: Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    """Runs of `NGRAM_WORDS` words, sorted."""
    short: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 3), dtype=np.uint64))
    """(programs, 3): of each short program its number of words, the sum of its first `HEAD_WORDS` and that of all."""
    whole: Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    """Solutions that are too short to count but as a whole answer."""
    bodies: list[str] = field(default_factory=list)
    """Code that a private benchmark holds out."""


def index_rows(rows: Iterable[dict[str, Any]]) -> BenchmarkIndex:
    """Index the rows of one benchmark. A row may be anything with texts in it."""
    made = _IndexBuilder()
    waiting: list[list[str]] = []
    count = size = 0
    bodies = []
    for row in rows:
        count += 1
        if isinstance(
            row.get(held_out.HELD_OUT_COLUMN), str
        ):  # a private benchmark shares all but this with what may train
            bodies.append(row[held_out.HELD_OUT_COLUMN])
            continue
        texts = list(dict.fromkeys([*all_texts(row), *_programs(row)]))
        made.solutions.update(row[key] for key in _SOLUTION_KEYS if isinstance(row.get(key), str))
        waiting.append(texts)
        size += sum(map(len, texts))
        if size > _BATCH:
            made.add(waiting)
            waiting, size = [], 0
    made.add(waiting)
    return made.kept(count, bodies)


class _IndexBuilder:
    """Gathers what is kept of the texts of a benchmark, some rows at a time."""

    def __init__(self) -> None:
        self.solutions: set[str] = set()
        self.grams: list[Hashes] = []
        self.short: dict[tuple[int, int, int], None] = {}
        self.whole: dict[int, None] = {}

    def add(self, rows: list[list[str]]) -> None:
        wholes = [text for texts in rows for text in texts]
        texts = [_IMPORT_LINE.sub("", text) for text in wholes]
        words, bounds = word_hashes_of(texts, lower=True)
        all_grams = ngram_hashes(words, NGRAM_WORDS)
        telling = _telling("\n".join(texts), words, NGRAM_WORDS)
        runs = []
        for whole, text, first, last in zip(wholes, texts, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            inside = slice(first, max(first, last - NGRAM_WORDS + 1))  # a run ends where its text does
            grams = all_grams[inside][telling[inside]]
            if (not len(grams) or whole != text) and last - first > MIN_WORDS and _DEFINES.search(text):
                # Too short, or all names are single letters, or imports stand between its runs.
                start = word_hashes(whole, lower=True) if whole != text else words[first:last]
                start = start[: 2 * NGRAM_WORDS - 1]
                self.short[len(start), sequence_key(start[:HEAD_WORDS]), sequence_key(start)] = None
            if whole in self.solutions:
                own = word_hashes(whole, lower=True) if whole != text else words[first:last]
                if MIN_WORDS <= len(own) < NGRAM_WORDS:
                    self.whole[sequence_key(own)] = None
            runs.append(grams)
        parts = iter(runs)
        self.grams += [
            np.unique(np.concatenate([*itertools.islice(parts, len(texts)), np.empty(0, dtype=np.uint64)]))
            for texts in rows
        ]
        self.solutions.clear()

    def kept(self, rows: int, bodies: list[str]) -> BenchmarkIndex:
        distinct, rows_with = np.unique(np.concatenate([*self.grams, np.empty(0, dtype=np.uint64)]), return_counts=True)
        telling = distinct[(rows_with < FRAME_ROWS) | (rows_with < FRAME_SHARE * rows)]
        short = np.array(list(self.short), dtype=np.uint64).reshape(-1, 3)
        return BenchmarkIndex(rows, telling, short, np.array(list(self.whole), dtype=np.uint64), bodies)


def _programs(row: dict[str, Any]) -> Iterator[str]:
    """The program that a prompt and its solution make, without the docstring between them."""
    solution = next((row[key] for key in _SOLUTION_KEYS if isinstance(row.get(key), str)), None)
    prompt = next((row[key] for key in _PROMPT_KEYS if isinstance(row.get(key), str)), None)
    if solution is None or prompt is None:
        return
    head = re.findall(r"^[ \t]*(?:async )?def [^\n]*(?:\n[^\n]*)*?:[ \t]*$", prompt, re.MULTILINE)
    if head:
        yield f"{head[-1]}\n{solution}"


def _lettered_words(raw: bytes) -> NDArray[np.int64]:
    """1 for each word of at least two letters, 0 for numbers and names like `a`."""
    starts, ends, letters = word_spans(raw, lower=True)
    is_letter = np.concatenate([[0], np.cumsum((letters > 57) & (letters != 95))])
    return (is_letter[ends] - is_letter[starts] >= 2).astype(np.int64)


def _telling(text: str, words: Hashes, length: int) -> NDArray[np.bool_]:
    """Which runs of `length` words are made of real words for at least half."""
    counts = np.concatenate([[0], np.cumsum(_lettered_words(text.encode("utf-8", "surrogatepass")))])
    if len(counts) != len(words) + 1:  # a text cut into blocks inside a word: count every run
        return np.ones(max(0, len(words) - length + 1), dtype=np.bool_)
    return (counts[length:] - counts[:-length]) * 2 >= length


def index_file(file: Path) -> BenchmarkIndex:
    """`index_rows` the rows of a file, from the cache where it has them. Nothing is cached of a private benchmark."""
    entry = _entry(file)
    known = _fetch(entry)
    if known is None:
        known = index_rows(row_files.read(file))
        if not known.bodies:
            _store(entry, known)
    return known


def _entry(file: Path) -> Path:
    with file.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    # Rows are read by the ending of the name, so it is part of what the content means.
    endings = "".join(file.suffixes[-2:])
    name = hashlib.sha256(f"{content} {endings} {code_hash()} {np.__version__}".encode()).hexdigest()
    return cache_root() / "benchmark-index" / f"{name}.npz"


@lru_cache(maxsize=1)
def code_hash() -> str:
    """A hash of the code that decides what is kept."""
    files = [__file__, row_files.__file__, row_texts.__file__, held_out.__file__, shingles.__file__]
    return hashlib.sha256(b"\0".join(Path(file).read_bytes() for file in files)).hexdigest()


def _fetch(entry: Path) -> BenchmarkIndex | None:
    try:
        with np.load(entry, allow_pickle=False) as found:
            kept = BenchmarkIndex(int(found["rows"]), found["grams"], found["short"], found["whole"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    arrays = (kept.grams, kept.short, kept.whole)
    good = all(array.dtype == np.uint64 for array in arrays) and [array.ndim for array in arrays] == [1, 2, 1]
    return kept if good and kept.short.shape[1] == 3 else None


def _store(entry: Path, kept: BenchmarkIndex) -> None:
    """Keep what was found. A disk that is full or read-only costs time, nothing else."""
    with contextlib.suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=entry.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, rows=np.int64(kept.rows), grams=kept.grams, short=kept.short, whole=kept.whole)
            Path(name).replace(entry)
        except BaseException:
            Path(name).unlink()
            raise
