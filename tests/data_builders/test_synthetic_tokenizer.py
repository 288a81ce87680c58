"""The small tokenizer: Qwen's structure and special tokens, lossless, and the same for the same texts."""

import json
from pathlib import Path

import pytest

from alignment.models.formats import ADDED_TOKENS, CHAT_TEMPLATE
from data_builders.synthetic.documents import module_documents
from data_builders.synthetic.tokenizer import SPLIT, train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer((row["text"] for row in module_documents(0, 300)), 512, path)
    return path


def test_special_tokens_are_single_and_come_last_in_the_official_order(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 512
    for place, (token, _) in enumerate(ADDED_TOKENS):
        assert tokenizer.encode(token, add_special_tokens=False) == [512 - len(ADDED_TOKENS) + place]
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|endoftext|>")


@pytest.mark.parametrize(
    "text", ["def f(values):\n    return values\n", "naïve 日本語 🙂", "\t  tabs\r\n\r\n", "1234 it's"]
)
def test_text_comes_back_from_its_tokens(folder: Path, text: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_split_pattern_and_normalizer_are_those_of_qwen(folder: Path) -> None:
    written = json.loads((folder / "tokenizer.json").read_text())
    assert written["normalizer"] == {"type": "NFC"}
    assert written["pre_tokenizer"]["pretokenizers"][0]["pattern"] == {"Regex": SPLIT}


def test_training_twice_gives_the_same_file(folder: Path, tmp_path: Path) -> None:
    train_tokenizer((row["text"] for row in module_documents(0, 300)), 512, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_too_small_a_vocabulary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        train_tokenizer(["x"], 200, tmp_path)
