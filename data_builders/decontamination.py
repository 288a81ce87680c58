"""Keep benchmarks out of training data: word 10-grams, and exact matches for what is shorter than ten words.

Qwen2.5-Coder removes what shares a run of ten words with HumanEval, MBPP, GSM8K or MATH (arXiv 2409.12186, section
5). That alone has a hole: 29 of HumanEval's 164 solutions and 153 of MBPP's 974 have fewer than ten words.
DeepSeek-Coder closes it with an exact match for strings of 3 to 9 words; so does this module, in two ways:

- a short program that defines something (`def add(a, b): return a + b`) counts wherever its words occur in a row;
- a shorter body (`return a + b`) counts only as a whole answer, message or fenced code block, because half of all
  programs contain it somewhere.

What many tasks of one benchmark share (the frame of its prompts, its test harness) says of no row that it holds a task:
runs that stand in at least ten rows and 5% of a benchmark do not count.

Of a row with the column `held_out` (a private benchmark's) only that code counts, exact or nearly (`held_out`): the rest of
it is the repository that is trained on.

Words are runs of letters, digits and `_` of any script, ASCII case folded. A run of ten counts only if at least
half of its words have two letters or more: `1 2 3 4 5 6 7 8 9 10` and `a b c d e f g h i j` are in benchmarks, and
everywhere else too. For the same reason the import lines of a benchmark do not count.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.dataset import data_files, read_rows
from data_builders.held_out import COLUMN, Bodies
from data_builders.shingles import Hashes, ngram_hashes, ngram_sums, word_hashes, word_hashes_of, word_spans

LENGTH = 10
SHORT = 3
FRAME_ROWS, FRAME_SHARE = 10, 0.05
_DEFINES = re.compile(r"\b(?:def|function|func|fn|sub|fun|defn|defun|class|proc)\b")
_FENCED = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_PROMPT_KEYS = ("prompt", "declaration", "text", "question", "instruction")
_SOLUTION_KEYS = ("canonical_solution", "code", "solution", "completion", "answer")
_IMPORT_LINE = re.compile(
    r"^[ \t]*(?:import [\w.*{}, \"]+;?|from [\w.]+ import [^\n]*|using [\w.= ]+;|#[ \t]*include[^\n]*|use [\w:{}, *]+;|"
    r"package [\w.]+;?)[ \t\r]*$",
    re.MULTILINE,
)
IGNORED_KEYS = frozenset(
    [
        "stop_tokens",
        "language",
        "task_id",
        "name",
        "split",
        "source",
        "kind",
        "entry_point",
        "id",
        "role",
        "repository",
        "path",
        "commit",
        "license",
        "format",
        "part",
    ]
)
"""Columns that name a row and hold no text to train on."""
_FILTER_BITS = 24
_SHORT_FILTER_BITS = 20
_BATCH = 1 << 19
"""Characters of benchmark texts that are hashed at once."""


@dataclass(frozen=True)
class Match:
    """Why a row was removed: which benchmark file, by which rule, and the words that gave it away."""

    benchmark: str
    rule: str
    words: str


def _gather(value: Any, key: str, found: list[str]) -> None:
    if isinstance(value, str):
        if key not in IGNORED_KEYS:
            found.append(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _gather(inner, str(name), found)
    elif isinstance(value, list | tuple):
        for inner in value:
            _gather(inner, key, found)


def row_text(row: dict[str, Any]) -> list[str]:
    """Every text of a row of any kind that a model would be trained on (or that a task would show or test)."""
    found: list[str] = []
    _gather(row, "", found)
    return found


def _key(words: Hashes) -> int:
    """What a whole run of words is looked up by."""
    return int(next(ngram_sums(words, [len(words)]))[0])


def _lettered_words(raw: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """1 for each word of at least two letters, 0 for numbers and names like `a`."""
    starts, ends, letters = word_spans(raw, lower=True)
    is_letter = np.concatenate([[0], np.cumsum((letters > 57) & (letters != 95))])
    return (is_letter[ends] - is_letter[starts] >= 2).astype(np.int64)


def _telling(text: str, words: Hashes, length: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which runs of `length` words are made of real words for at least half."""
    counts = np.concatenate([[0], np.cumsum(_lettered_words(text.encode("utf-8", "surrogatepass")))])
    if len(counts) != len(words) + 1:  # a text cut into blocks inside a word: count every run
        return np.ones(max(0, len(words) - length + 1), dtype=np.bool_)
    return (counts[length:] - counts[:-length]) * 2 >= length


class Decontaminator:
    """Holds the hashes of all benchmark texts and says of a row whether it contains one. Picklable."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sizes: dict[str, int] = {}
        self._grams: list[Hashes] = []
        self._owners: list[np.ndarray[Any, np.dtype[np.int32]]] = []
        self._short: dict[int, dict[int, int]] = {}
        self._whole: dict[int, int] = {}
        self._bodies = Bodies()
        self._body_owners: list[int] = []
        self._sealed = False

    @classmethod
    def from_paths(cls, paths: Iterable[Path | str]) -> Decontaminator:
        """Index benchmark files and folders (JSONL, gzipped JSONL, Parquet), every text field of every row."""
        index = cls()
        for path in paths:
            for file in data_files(Path(path)):
                index.add(file.name, read_rows(file))
        index.seal()
        if not index.sizes:
            raise ValueError("decontamination needs at least one benchmark file or folder")
        return index

    def add(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Index the rows of one benchmark. A row may be anything with texts in it."""
        if name not in self.names:
            self.names.append(name)
        owner = self.names.index(name)
        count, size = 0, 0
        found: list[Hashes] = []
        waiting: list[list[str]] = []
        for row in rows:
            count += 1
            if isinstance(row.get(COLUMN), str):  # a private benchmark shares all but this with what may train
                if self._bodies.add(row[COLUMN]):
                    self._body_owners.append(owner)
                continue
            waiting.append([*{*row_text(row), *self._programs(row)}])
            size += sum(map(len, waiting[-1]))
            if size > _BATCH:
                found += self._add_texts(waiting, owner)
                waiting, size = [], 0
            for key in _SOLUTION_KEYS:
                if isinstance(row.get(key), str):
                    self._add_whole(row[key], owner)
        found += self._add_texts(waiting, owner)
        self.sizes[name] = self.sizes.get(name, 0) + count
        distinct, rows_with = np.unique(np.concatenate([*found, np.empty(0, dtype=np.uint64)]), return_counts=True)
        telling = distinct[(rows_with < FRAME_ROWS) | (rows_with < FRAME_SHARE * count)]
        self._grams.append(telling)
        self._owners.append(np.full(len(telling), owner, dtype=np.int32))
        self._sealed = False

    @staticmethod
    def _programs(row: dict[str, Any]) -> Iterator[str]:
        """The program that a prompt and its solution make, without the docstring between them."""
        solution = next((row[key] for key in _SOLUTION_KEYS if isinstance(row.get(key), str)), None)
        prompt = next((row[key] for key in _PROMPT_KEYS if isinstance(row.get(key), str)), None)
        if solution is None or prompt is None:
            return
        head = re.findall(r"^[ \t]*(?:async )?def [^\n]*(?:\n[^\n]*)*?:[ \t]*$", prompt, re.MULTILINE)
        if head:
            yield f"{head[-1]}\n{solution}"

    def _add_texts(self, rows: list[list[str]], owner: int) -> list[Hashes]:
        """Index the texts of some rows that are short; returns each row's runs of those that are not."""
        wholes = [text for texts in rows for text in texts]
        texts = [_IMPORT_LINE.sub("", text) for text in wholes]
        words, bounds = word_hashes_of(texts, lower=True)
        all_grams = ngram_hashes(words, LENGTH)
        telling = _telling("\n".join(texts), words, LENGTH)
        runs = []
        for whole, text, first, last in zip(wholes, texts, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            inside = slice(first, max(first, last - LENGTH + 1))  # a run ends where its text does
            grams = all_grams[inside][telling[inside]]
            if (not len(grams) or whole != text) and last - first > SHORT and _DEFINES.search(text):
                # Too short, or all names are single letters, or imports stand between its runs.
                start = word_hashes(whole, lower=True) if whole != text else words[first:last]
                start = start[: 2 * LENGTH - 1]
                self._short.setdefault(len(start), {})[_key(start)] = owner
            runs.append(grams)
        parts = iter(runs)
        return [
            np.unique(np.concatenate([*itertools.islice(parts, len(texts)), np.empty(0, dtype=np.uint64)]))
            for texts in rows
        ]

    def _add_whole(self, text: str, owner: int) -> None:
        words = word_hashes(text, lower=True)
        if SHORT <= len(words) < LENGTH:
            self._whole.setdefault(_key(words), owner)

    def seal(self) -> None:
        grams = np.concatenate([*self._grams, np.empty(0, dtype=np.uint64)])
        owners = np.concatenate([*self._owners, np.empty(0, dtype=np.int32)])
        self._sorted, first = np.unique(grams, return_index=True)
        self._sorted_owners = owners[first]
        self._grams, self._owners = [self._sorted], [self._sorted_owners]
        # Most runs are in no benchmark; one table look-up says so for nearly all of them.
        self._filter = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)
        self._filter[self._sorted >> np.uint64(64 - _FILTER_BITS)] = True
        self._short_filter = np.zeros(1 << _SHORT_FILTER_BITS, dtype=np.bool_)
        for grams_of_length in self._short.values():
            for value in grams_of_length:
                self._short_filter[value >> (64 - _SHORT_FILTER_BITS)] = True
        self._sealed = True

    def check_row(self, row: dict[str, Any]) -> Match | None:
        """The first benchmark text found in any text of a row."""
        for text in row_text(row):
            if match := self.check(text):
                return match
        return None

    def check(self, text: str) -> Match | None:
        """The first benchmark text found in `text`, or None."""
        if not self._sealed:
            self.seal()
        words = word_hashes(text, lower=True)
        if len(words) >= LENGTH:
            grams = ngram_hashes(words, LENGTH)
            hits = np.flatnonzero(self._filter[grams >> np.uint64(64 - _FILTER_BITS)])
            if len(hits):
                places = np.minimum(np.searchsorted(self._sorted, grams[hits]), len(self._sorted) - 1)
                equal = np.flatnonzero(self._sorted[places] == grams[hits])
                if len(equal):
                    return self._match(
                        text, "10-gram", int(hits[equal[0]]), LENGTH, int(self._sorted_owners[places[equal[0]]])
                    )
        return self._check_short(text, words) or self._check_whole(text, words) or self._check_bodies(text)

    def _check_short(self, text: str, words: Hashes) -> Match | None:
        lengths = sorted(self._short)
        found: dict[int, Match] = {}
        for length, sums in zip(lengths, ngram_sums(words, lengths), strict=True):
            for hit in np.flatnonzero(self._short_filter[sums >> np.uint64(64 - _SHORT_FILTER_BITS)]):
                owner = self._short[length].get(int(sums[hit]))
                if owner is not None:
                    found[length] = self._match(text, "short program", int(hit), length, owner)
                    break
        return next((found[length] for length in self._short if length in found), None)

    def _check_bodies(self, text: str) -> Match | None:
        """Code that a private benchmark holds out."""
        body = self._bodies.check(text)
        return None if body is None else Match(self.names[self._body_owners[body]], "held-out code", "")

    def _check_whole(self, text: str, words: Hashes) -> Match | None:
        units = [(text, words)]
        if "```" in text:
            units += [(block, word_hashes(block, lower=True)) for block in _FENCED.findall(text)]
        for unit, unit_words in units:
            if SHORT <= len(unit_words) < LENGTH:
                owner = self._whole.get(_key(unit_words))
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
