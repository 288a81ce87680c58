"""The strings and token ids that Qwen2.5-Coder was trained on: fill-in-the-middle, repo-level and ChatML.

Sources: figures 3 and 4 of the Qwen2.5-Coder report (arXiv 2409.12186) and the examples of its repository.
Every format exists twice: as a string, to read and to compare, and as token ids, to train on. The ids are the
safe form: text between the special tokens is encoded so that it can never turn into a special token, even when
a file contains `<|fim_middle|>` as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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

# The added tokens of Qwen2.5's tokenizer in the order of their ids, 151643 to 151664 (its tokenizer.json).
# True marks those that the tokenizer calls special, so that `skip_special_tokens` hides them.
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

# Where generation stops after a FIM prompt (ids 151659, 151661-151664, 151643, 151645 in the real tokenizer).
FIM_STOP_TOKENS = (FIM_PREFIX, FIM_SUFFIX, FIM_PAD, REPO_NAME, FILE_SEP, ENDOFTEXT, IM_END)
CHAT_STOP_TOKENS = (IM_END, ENDOFTEXT)

IGNORED = -100
"""The label that no loss counts."""

DEFAULT_SYSTEM_PROMPT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

# Qwen2.5's own template, Apache-2.0. TRL knows it by its exact text and adds the marks that
# `assistant_only_loss` needs; exported models carry the plain form, which every runtime can read.
CHAT_TEMPLATE = (Path(__file__).parent / "templates" / "qwen2_5.jinja").read_text(encoding="utf-8")

FimMode = Literal["psm", "spm"]
_ADDED_TEXT = re.compile("|".join(re.escape(token) for token, _ in ADDED_TOKENS))


class Tokenizer(Protocol):
    """What this module needs of a Hugging Face tokenizer."""

    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str) -> int: ...


def fim_prompt(prefix: str, suffix: str, mode: FimMode = "psm") -> str:
    """The prompt whose continuation is the middle.

    `psm` (prefix, suffix, middle) is what Qwen2.5-Coder documents. `spm` puts the suffix first, in the form of
    the FIM paper (arXiv 2207.14255, section 3, variant 2): the middle follows the prefix directly.
    """
    if mode == "psm":
        return f"{FIM_PREFIX}{prefix}{FIM_SUFFIX}{suffix}{FIM_MIDDLE}"
    return f"{FIM_PREFIX}{FIM_SUFFIX}{suffix}{FIM_MIDDLE}{prefix}"


def fim_document(prefix: str, middle: str, suffix: str, mode: FimMode = "psm") -> str:
    """A file-level FIM document, ended by `<|endoftext|>`."""
    return f"{fim_prompt(prefix, suffix, mode)}{middle}{ENDOFTEXT}"


def repo_header(repository: str, files: Iterable[tuple[str, str]]) -> str:
    """`<|repo_name|>` and the files `(path, content)`, each ended by a newline."""
    body = "".join(f"{FILE_SEP}{path}\n{content}\n" for path, content in files)
    return f"{REPO_NAME}{repository}\n{body}"


def repo_document(repository: str, files: Sequence[tuple[str, str]]) -> str:
    """A repo-level document: all files whole, ended by `<|endoftext|>`.

    The report's figure shows no newline that ends the last file beyond the file's own, and none is lost: every
    file is followed by one newline, as in the repository's examples.
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
    """A repo-level document whose last file, at `path`, is a FIM block; `files` come before it."""
    return f"{repo_header(repository, files)}{FILE_SEP}{path}\n{fim_document(prefix, middle, suffix, mode)}"


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode `text` as text: no part of it becomes a special token, and decoding gives it back.

    Each special string is cut behind its first character, so that the tokenizer never sees it whole.
    """
    if "<" not in text:
        return tokenizer.encode(text, add_special_tokens=False)
    ids: list[int] = []
    start = 0
    for match in _ADDED_TEXT.finditer(text):
        ids += tokenizer.encode(text[start : match.start() + 1], add_special_tokens=False)
        start = match.start() + 1
    return ids + tokenizer.encode(text[start:], add_special_tokens=False)


def contains_special_text(text: str) -> bool:
    """Whether `text` spells a special token, and so needs `encode_text` or `escape_special_text`."""
    return _ADDED_TEXT.search(text) is not None


def escape_special_text(text: str) -> str:
    """Put a zero-width space behind the `<` of each special string: for chat text, which templates flatten."""
    return _ADDED_TEXT.sub(lambda match: f"<\u200b{match.group()[1:]}", text)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token; a tokenizer without it can't be used here, and the error says so."""
    found = tokenizer.convert_tokens_to_ids(token)
    encoded = tokenizer.encode(token, add_special_tokens=False)
    if found is None or encoded != [found]:
        raise ValueError(
            f"this tokenizer has no token {token}: it splits it into {len(encoded)} tokens. Use the tokenizer of "
            "a Qwen2.5 or Qwen2.5-Coder checkpoint, or add the token before training."
        )
    return found


def encode_segments(tokenizer: Tokenizer, segments: Iterable[tuple[str, bool]]) -> list[int]:
    """Encode `(text, special)` pairs: special ones as their token, all others by `encode_text`."""
    ids: list[int] = []
    for text, special in segments:
        if special:
            ids.append(token_id(tokenizer, text))
        elif text:
            ids += encode_text(tokenizer, text)
    return ids


def fim_segments(prefix: str, middle: str | None, suffix: str, mode: FimMode = "psm") -> list[tuple[str, bool]]:
    """Segments of `fim_document`, or of `fim_prompt` where `middle` is None."""
    if mode == "psm":
        order = [(FIM_PREFIX, True), (prefix, False), (FIM_SUFFIX, True), (suffix, False), (FIM_MIDDLE, True)]
    else:
        order = [(FIM_PREFIX, True), (FIM_SUFFIX, True), (suffix, False), (FIM_MIDDLE, True), (prefix, False)]
    if middle is not None:
        order += [(middle, False), (ENDOFTEXT, True)]
    return order


def repo_segments(repository: str, files: Iterable[tuple[str, str]]) -> list[tuple[str, bool]]:
    """Segments of `repo_header`; add `(ENDOFTEXT, True)` for `repo_document`, or a FIM block for the last file."""
    segments = [(REPO_NAME, True), (f"{repository}\n", False)]
    for path, content in files:
        segments += [(FILE_SEP, True), (f"{path}\n{content}\n", False)]
    return segments


def stop_token_ids(tokenizer: Tokenizer, tokens: Sequence[str] = FIM_STOP_TOKENS) -> list[int]:
    """Ids at which generation stops, in ascending order."""
    return sorted(token_id(tokenizer, token) for token in tokens)


def chat(messages: Sequence[dict[str, Any]], add_generation_prompt: bool = False) -> str:
    """ChatML as Qwen2.5's template writes it for plain messages (no tools).

    `tests/formats` holds this equal to the template itself; it exists for places without a tokenizer.
    """
    if not messages:
        raise ValueError("a conversation needs at least one message")
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": DEFAULT_SYSTEM_PROMPT}, *messages]
    turns = "".join(f"{IM_START}{message['role']}\n{message['content']}{IM_END}\n" for message in messages)
    return turns + (f"{IM_START}assistant\n" if add_generation_prompt else "")
