"""Write text in the formats that Qwen2.5-Coder was trained on: fill-in-the-middle, repo-level and ChatML.

Sources: figures 3 and 4 of the Qwen2.5-Coder report (arXiv 2409.12186) and the examples in the Qwen2.5-Coder
repository. Each format can be written as a string (for reading and comparing) and as token ids (for training). In the
token ids, text between special tokens never becomes a special token, even if a file contains `<|fim_middle|>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

ENDOFTEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
FIM_PREFIX = "<|fim_prefix|>"
FIM_MIDDLE = "<|fim_middle|>"
FIM_SUFFIX = "<|fim_suffix|>"
FIM_PAD = "<|fim_pad|>"
REPO_NAME = "<|repo_name|>"
FILE_SEP = "<|file_sep|>"

# The added tokens in Qwen2.5's tokenizer.json, in the order of their ids 151643 to 151664. The second value says
# whether the tokenizer marks the token as special, so that `skip_special_tokens` hides the token.
ADDED_TOKENS: tuple[tuple[str, bool], ...] = (
    (ENDOFTEXT, True),
    (IM_START, True),
    (IM_END, True),
    ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True),
    ("<|box_start|>", True),
    ("<|box_end|>", True),
    ("<|quad_start|>", True),
    ("<|quad_end|>", True),
    ("<|vision_start|>", True),
    ("<|vision_end|>", True),
    ("<|vision_pad|>", True),
    ("<|image_pad|>", True),
    ("<|video_pad|>", True),
    ("<tool_call>", False),
    ("</tool_call>", False),
    (FIM_PREFIX, False),
    (FIM_MIDDLE, False),
    (FIM_SUFFIX, False),
    (FIM_PAD, False),
    (REPO_NAME, False),
    (FILE_SEP, False),
)

# Tokens that end generation after a FIM prompt (ids 151659, 151661-151664, 151643, 151645 in Qwen2.5's tokenizer).
FIM_STOP_TOKENS = (FIM_PREFIX, FIM_SUFFIX, FIM_PAD, REPO_NAME, FILE_SEP, ENDOFTEXT, IM_END)
CHAT_STOP_TOKENS = (IM_END, ENDOFTEXT)

IGNORED = -100
"""Label of tokens that the loss ignores (`ignore_index` of torch's cross-entropy)."""

DEFAULT_SYSTEM_PROMPT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

# Qwen2.5's chat template (Apache-2.0). TRL recognizes the template by its exact text and adds what
# `assistant_only_loss` needs. Exported models have the unchanged template, which every runtime can read.
CHAT_TEMPLATE = (Path(__file__).parent / "templates" / "qwen2_5.jinja").read_text(encoding="utf-8")

FimMode = Literal["psm", "spm"]
_ADDED_TEXT = re.compile("|".join(re.escape(token) for token, _ in ADDED_TOKENS))


class Tokenizer(Protocol):
    """Interface with the methods of a Hugging Face tokenizer that this module uses."""

    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str) -> int | list[int]: ...


def fim_prompt(prefix: str, suffix: str, mode: FimMode = "psm") -> str:
    """Return a fill-in-the-middle prompt, which the model continues with the middle.

    Args:
        prefix: the text before the middle.
        suffix: the text after the middle.
        mode: `psm` (prefix, suffix, middle) is the order that Qwen2.5-Coder documents. `spm` puts the suffix first, in
            the form of the FIM paper (arXiv 2207.14255, section 3, variant 2), where the middle follows the prefix
            directly.
    """
    if mode == "psm":
        return f"{FIM_PREFIX}{prefix}{FIM_SUFFIX}{suffix}{FIM_MIDDLE}"
    return f"{FIM_PREFIX}{FIM_SUFFIX}{suffix}{FIM_MIDDLE}{prefix}"


def fim_document(prefix: str, middle: str, suffix: str, mode: FimMode = "psm") -> str:
    """Return a file-level FIM document, which ends with `<|endoftext|>`."""
    return f"{fim_prompt(prefix, suffix, mode)}{middle}{ENDOFTEXT}"


def repo_header(repository: str, files: Iterable[tuple[str, str]]) -> str:
    """Return the name of a repository and its files `(path, content)`, each followed by a newline."""
    body = "".join(f"{FILE_SEP}{path}\n{content}\n" for path, content in files)
    return f"{REPO_NAME}{repository}\n{body}"


def repo_document(repository: str, files: Sequence[tuple[str, str]]) -> str:
    """Return a repo-level document of complete files, which ends with `<|endoftext|>`.

    Every file is followed by one newline, as in the examples of Qwen2.5-Coder's repository. The figure in the report
    shows no newline after the last file.
    """
    return f"{repo_header(repository, files)}{ENDOFTEXT}"


def repo_fim_document(
    repository: str,
    files: Sequence[tuple[str, str]],
    path: str,
    prefix: str,
    middle: str,
    suffix: str,
    mode: FimMode = "psm",
) -> str:
    """Return a repo-level document: first the complete `files`, then the file at `path` as a FIM block."""
    return f"{repo_header(repository, files)}{FILE_SEP}{path}\n{fim_document(prefix, middle, suffix, mode)}"


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode text so that no part becomes a special token. Decoding the ids returns the same text.

    The string of a special token is split after its first character, so that the tokenizer never sees the whole string.
    """
    if "<" not in text:
        return tokenizer.encode(text, add_special_tokens=False)
    ids: list[int] = []
    start = 0
    for match in _ADDED_TEXT.finditer(text):
        ids += tokenizer.encode(text[start : match.start() + 1], add_special_tokens=False)
        start = match.start() + 1
    return ids + tokenizer.encode(text[start:], add_special_tokens=False)


def encode_with_starts(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Encode text as `encode_text` does, with the position of each token's first character.

    Args:
        tokenizer: a fast tokenizer of transformers.
        text: the text.

    Returns:
        Token ids, and positions in ascending order. Tokens that share a character of several bytes have the same position.
    """
    cuts = (
        [0, *(match.start() + 1 for match in _ADDED_TEXT.finditer(text)), len(text)] if "<" in text else [0, len(text)]
    )
    ids: list[int] = []
    starts: list[int] = []
    for start, end in pairwise(cuts):
        encoded = tokenizer(text[start:end], add_special_tokens=False, return_offsets_mapping=True)
        ids += encoded["input_ids"]
        starts += [start + offset for offset, _ in encoded["offset_mapping"]]
    return ids, starts


def contains_special_text(text: str) -> bool:
    """Whether `text` contains the string of a special token.

    Such a text needs `encode_text` or `escape_special_text`.
    """
    return _ADDED_TEXT.search(text) is not None


def escape_special_text(text: str) -> str:
    """Insert a zero-width space after the `<` of each special token that is written out in a text.

    This is needed for chat messages, since a chat template joins the messages to one string, which is then encoded with
    special tokens.
    """
    return _ADDED_TEXT.sub(lambda match: f"<\u200b{match.group()[1:]}", text)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a special token. Raises ValueError if the tokenizer does not have it."""
    known_id = tokenizer.convert_tokens_to_ids(token)
    encoded = tokenizer.encode(token, add_special_tokens=False)
    if known_id is None or encoded != [known_id]:
        raise ValueError(
            f"this tokenizer has no token {token}: it splits the text into {len(encoded)} tokens. Use the tokenizer of "
            "a Qwen2.5 or Qwen2.5-Coder checkpoint, or add the token before training."
        )
    return encoded[0]


def encode_segments(tokenizer: Tokenizer, segments: Iterable[tuple[str, bool]]) -> list[int]:
    """Encode `(text, special)` pairs: a special text as one special token, any other text by `encode_text`."""
    ids: list[int] = []
    for text, special in segments:
        if special:
            ids.append(token_id(tokenizer, text))
        elif text:
            ids += encode_text(tokenizer, text)
    return ids


def fim_segments(prefix: str, middle: str | None, suffix: str, mode: FimMode = "psm") -> list[tuple[str, bool]]:
    """Return the `(text, special)` segments of `fim_document`, or of `fim_prompt` if `middle` is None."""
    if mode == "psm":
        order = [(FIM_PREFIX, True), (prefix, False), (FIM_SUFFIX, True), (suffix, False), (FIM_MIDDLE, True)]
    else:
        order = [(FIM_PREFIX, True), (FIM_SUFFIX, True), (suffix, False), (FIM_MIDDLE, True), (prefix, False)]
    if middle is not None:
        order += [(middle, False), (ENDOFTEXT, True)]
    return order


def repo_segments(repository: str, files: Iterable[tuple[str, str]]) -> list[tuple[str, bool]]:
    """Return the `(text, special)` segments of `repo_header`.

    The caller appends `(ENDOFTEXT, True)` for a `repo_document`, or the segments of a FIM block for the last file.
    """
    segments = [(REPO_NAME, True), (f"{repository}\n", False)]
    for path, content in files:
        segments += [(FILE_SEP, True), (f"{path}\n{content}\n", False)]
    return segments


def stop_token_ids(tokenizer: Tokenizer, tokens: Sequence[str] = FIM_STOP_TOKENS) -> list[int]:
    """Return the ids of tokens that end generation, in ascending order."""
    return sorted(token_id(tokenizer, token) for token in tokens)


def chat(messages: Sequence[dict[str, Any]], add_generation_prompt: bool = False) -> str:
    """Return messages in ChatML, as Qwen2.5's chat template writes them (without tools). No tokenizer is needed.

    `tests/formats` checks that the result equals the output of the template.

    Args:
        messages: at least one message with `role` and `content`. If there is no system message, the default is added.
        add_generation_prompt: whether to end with the start of the assistant's turn.
    """
    if not messages:
        raise ValueError("a conversation needs at least one message")
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": DEFAULT_SYSTEM_PROMPT}, *messages]
    turns = "".join(f"{IM_START}{message['role']}\n{message['content']}{IM_END}\n" for message in messages)
    return turns + (f"{IM_START}assistant\n" if add_generation_prompt else "")
