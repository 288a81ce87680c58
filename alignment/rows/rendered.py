"""Recognizes texts in which the special tokens of a chat, FIM or repository format are already written out.

Such tokens would be trained as plain text, so the model would learn a wrong format. Code that only mentions special
tokens is not recognized, because a recognized text begins with the first token of the format.
"""

from __future__ import annotations

import re

_START = re.compile(r"\s*(?:<s>|<\|endoftext\|>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>|<bos>)?\s*")
_FORMATS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("ChatML (<|im_start|>)", re.compile(r"<\|im_start\|>\s*(?:system|user|assistant|tool|developer)\b")),
    ("Llama 3's chat format (<|start_header_id|>)", re.compile(r"<\|start_header_id\|>")),
    ("the chat format of Llama 2 and Mistral ([INST])", re.compile(r"\[INST\].*\[/INST\]", re.DOTALL)),
    ("Gemma's chat format (<start_of_turn>)", re.compile(r"<start_of_turn>(?:user|model)\b")),
    ("a chat format (<|user|>)", re.compile(r"<\|(?:system|user|assistant)\|>\s*\n")),
    (
        "a fill-in-the-middle format (fim tokens)",
        re.compile(
            r"(?:<\|?fim[_-]prefix\|?>|<\|?fim[_-]suffix\|?>|<[|｜]fim▁begin[|｜]>|<PRE>|\[PREFIX\]|\[SUFFIX\])"
            r".*(?:<\|?fim[_-]middle\|?>|<[|｜]fim▁end[|｜]>|<MID>|\[MIDDLE\]|\[PREFIX\])",
            re.DOTALL,
        ),
    ),
    ("the repo-level format (<|repo_name|>, <|file_sep|>)", re.compile(r"<\|(?:repo_name|file_sep)\|>")),
    ("the repo-level format of StarCoder (<repo_name>, <file_sep>)", re.compile(r"<(?:repo_name|reponame|file_sep)>")),
)  # fmt: skip


def rendered_format(text: str) -> str | None:
    """Return the name of the format whose special tokens are written out in a text, or None for plain text."""
    start = _START.match(text)
    position = start.end() if start else 0
    if text[position : position + 1] not in ("<", "["):
        return None
    return next((name for name, pattern in _FORMATS if pattern.match(text, position)), None)
