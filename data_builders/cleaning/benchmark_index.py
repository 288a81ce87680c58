"""Index the texts of benchmarks as hashes of word n-grams, and cache the index of each benchmark file.

Indexing all public benchmarks takes seconds, which is longer than cleaning a small repository. The key of a cache entry
is a hash of the benchmark file's bytes and of the indexing code. A damaged cache entry is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.cache import cache_root
from alignment.files import write_bytes
from alignment.rows import reading as row_files
from alignment.rows import row_texts
from alignment.rows.row_texts import all_texts
from data_builders.cleaning import held_out, shingles
from data_builders.cleaning.shingles import Hashes, Runs, ngram_hashes, word_hashes, word_hashes_of, word_spans

NGRAM_WORDS = 10
"""Number of words in an n-gram. N-grams of benchmarks are searched everywhere in a row (arXiv 2409.12186, section
5)."""
MIN_WORDS = 3
"""Benchmark texts with fewer words are not indexed, because nearly every text contains them."""
HEAD_WORDS = MIN_WORDS + 1
"""Short programs are looked up by the hash of this many words at their start. Every short program has at least this
many words."""
FRAME_ROWS, FRAME_SHARE = 10, 0.05
"""An n-gram is ignored if it occurs in at least `FRAME_ROWS` rows and in at least this share of a benchmark's rows.

It then belongs to the frame that the benchmark puts around every prompt or test.
"""

_DEFINES = re.compile(r"\b(?:def|function|func|fn|sub|fun|defn|defun|class|proc)\b")
_PROMPT_KEYS = ("prompt", "declaration", "text", "question", "instruction")
_SOLUTION_KEYS = ("canonical_solution", "code", "solution", "completion", "answer")
_IMPORT_LINE = re.compile(
    r"^[ \t]*(?:import [\w.*{}, \"]+;?|from [\w.]+ import [^\n]*|using [\w.= ]+;|#[ \t]*include[^\n]*|use [\w:{}, *]+;|"
    r"package [\w.]+;?)[ \t\r]*$",
    re.MULTILINE,
)
_BATCH = 1 << 19
"""Number of characters of benchmark texts to hash at once."""


def sequence_key(words: Hashes) -> int:
    """Return the hash of a whole sequence of words."""
    return int(Runs(words).sums(len(words))[0])


@dataclass
class BenchmarkIndex:
    """The hashes of the texts of one benchmark."""

    rows: int = 0
    """Number of rows in the benchmark."""
    grams: Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    """Sorted hashes of n-grams of `NGRAM_WORDS` words. Shape: (n-grams,)."""
    short: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 3), dtype=np.uint64))
    """One row per short program: number of words, hash of the first `HEAD_WORDS` words, hash of all words.

    Shape: (programs, 3).
    """
    whole: Hashes = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    """Hashes of very short solutions, which are compared only with whole answers. Shape: (solutions,)."""
    bodies: list[str] = field(default_factory=list)
    """Held-out code of a private benchmark, which is searched by `held_out.Bodies`."""


def index_rows(rows: Iterable[dict[str, Any]]) -> BenchmarkIndex:
    """Index the texts of all rows of one benchmark. The rows may be of any kind."""
    builder = _IndexBuilder()
    batch: list[list[str]] = []
    count = size = 0
    bodies = []
    for row in rows:
        count += 1
        body = row.get(held_out.HELD_OUT_COLUMN)
        if isinstance(body, str):  # the rest of the row is code of the repository, which may be trained on
            bodies.append(body)
            continue
        texts = list(dict.fromkeys([*all_texts(row), *_programs(row)]))
        builder.solutions.update(row[key] for key in _SOLUTION_KEYS if isinstance(row.get(key), str))
        batch.append(texts)
        size += sum(map(len, texts))
        if size > _BATCH:
            builder.add(batch)
            batch, size = [], 0
    builder.add(batch)
    return builder.index(count, bodies)


class _IndexBuilder:
    """Collects the hashes of a benchmark, a batch of rows at a time."""

    def __init__(self) -> None:
        self.solutions: set[str] = set()
        """Solutions in the current batch of rows."""
        self.grams: list[Hashes] = []
        self.short: dict[tuple[int, int, int], None] = {}
        self.whole: dict[int, None] = {}

    def add(self, rows: list[list[str]]) -> None:
        """Add a batch of rows. Each row is a list of its texts."""
        originals = [text for texts in rows for text in texts]
        texts = [_IMPORT_LINE.sub("", text) for text in originals]
        words, bounds = word_hashes_of(texts, lower=True)
        all_grams = ngram_hashes(words, NGRAM_WORDS)
        telling = _telling("\n".join(texts), words, NGRAM_WORDS)
        grams_of_texts = []
        for original, text, first, last in zip(
            originals, texts, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True
        ):
            inside = slice(first, max(first, last - NGRAM_WORDS + 1))  # n-grams that lie completely in this text
            grams = all_grams[inside][telling[inside]]
            if (not len(grams) or original != text) and last - first > MIN_WORDS and _DEFINES.search(text):
                # The text has no n-gram (it is too short, or all names are single letters), or imports were removed.
                start = word_hashes(original, lower=True) if original != text else words[first:last]
                start = start[: 2 * NGRAM_WORDS - 1]
                self.short[len(start), sequence_key(start[:HEAD_WORDS]), sequence_key(start)] = None
            if original in self.solutions:
                solution = word_hashes(original, lower=True) if original != text else words[first:last]
                if MIN_WORDS <= len(solution) < NGRAM_WORDS:
                    self.whole[sequence_key(solution)] = None
            grams_of_texts.append(grams)
        remaining = iter(grams_of_texts)
        self.grams += [
            np.unique(np.concatenate([*itertools.islice(remaining, len(texts)), np.empty(0, dtype=np.uint64)]))
            for texts in rows
        ]
        self.solutions.clear()

    def index(self, rows: int, bodies: list[str]) -> BenchmarkIndex:
        """Make the index of all batches that were added.

        Args:
            rows: number of rows of the benchmark.
            bodies: held-out code of the benchmark.
        """
        distinct, rows_with = np.unique(np.concatenate([*self.grams, np.empty(0, dtype=np.uint64)]), return_counts=True)
        telling = distinct[(rows_with < FRAME_ROWS) | (rows_with < FRAME_SHARE * rows)]
        short = np.array(list(self.short), dtype=np.uint64).reshape(-1, 3)
        return BenchmarkIndex(rows, telling, short, np.array(list(self.whole), dtype=np.uint64), bodies)


def _programs(row: dict[str, Any]) -> Iterator[str]:
    """Yield the complete function of a row: the last `def` line of the prompt and the solution, without a docstring."""
    solution = next((row[key] for key in _SOLUTION_KEYS if isinstance(row.get(key), str)), None)
    prompt = next((row[key] for key in _PROMPT_KEYS if isinstance(row.get(key), str)), None)
    if solution is None or prompt is None:
        return
    head = re.findall(r"^[ \t]*(?:async )?def [^\n]*(?:\n[^\n]*)*?:[ \t]*$", prompt, re.MULTILINE)
    if head:
        yield f"{head[-1]}\n{solution}"


def _lettered_words(raw: bytes) -> NDArray[np.int64]:
    """Return 1 for each word with two letters or more, and 0 for words such as `42` and `a`. Shape: (words,)."""
    starts, ends, letters = word_spans(raw, lower=True)
    is_letter = np.concatenate([[0], np.cumsum((letters > 57) & (letters != 95))])
    return (is_letter[ends] - is_letter[starts] >= 2).astype(np.int64)


def _telling(text: str, words: Hashes, length: int) -> NDArray[np.bool_]:
    """Return one boolean for each n-gram: whether at least half of the n-gram's words have two letters or more.

    Shape: (n-grams,).
    """
    counts = np.concatenate([[0], np.cumsum(_lettered_words(text.encode("utf-8", "surrogatepass")))])
    if len(counts) != len(words) + 1:  # a block boundary split a word (see `word_hashes`): take all n-grams
        return np.ones(max(0, len(words) - length + 1), dtype=np.bool_)
    return (counts[length:] - counts[:-length]) * 2 >= length


def index_file(file: Path) -> BenchmarkIndex:
    """Load the index of a benchmark file from the cache, or make the index. A private benchmark is never cached."""
    entry = _cache_entry(file)
    index = _load_entry(entry)
    if index is None:
        index = index_rows(row_files.read(file))
        if not index.bodies:
            _store_entry(entry, index)
    return index


def _cache_entry(file: Path) -> Path:
    with file.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    # How a file is read depends on the ending of its name, so the ending is part of the key.
    endings = "".join(file.suffixes[-2:])
    name = hashlib.sha256(f"{content} {endings} {code_hash()} {np.__version__}".encode()).hexdigest()
    return cache_root() / "benchmark-index" / f"{name}.npz"


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Return a hash of the code that determines the index."""
    files = [__file__, row_files.__file__, row_texts.__file__, held_out.__file__, shingles.__file__]
    return hashlib.sha256(b"\0".join(Path(file).read_bytes() for file in files)).hexdigest()


def _load_entry(entry: Path) -> BenchmarkIndex | None:
    """Load an index from the cache. Return None if the entry does not exist or is damaged."""
    try:
        with np.load(entry, allow_pickle=False) as arrays:
            index = BenchmarkIndex(int(arrays["rows"]), arrays["grams"], arrays["short"], arrays["whole"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    parts = (index.grams, index.short, index.whole)
    valid = all(part.dtype == np.uint64 for part in parts) and [part.ndim for part in parts] == [1, 2, 1]
    return index if valid and index.short.shape[1] == 3 else None


def _store_entry(entry: Path, index: BenchmarkIndex) -> None:
    """Write an index to the cache. Errors are ignored, for example on a full or read-only disk."""
    archive = io.BytesIO()
    np.savez(archive, rows=np.int64(index.rows), grams=index.grams, short=index.short, whole=index.whole)
    with contextlib.suppress(OSError):
        write_bytes(entry, archive.getvalue())
