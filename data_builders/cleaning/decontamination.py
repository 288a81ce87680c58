"""Find texts of benchmarks in training rows: by word 10-grams, or by exact match if a text has fewer words.

Qwen2.5-Coder removes rows that share a word 10-gram with HumanEval, MBPP, GSM8K or MATH (arXiv 2409.12186, section 5).
This misses 29 of HumanEval's 164 solutions and 153 of MBPP's 974 solutions, which have fewer than ten words.
DeepSeek-Coder adds an exact match for strings of 3 to 9 words. This module has two kinds of exact match:

- a short program with a definition (`def add(a, b): return a + b`) matches anywhere in a row;
- a shorter body (`return a + b`) matches only a whole answer, message or fenced code block, because half of all
  programs contain such a body somewhere.

N-grams that occur in at least ten rows and 5% of a benchmark are ignored. They belong to the frame of the benchmark's
prompts or to its test harness, and do not show that a training row contains a task.

If a row of a private benchmark has the column `held_out`, training rows are compared with this column only, see the
module `held_out`. The other columns hold code of the repository that may be used for training.

Words are runs of letters, digits and `_` of any script; ASCII letters are compared without case. A 10-gram is used only
if at least half of its words have two letters or more: `1 2 3 4 5 6 7 8 9 10` and `a b c d e f g h i j` occur in
benchmarks, but also in many other texts. For the same reason, import lines of benchmarks are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.rows import reading as row_files
from alignment.rows.row_texts import all_texts
from data_builders.cleaning.benchmark_index import (
    HEAD_WORDS,
    MIN_WORDS,
    NGRAM_WORDS,
    BenchmarkIndex,
    index_file,
    index_rows,
    sequence_key,
)
from data_builders.cleaning.held_out import Bodies
from data_builders.cleaning.shingles import Hashes, Runs, mix, word_hashes, word_spans

_FENCED = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_FILTER_BITS = 24
_HEAD_FILTER_BITS = 20
"""Number of leading bits of a hash that form the index into a filter table. The table quickly excludes most n-grams."""


@dataclass(frozen=True)
class Match:
    """A benchmark text that was found in a row."""

    benchmark: str
    """Name of the benchmark file."""
    rule: str
    """The rule that found the text: `10-gram`, `short program`, `whole answer` or `held-out code`."""
    words: str
    """The matching words. Empty for held-out code."""


class Decontaminator:
    """Index of benchmarks that checks whether rows contain texts of the benchmarks. Picklable."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sizes: dict[str, int] = {}
        self._grams: list[Hashes] = []
        self._owners: list[NDArray[np.int32]] = []
        self._short: dict[int, dict[int, int]] = {}
        self._heads: dict[int, set[int]] = {}
        self._whole: dict[int, int] = {}
        self._bodies = Bodies()
        self._body_owners: list[int] = []
        self._sealed = False

    @classmethod
    def from_paths(cls, paths: Iterable[Path | str]) -> Decontaminator:
        """Index all texts of all rows of benchmark files and folders (JSONL, gzipped JSONL, Parquet).

        Raises:
            ValueError: `paths` is empty, or a path has no rows.
        """
        index = cls()
        for path in paths:
            index.add_path(Path(path))
        index.seal()
        if not index.sizes:
            raise ValueError("decontamination needs at least one benchmark file or folder")
        return index

    def add_path(self, path: Path) -> None:
        """Index a file, or all files of a folder, with the cache of `benchmark_index`."""
        for file in row_files.files(path):
            self._add(file.name, index_file(file))

    def add(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Index the texts of rows as one benchmark. The rows may be of any kind."""
        self._add(name, index_rows(rows))

    def _add(self, name: str, index: BenchmarkIndex) -> None:
        if name not in self.names:
            self.names.append(name)
        owner = self.names.index(name)
        self.sizes[name] = self.sizes.get(name, 0) + index.rows
        self._grams.append(index.grams)
        self._owners.append(np.full(len(index.grams), owner, dtype=np.int32))
        for length, head, key in index.short.tolist():
            self._short.setdefault(length, {})[key] = owner
            self._heads.setdefault(head, set()).add(length)
        for key in index.whole.tolist():
            self._whole.setdefault(key, owner)
        for body in index.bodies:
            if self._bodies.add(body):
                self._body_owners.append(owner)
        self._sealed = False

    def seal(self) -> None:
        """Build the look-up tables.

        `check` calls `seal` if benchmarks were added since the last call. Call `seal` before you send the index to
        worker processes, so that not every process builds the tables.
        """
        grams = np.concatenate([*self._grams, np.empty(0, dtype=np.uint64)])
        owners = np.concatenate([*self._owners, np.empty(0, dtype=np.int32)])
        self._sorted, first = np.unique(grams, return_index=True)
        self._sorted_owners = owners[first]
        self._grams, self._owners = [self._sorted], [self._sorted_owners]
        # Most n-grams are in no benchmark; the filter excludes nearly all of them.
        self._filter = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)
        self._filter[self._sorted >> np.uint64(64 - _FILTER_BITS)] = True
        self._head_filter = np.zeros(1 << _HEAD_FILTER_BITS, dtype=np.bool_)
        heads = np.array(list(self._heads), dtype=np.uint64)
        self._head_filter[heads >> np.uint64(64 - _HEAD_FILTER_BITS)] = True
        self._sealed = True

    def check_row(self, row: dict[str, Any]) -> Match | None:
        """Return the first benchmark text that the texts of a row contain, or None if no text of the row contains a
        benchmark text.
        """
        for text in all_texts(row):
            if match := self.check(text):
                return match
        return None

    def check(self, text: str) -> Match | None:
        """Return the first benchmark text that `text` contains, or None if the text contains no benchmark text."""
        if not self._sealed:
            self.seal()
        words = word_hashes(text, lower=True)
        runs = Runs(words)
        grams = mix(runs.sums(NGRAM_WORDS))
        hits = np.flatnonzero(self._filter[grams >> np.uint64(64 - _FILTER_BITS)])
        if len(hits):
            places = np.minimum(np.searchsorted(self._sorted, grams[hits]), len(self._sorted) - 1)
            equal = np.flatnonzero(self._sorted[places] == grams[hits])
            if len(equal):
                owner = int(self._sorted_owners[places[equal[0]]])
                return self._match(text, "10-gram", int(hits[equal[0]]), NGRAM_WORDS, owner)
        return self._check_short(text, runs) or self._check_whole(text, words) or self._check_bodies(text)

    def _check_short(self, text: str, runs: Runs) -> Match | None:
        """Find the longest short program in a text. The match is at the first occurrence of this program."""
        heads = runs.sums(HEAD_WORDS)
        matches: dict[int, tuple[int, int]] = {}
        for place in np.flatnonzero(self._head_filter[heads >> np.uint64(64 - _HEAD_FILTER_BITS)]).tolist():
            for length in self._heads.get(int(heads[place]), ()):
                for key in runs.sums(length, np.array([place])).tolist():
                    owner = self._short[length].get(key)
                    if owner is not None:
                        matches.setdefault(length, (place, owner))
        if not matches:
            return None
        length = max(matches)
        place, owner = matches[length]
        return self._match(text, "short program", place, length, owner)

    def _check_bodies(self, text: str) -> Match | None:
        """Find held-out code of a private benchmark in a text."""
        body = self._bodies.check(text)
        return None if body is None else Match(self.names[self._body_owners[body]], "held-out code", "")

    def _check_whole(self, text: str, words: Hashes) -> Match | None:
        """Find a short solution that equals the whole text, or a whole fenced code block of the text."""
        units = [(text, words)]
        if "```" in text:
            units += [(block, word_hashes(block, lower=True)) for block in _FENCED.findall(text)]
        for unit, unit_words in units:
            if MIN_WORDS <= len(unit_words) < NGRAM_WORDS:
                owner = self._whole.get(sequence_key(unit_words))
                if owner is not None:
                    return self._match(unit, "whole answer", 0, len(unit_words), owner)
        return None

    def _match(self, text: str, rule: str, start: int, length: int, owner: int) -> Match:
        raw = text.encode("utf-8", "surrogatepass")
        starts, ends, _ = word_spans(raw, lower=True)
        if start + length > len(starts):
            return Match(self.names[owner], rule, "")
        words = [raw[starts[i] : ends[i]].decode("utf-8", "replace") for i in range(start, start + length)]
        return Match(self.names[owner], rule, " ".join(words))
