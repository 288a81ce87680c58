"""Read the tokenizer of a model in the form of GGUF: tokens, types, merges, special ids, chat template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.export.checkpoint import Qwen2Checkpoint, read_json
from alignment.models import formats
from alignment.models.model_family import QWEN2_5, recognize

# GGUF token types (`gguf.TokenType`).
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# The split rule in tokenizer.json of Qwen2.5, which llama.cpp implements as the pre-tokenizer "qwen2".
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The steps before BPE in tokenizer.json of SmolLM2, which llama.cpp implements as the pre-tokenizer "smollm".
SMOLLM_STEPS = [
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
]
# Released checkpoints have up to 399 more embedding rows than tokens (152064 rows, 151665 tokens).
MAX_PADDING_ROWS = 1024
# Ordinary tokens that llama.cpp (0.6.0, src/llama-vocab.cpp) treats as ends of generation because of their text. It
# would read `</s>` in HTML as one token, which the model never saw in training, and stop there. Qwen2's split rule cuts
# these texts into pieces, so these tokens never occur in tokenized text, and the GGUF file can omit their names.
TAKEN_FOR_CONTROL = ("</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<eos>")
FIM_KEYS = {
    "fim_pre": formats.FIM_PREFIX,
    "fim_suf": formats.FIM_SUFFIX,
    "fim_mid": formats.FIM_MIDDLE,
    "fim_pad": formats.FIM_PAD,
    "fim_rep": formats.REPO_NAME,
    "fim_sep": formats.FILE_SEP,
}


@dataclass(frozen=True)
class Vocabulary:
    """The parts of a tokenizer that a GGUF file stores."""

    tokens: list[str]
    """One token per embedding row. Rows without a token are named `[PAD<id>]`."""
    types: list[int]
    """GGUF token type of every token."""
    merges: list[str]
    special: dict[str, int]
    """Ids of the special tokens, keyed by GGUF's name of the token (`eos`, `fim_pre`, ...)."""
    chat_template: str | None
    pre_tokenizer: str = "qwen2"
    """Name of the rule in llama.cpp that splits text before BPE."""


def read_vocabulary(checkpoint: Qwen2Checkpoint) -> Vocabulary:
    """Read the vocabulary from tokenizer.json and tokenizer_config.json.

    Raises:
        ValueError: tokenizer.json is missing, or is not a tokenizer that llama.cpp's pre-tokenizers qwen2 or smollm
            equal.
    """
    folder, rows = checkpoint.folder, checkpoint.vocabulary_rows
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no tokenizer.json: save the tokenizer into the model's folder")
    tokenizer = read_json(path)
    pre_tokenizer = _pre_tokenizer(path, tokenizer)
    model = tokenizer["model"]
    added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    _check_added(path, added)
    by_id = {number: token for token, number in model["vocab"].items() if token not in TAKEN_FOR_CONTROL}
    by_id |= {number: entry["content"] for number, entry in added.items()}
    if max(by_id) >= rows:
        raise ValueError(
            f"{path} has ids up to {max(by_id)}, the embedding only {rows} rows: it is another model's tokenizer"
        )
    if rows - len(by_id) > MAX_PADDING_ROWS:
        raise ValueError(
            f"{path} has {len(by_id)} tokens, the embedding {rows} rows: it is another model's tokenizer "
            f"(up to {MAX_PADDING_ROWS} padding rows are normal)"
        )
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(rows)]
    types = [_token_type(number, by_id, added) for number in range(rows)]
    ids = {entry["content"]: number for number, entry in added.items()}
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    special = _special_ids(path, checkpoint.config, settings, ids)
    template = read_chat_template(folder, settings)
    return Vocabulary(tokens, types, _merges(model["merges"]), special, template, pre_tokenizer)


def _pre_tokenizer(path: Path, tokenizer: dict[str, Any]) -> str:
    """Return llama.cpp's name of the tokenizer's pre-tokenizer. Raise ValueError if llama.cpp has no equal one."""
    advice = "llama.cpp would split text differently; use the tokenizer of a Qwen2.5 checkpoint"
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or not model.get("vocab") or "merges" not in model:
        raise ValueError(f"{path} is a {model.get('type')} tokenizer, not Qwen2's byte-level BPE: {advice}")
    settings = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    settings += ["ignore_merges"] if model.get("ignore_merges") else []
    if settings:
        raise ValueError(f"{path} sets {', '.join(settings)}, which Qwen2's tokenizer does not: {advice}")
    steps = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers", [])
    if steps == SMOLLM_STEPS and tokenizer.get("normalizer") is None:
        return "smollm"
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    if patterns != [QWEN2_SPLIT] or steps[-1]["type"] != "ByteLevel":
        raise ValueError(f"{path} splits text by {patterns or 'no rule'}, not by Qwen2's rule: {advice}")
    if (tokenizer.get("normalizer") or {}).get("type") not in (None, "NFC"):
        raise ValueError(f"{path} normalizes text by {tokenizer['normalizer']}, not by NFC: {advice}")
    return "qwen2"


def _check_added(path: Path, added: dict[int, dict[str, Any]]) -> None:
    """Raise ValueError if an added token strips spaces or matches whole words only. llama.cpp supports neither."""
    for entry in added.values():
        settings = [key for key in ("lstrip", "rstrip", "single_word") if entry.get(key)]
        if settings:
            raise ValueError(
                f"{path}: the added token {entry['content']!r} sets {', '.join(settings)}, which llama.cpp does not "
                "support: set these to false, as in Qwen's tokenizer"
            )


def _token_type(number: int, by_id: dict[int, str], added: dict[int, dict[str, Any]]) -> int:
    if number not in by_id:
        return UNUSED
    if number not in added:
        return NORMAL
    text = by_id[number]
    # Qwen's tokenizer.json does not mark its FIM and repository tokens as special; for runtimes they are control
    # tokens.
    return CONTROL if added[number]["special"] or (text.startswith("<|") and text.endswith("|>")) else USER_DEFINED


def _merges(merges: list[Any]) -> list[str]:
    """Return the merges as strings `left right`. tokenizer.json has them as strings or as pairs."""
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _special_ids(path: Path, config: dict[str, Any], settings: dict[str, Any], ids: dict[str, int]) -> dict[str, int]:
    """Return a mapping: GGUF's name of a special token -> its id.

    Args:
        path: Path of tokenizer.json, for errors.
        config: Content of config.json.
        settings: Content of tokenizer_config.json.
        ids: Text of an added token -> its id.
    """
    end = ids.get(formats.ENDOFTEXT)
    if end is None:
        raise ValueError(f"{path} has no token {formats.ENDOFTEXT}: use the tokenizer of a Qwen2.5 checkpoint")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = config.get(key)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number not in ids.values():
                raise ValueError(
                    f"config.json has {key} {number}, which is not a special token of {path}: "
                    "model and tokenizer do not belong together"
                )
    family = recognize(ids.__contains__, config.get("model_type")) or QWEN2_5
    special = {"bos": ids.get(family.begin, end), "eos": _setting_id(settings, "eos_token", ids, end)}
    special["pad"] = _setting_id(settings, "pad_token", ids, end)
    if formats.IM_END in ids:
        special["eot"] = ids[formats.IM_END]
    special |= {word: ids[token] for word, token in FIM_KEYS.items() if token in ids}
    return special


def _setting_id(settings: dict[str, Any], key: str, ids: dict[str, int], default: int) -> int:
    entry = settings.get(key)
    text = entry.get("content") if isinstance(entry, dict) else entry
    if text is None:
        return default
    if text not in ids:
        raise ValueError(f"tokenizer_config.json has {key} {text!r}, which tokenizer.json does not have")
    return ids[text]


def read_chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """Return the chat template of a model folder, or None if the folder has no chat template.

    Args:
        folder: The model's folder. If it has a chat_template.jinja, that file is the template.
        settings: Content of tokenizer_config.json.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    return template
