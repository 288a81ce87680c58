"""Token counts equal the lengths of the tokenizer's own encodings."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.storage.token_counts import TokenCounter

FOLDER = Path(os.environ.get("ALIGN_DATA_DIR", "../shared/data")) / "qwen2.5-coder-tokenizer"
needs_tokenizer = pytest.mark.skipif(not FOLDER.is_dir(), reason="the real tokenizer is not at ALIGN_DATA_DIR")
EDGE_CASES = [
    "", " ", "\n\n\n", "a\r\n\tb", "it's we'LL I'd", "x" * 3000, "naïve nai\u0308ve Ⅷ½ 12345", "日本語のコメント", "🧑‍💻 emoji",
    "    \n   x = 1  \n", "<|fim_middle|>", "a<|endoftext|>b <|not one|>", "\x00\x1f\u200b", "<|im_start|>user\nhi<|im_end|>",
    "\U00018d09/A",
]  # fmt: skip


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return TokenCounter(FOLDER)


def reference(counter: TokenCounter, text: str) -> int:
    return len(counter.tokenizer.encode(text, add_special_tokens=False).ids)


@needs_tokenizer
@pytest.mark.parametrize("text", EDGE_CASES)
def test_edge_case_texts_have_as_many_tokens_as_the_tokenizer_encodes(counter: TokenCounter, text: str) -> None:
    assert counter.count([text]) == [reference(counter, text)]


@needs_tokenizer
def test_source_files_have_as_many_tokens_as_the_tokenizer_encodes(counter: TokenCounter) -> None:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[::6]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    assert counter.split is not None
    assert counter.count(texts) == [reference(counter, text) for text in texts]


@needs_tokenizer
@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_as_many_tokens_as_the_tokenizer_encodes(text: str) -> None:
    counter = _shared()
    assert counter.count([text]) == [reference(counter, text)]


_COUNTERS: list[TokenCounter] = []


def _shared() -> TokenCounter:
    if not _COUNTERS:
        _COUNTERS.append(TokenCounter(FOLDER))
    return _COUNTERS[0]


def test_without_a_tokenizer_tokens_are_estimated_from_bytes() -> None:
    assert TokenCounter().count(["abc" * 10, ""]) == [10, 1]
