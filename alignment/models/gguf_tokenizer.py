"""Write the tokenizer of a GGUF file as a Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.models.model_family import family_of
from alignment.models.special_tokens import ADDED_TOKENS, ENDOFTEXT, IM_END, IM_START

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
"""Token types of llama.cpp (`llama_token_type`)."""


def field_value(reader: Any, name: str, default: Any = None) -> Any:
    """Return the value of a metadata field of a GGUFReader, or `default` if the field is missing."""
    field = reader.fields.get(name)
    return default if field is None else field.contents()


def _tokens(file: Path, reader: Any) -> Iterator[tuple[int, str, int]]:
    """Yield (id, token, type) for each entry of the vocabulary."""
    tokens, types = field_value(reader, "tokenizer.ggml.tokens"), field_value(reader, "tokenizer.ggml.token_type")
    if not tokens or not types or len(tokens) != len(types):
        raise ValueError(f"{file}: metadata has no complete vocabulary (tokenizer.ggml.tokens and token_type)")
    yield from ((number, token, int(kind)) for number, (token, kind) in enumerate(zip(tokens, types, strict=True)))


def _restore_unused(vocabulary: dict[str, int], holes: list[int], merges: list[tuple[str, str]]) -> None:
    """Add tokens to the vocabulary that occur in merges but not in the vocabulary.

    Some converters, including this toolkit's, mark tokens such as `</s>` as unused, since llama.cpp would treat them as
    control tokens. The names of these tokens are then missing in the vocabulary, but merges still produce them. In the
    order of the merges, the missing tokens get the unused ids (`holes`) in ascending order.
    """
    missing = [left + right for left, right in merges if left + right not in vocabulary]
    vocabulary.update(zip(missing, holes, strict=False))


def _qwen2_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: dict[str, Any]) -> Any:
    from transformers import Qwen2Tokenizer

    make_tokenizer: Any = Qwen2Tokenizer
    tokenizer = make_tokenizer(vocab=vocabulary, merges=merges, **settings)
    tokenizer.unk_token = None
    return tokenizer


def _smollm_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: dict[str, Any]) -> Any:
    """Return GPT-2's byte-level BPE that splits numbers into single digits, the tokenizer of SmolLM and SmolLM2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=IM_START, unk_token=ENDOFTEXT, **settings)


_MAKERS = {"qwen2": _qwen2_tokenizer, "smollm": _smollm_tokenizer}
"""`tokenizer.ggml.pre` -> function that makes a tokenizer without added tokens."""


def write_tokenizer(file: Path, reader: Any, folder: Path) -> None:
    """Write the tokenizer, its chat template, and a generation config with the tokenizer's stop tokens."""
    from tokenizers import AddedToken
    from transformers import GenerationConfig

    model, split = field_value(reader, "tokenizer.ggml.model"), field_value(reader, "tokenizer.ggml.pre")
    if model != "gpt2" or split not in _MAKERS:
        raise ValueError(
            f"{file}: tokenizer {model!r} with pre-tokenizer {split!r} is not supported: it must be gpt2 with "
            f"{' or '.join(_MAKERS)}"
        )
    vocabulary: dict[str, int] = {}
    added: list[AddedToken] = []
    is_special = dict(ADDED_TOKENS)
    holes: list[int] = []
    names: dict[int, str] = {}
    for number, token, kind in _tokens(file, reader):
        names[number] = token
        if kind == _UNUSED:
            holes.append(number)
            continue
        vocabulary[token] = number
        if kind in (_CONTROL, _USER_DEFINED):
            # llama.cpp marks every added token as control; the published tokenizer keeps some of them in decoded text.
            added.append(AddedToken(token, special=is_special.get(token, kind == _CONTROL), normalized=False))
    merges: list[tuple[str, str]] = [
        (left, right)
        for left, _, right in (merge.partition(" ") for merge in field_value(reader, "tokenizer.ggml.merges", []))
    ]
    _restore_unused(vocabulary, holes, merges)
    eos = names.get(field_value(reader, "tokenizer.ggml.eos_token_id", -1), ENDOFTEXT)
    pad = names.get(field_value(reader, "tokenizer.ggml.padding_token_id", -1), ENDOFTEXT)
    architecture = field_value(reader, "general.architecture")
    length = int(field_value(reader, f"{architecture}.context_length", 32768))
    # The vocabulary includes added tokens, so that they keep their ids.
    tokenizer = _MAKERS[split](vocabulary, merges, {"eos_token": eos, "pad_token": pad, "model_max_length": length})
    tokenizer.add_tokens(added)
    tokenizer.chat_template = field_value(reader, "tokenizer.chat_template")
    tokenizer.save_pretrained(folder)
    ends = [
        tokenizer.convert_tokens_to_ids(token)
        for token in dict.fromkeys([eos, *([ENDOFTEXT] if eos == IM_END else [])])
    ]
    end = tokenizer.convert_tokens_to_ids(ENDOFTEXT)
    begin = tokenizer.convert_tokens_to_ids(family_of(tokenizer).begin)
    generation = GenerationConfig(bos_token_id=begin, pad_token_id=end, eos_token_id=ends if len(ends) > 1 else ends[0])
    generation.save_pretrained(folder)
