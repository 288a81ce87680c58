"""A small text classifier: hashed words and word pairs, one weight each (the model of fastText, for two classes).

Trains in seconds on one core from two lists of texts, and judges several megabytes a second. Training is
deterministic: the same seed texts give the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_builders.dataset import read_rows
from data_builders.shingles import mix, ngram_hashes, word_hashes

BUCKETS = 1 << 18
MAX_CHARACTERS = 20_000
"""How much of a text is judged."""


def features(text: str) -> NDArray[np.int64]:
    """Buckets of the distinct words and word pairs of a text."""
    words = word_hashes(text[:MAX_CHARACTERS], lower=True)
    grams = np.concatenate([words, ngram_hashes(words, 2)])
    return np.unique(mix(grams) % np.uint64(BUCKETS)).astype(np.int64)


@dataclass
class Classifier:
    """Weights of one two-class model; `score` is the probability of the positive class."""

    weights: NDArray[np.float32]
    bias: float

    @classmethod
    def train(
        cls, positive: Sequence[str], negative: Sequence[str], *, epochs: int = 30, rate: float = 1.0
    ) -> Classifier:
        """Logistic regression by stochastic gradient descent, classes weighted to count equally."""
        if not positive or not negative:
            raise ValueError("a classifier needs at least one positive and one negative seed text")
        rows = [(features(text), 1.0, 0.5 / len(positive)) for text in positive]
        rows += [(features(text), 0.0, 0.5 / len(negative)) for text in negative]
        rows = [row for row in rows if len(row[0])]
        weights, bias = np.zeros(BUCKETS, dtype=np.float32), 0.0
        rng = np.random.default_rng(0)
        for epoch in range(epochs):
            step = rate * (1 - epoch / epochs)
            for index in rng.permutation(len(rows)):
                buckets, label, share = rows[index]
                scale = 1 / np.sqrt(len(buckets))
                error = label - _sigmoid(float(weights[buckets].sum()) * scale + bias)
                change = step * error * share * len(rows)
                weights[buckets] += np.float32(change * scale)
                bias += 0.1 * change
        return cls(weights, bias)

    def score(self, text: str) -> float:
        buckets = features(text)
        if not len(buckets):
            return 0.0
        return _sigmoid(float(self.weights[buckets].sum()) / float(np.sqrt(len(buckets))) + self.bias)


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(value, -30, 30))))


def read_seeds(path: str | Path) -> tuple[list[str], list[str]]:
    """Positive and negative texts from JSONL rows `{"text": ..., "label": 1 or 0}`."""
    positive: list[str] = []
    negative: list[str] = []
    for row in read_rows(Path(path)):
        if not isinstance(row.get("text"), str) or row.get("label") not in (0, 1):
            raise ValueError(f'{path}: each seed needs "text" and "label" 0 or 1; found {json.dumps(row)[:100]}')
        (positive if row["label"] else negative).append(row["text"])
    return positive, negative


def train_from(path: str | Path) -> Classifier:
    """A classifier from a file of seeds."""
    return Classifier.train(*read_seeds(path))


def accuracy(model: Classifier, rows: Iterable[tuple[str, int]]) -> float:
    """Share of texts on the right side of 0.5."""
    judged = [(model.score(text) >= 0.5) == bool(label) for text, label in rows]
    return sum(judged) / len(judged)
