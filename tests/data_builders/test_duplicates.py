"""Exact and near-duplicates."""

from __future__ import annotations

import random
import re

import pytest

from data_builders.cleaning.duplicates import find_duplicates, fingerprints
from data_builders.cleaning.shingles import jaccard, ngram_hashes, shingles, word_hashes


def text_of(words: list[str]) -> str:
    return " ".join(words)


def random_words(seed: int, count: int = 400) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(10**9)}" for _ in range(count)]


def plain_jaccard(left: str, right: str) -> float:
    sets = [{tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (left.split(), right.split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def with_changes(words: list[str], changed: int) -> list[str]:
    """Return a copy of the words in which `changed` evenly spread words are replaced."""
    step = len(words) // max(changed, 1)
    return [
        f"x{index}" if changed and index % step == 3 and index // step < changed else word
        for index, word in enumerate(words)
    ]


def removed(texts: list[str], threshold: float = 0.7) -> list[int]:
    return [item.index for item in find_duplicates(fingerprints(texts), texts.__getitem__, threshold)]


@pytest.mark.parametrize("changed", [0, 3, 10, 40])
def test_hashed_shingles_give_the_exact_jaccard_similarity(changed: int) -> None:
    left, right = text_of(random_words(1)), text_of(with_changes(random_words(1), changed))
    assert jaccard(shingles(left), shingles(right)) == pytest.approx(plain_jaccard(left, right))


def test_words_are_split_as_bigcode_splits_them() -> None:
    assert (word_hashes("foo.bar(baz_1)-Qux é") == word_hashes("foo bar baz_1 Qux ")).all()
    assert (word_hashes("Foo") != word_hashes("foo")).all()
    assert len(word_hashes("Zürich grüßt", lower=True)) == 2


def test_hashes_of_long_texts_do_not_depend_on_block_boundaries() -> None:
    words = random_words(3, 200_000)
    whole = word_hashes(text_of(words))
    assert len(whole) == 200_000
    assert (whole[150_000:150_010] == word_hashes(text_of(words[150_000:150_010]))).all()


def test_ngrams_of_too_few_words_are_empty() -> None:
    assert len(ngram_hashes(word_hashes("one two three four"), 5)) == 0


def test_the_first_of_equal_texts_is_kept() -> None:
    texts = [text_of(random_words(number % 3)) for number in range(9)]
    assert removed(texts) == [3, 4, 5, 6, 7, 8]


def test_pairs_above_the_threshold_are_found_and_pairs_below_are_kept() -> None:
    texts = []
    for seed in range(40):
        words = random_words(seed)
        texts += [text_of(words), text_of(with_changes(words, 8)), text_of(with_changes(words, 40))]
    similar = plain_jaccard(texts[0], texts[1])
    different = plain_jaccard(texts[0], texts[2])
    assert similar > 0.8 and different < 0.5
    assert removed(texts) == [3 * number + 1 for number in range(40)]


def test_a_candidate_is_verified_by_its_exact_similarity() -> None:
    words = random_words(5)
    texts = [text_of(words), text_of(with_changes(words, 8))]
    similarity = plain_jaccard(*texts)
    assert removed(texts, similarity - 0.001) == [1]
    assert removed(texts, similarity + 0.001) == []


def test_a_text_is_compared_with_kept_texts_only() -> None:
    words = random_words(7)
    texts = [text_of(with_changes(words, changed)) for changed in (0, 12, 24)]
    assert plain_jaccard(texts[0], texts[2]) < 0.7
    assert 2 not in removed(texts) or plain_jaccard(texts[0], texts[1]) < 0.7


def test_short_texts_are_only_exact_duplicates() -> None:
    assert removed(["a b c", "a b d", "a b c"]) == [2]


def plain_search(texts: list[str], threshold: float) -> list[tuple[int, int]]:
    """Find duplicates without bands: compare every text with every earlier text that was kept."""
    sets = [{tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in map(bigcode_words, texts)]
    kept: list[int] = []
    removed = []
    for index, grams in enumerate(sets):
        similar = [o for o in kept if grams and sets[o] and len(grams & sets[o]) / len(grams | sets[o]) >= threshold]
        if similar:
            removed.append((index, similar[0]))
        else:
            kept.append(index)
    return removed


def bigcode_words(text: str) -> list[str]:
    return [word for word in re.split("[^A-Za-z_0-9]", text) if word]


def test_families_of_copies_give_the_same_result_as_a_search_of_all_pairs() -> None:
    rng = random.Random(5)
    texts = []
    for family in range(30):
        words = [f"w{family}_{number}" for number in range(120)]
        for _ in range(rng.randrange(1, 9)):
            copy = list(words)
            if rng.random() < 0.7:  # two changed copies have a similarity of 0.84, where bands miss no pair
                copy[rng.randrange(len(copy))] = f"n{rng.randrange(10**12)}"
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    texts = list(dict.fromkeys(texts))
    pairs = [(item.index, item.of) for item in find_duplicates(fingerprints(texts), texts.__getitem__)]
    assert pairs == plain_search(texts, 0.7)
    assert len(pairs) > 40
