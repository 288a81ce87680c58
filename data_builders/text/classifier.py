"""Classify texts into two classes by their words, their word pairs (as in fastText) and measures of their form.

The measures of form (`text_form` or, for code, `code_features.code_form`) are shares of sentences, code, links and so
on. A few dozen seed texts are enough to learn the weights of the measures, but too few to learn a vocabulary. Training
takes seconds on one core and is deterministic. Scoring runs at several megabytes per second.

In array shapes, B is the number of hash buckets, and M is the number of measures of form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignment.rows import reading as row_files
from data_builders.cleaning.shingles import mix, ngram_hashes, word_hashes

BUCKETS = 1 << 18
"""Number of hash buckets for words and word pairs. Each bucket has one weight."""
MAX_CHARACTERS = 20_000
"""Number of characters of a text that are used. The rest of a longer text is ignored."""


def features(text: str) -> NDArray[np.int64]:
    """Return the sorted hash buckets of all different words and word pairs of a text. Shape: (features,)."""
    words = word_hashes(text[:MAX_CHARACTERS], lower=True)
    grams = np.concatenate([words, ngram_hashes(words, 2)])
    return np.unique(mix(grams) % np.uint64(BUCKETS)).astype(np.int64)


_CODE_BLOCK = re.compile(r"^(```+|~~~+)[^\n]*\n.*?^\1[ \t]*$|(?<=\n\n)(?:(?: {2,}|\t)[^\n]*\n+)+|^(?:>>>|\.\.\.|\$) [^\n]*$",
                         re.MULTILINE | re.DOTALL)  # fmt: skip
_TAG = re.compile(r"<[^<>\n]{1,300}>|\{[{%][^}\n]{1,200}\}")
_LINK = re.compile(r"https?://|\]\(|`_\b|href=")
_SENTENCE = re.compile(r"(?:[a-z,']+ ){4,}[^\n]{0,200}?[.:!?](?=\s|$)")
Measure = Callable[[str], NDArray[np.float32]]
"""Type of a function that returns measures of a text's form, each between 0 and 1. Shape: (M,)."""


def text_form(text: str) -> NDArray[np.float32]:
    """Return measures of the form of a text, each between 0 and 1. Shape: (7,).

    The measures are: sentences, code, sentences together with code, mark-up, links, digits, short lines.
    """
    size = max(len(text), 1)
    code = sum(match.end() - match.start() for match in _CODE_BLOCK.finditer(text)) / size
    prose = min(1.0, sum(match.end() - match.start() for match in _SENTENCE.finditer(text)) / size)
    tags = sum(match.end() - match.start() for match in _TAG.finditer(text)) / size
    links = min(1.0, 100 * sum(1 for _ in _LINK.finditer(text)) / size)
    digits = min(1.0, 5 * sum(map(str.isdigit, text)) / size)
    lines = [line for line in text.split("\n") if line.strip()]
    short = sum(len(line) < 30 for line in lines) / max(len(lines), 1)
    both = min(1.0, 8 * code) * min(1.0, 3 * prose)
    return np.array([prose, min(1.0, 2 * code), both, min(1.0, 3 * tags), links, digits, short], dtype=np.float32)


@dataclass
class Classifier:
    """A trained two-class classifier of texts."""

    weights: NDArray[np.float32]
    """Weights of the hash buckets of words and word pairs. Shape: (B,)."""
    forms: NDArray[np.float32]
    """Weights of the measures of form. Shape: (M,)."""
    bias: float
    measure: Measure = field(default=text_form, repr=False)

    @classmethod
    def train(
        cls,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        measure: Measure = text_form,
        epochs: int = 30,
        rate: float = 1.0,
        decay: float = 0.0,
    ) -> Classifier:
        """Train by logistic regression with stochastic gradient descent; both classes have the same total weight.

        Args:
            positive: texts of the class whose probability `score` returns.
            negative: texts of the other class.
            measure: computes the measures of form of a text.
            epochs: number of passes over all texts.
            rate: initial learning rate, which decreases linearly to 0.
            decay: weight decay per step. With larger values, fewer scores are close to 0 or 1.

        Raises:
            ValueError: a class has no texts.
        """
        if not positive or not negative:
            raise ValueError("a classifier needs at least one positive and one negative seed text")
        rows = [(features(text), measure(text[:MAX_CHARACTERS]), 1.0, 0.5 / len(positive)) for text in positive]
        rows += [(features(text), measure(text[:MAX_CHARACTERS]), 0.0, 0.5 / len(negative)) for text in negative]
        rows = [row for row in rows if len(row[0])]
        model = cls(np.zeros(BUCKETS, dtype=np.float32), np.zeros_like(measure("")), 0.0, measure)
        rng = np.random.default_rng(0)
        for epoch in range(epochs):
            step = rate * (1 - epoch / epochs)
            for index in rng.permutation(len(rows)):
                buckets, measures, label, share = rows[index]
                error = label - model._score(buckets, measures)
                change = step * error * share * len(rows)
                if decay:
                    model.weights *= np.float32(1 - step * decay)
                    model.forms *= np.float32(1 - step * decay)
                model.weights[buckets] += np.float32(change / np.sqrt(len(buckets)))
                model.forms += np.float32(change) * measures
                model.bias += 0.1 * change
        return model

    def score(self, text: str) -> float:
        """Return the probability that a text is in the positive class, or 0 if the text has no words."""
        buckets = features(text)
        return self._score(buckets, self.measure(text[:MAX_CHARACTERS])) if len(buckets) else 0.0

    def _score(self, buckets: NDArray[np.int64], measures: NDArray[np.float32]) -> float:
        words = float(self.weights[buckets].sum()) / float(np.sqrt(len(buckets)))
        return _sigmoid(words + float(self.forms @ measures) + self.bias)


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(value, -30, 30))))


def read_seeds(path: str | Path) -> tuple[list[str], list[str]]:
    """Read seed texts from rows `{"text": ..., "label": 1 or 0}`.

    Returns:
        Positive and negative texts.

    Raises:
        ValueError: a row has no `text`, or a `label` other than 0 and 1.
    """
    positive: list[str] = []
    negative: list[str] = []
    for row in row_files.read(Path(path)):
        if not isinstance(row.get("text"), str) or row.get("label") not in (0, 1):
            raise ValueError(f'{path}: each seed needs "text" and "label" 0 or 1, not {json.dumps(row)[:100]}')
        (positive if row["label"] else negative).append(row["text"])
    return positive, negative


def train_from(path: str | Path, measure: Measure = text_form, decay: float = 0.0) -> Classifier:
    """Train a classifier on a file of seed texts, see `read_seeds` and `Classifier.train`."""
    return Classifier.train(*read_seeds(path), measure=measure, decay=decay)


def accuracy(model: Classifier, rows: Iterable[tuple[str, int]]) -> float:
    """Compute the accuracy of a classifier at the threshold 0.5. `rows` holds (text, label) pairs."""
    correct = [(model.score(text) >= 0.5) == bool(label) for text, label in rows]
    return sum(correct) / len(correct)
