"""Train a small byte-level BPE tokenizer with the normalizer, pre-tokenizer and added tokens of Qwen2.5-Coder."""

import json
from collections.abc import Iterable
from pathlib import Path

from alignment.models.formats import ADDED_TOKENS, CHAT_TEMPLATE, ENDOFTEXT

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pre-tokenizer pattern in Qwen2's tokenizer.json. In llama.cpp the pattern has the name `qwen2`."""


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, out_dir: Path, *, chat_template: str = CHAT_TEMPLATE
) -> None:
    """Train on `texts` and write `tokenizer.json` and `tokenizer_config.json` to `out_dir`.

    Args:
        texts: texts for learning the merges. The same texts in the same order give the same tokenizer.
        vocab_size: size of the vocabulary, including the 256 bytes and the 22 added tokens.
        out_dir: output folder, which is created if it does not exist.
        chat_template: Jinja template of the chat format.

    Raises:
        ValueError: `vocab_size` is less than the number of bytes and added tokens.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if vocab_size < 256 + len(ADDED_TOKENS):
        raise ValueError(f"vocab_size is {vocab_size}; 256 bytes and {len(ADDED_TOKENS)} added tokens need more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(ADDED_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(content, special=special, normalized=False) for content, special in ADDED_TOKENS])
    out_dir.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out_dir / "tokenizer.json"))
    settings = {
        "add_prefix_space": False,
        "additional_special_tokens": [content for content, special in ADDED_TOKENS[1:] if special],
        "bos_token": None,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": ENDOFTEXT,
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": ENDOFTEXT,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (out_dir / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
