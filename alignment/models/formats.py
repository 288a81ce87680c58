"""Write text in the formats that models were trained on: fill-in-the-middle, repo-level and ChatML.

Fill-in-the-middle and repo-level texts have the tokens of Qwen2.5-Coder. ChatML is written for each model family that
has it (`alignment.models.model_family`).

Sources: figures 3 and 4 of the Qwen2.5-Coder report (arXiv 2409.12186) and the examples in the Qwen2.5-Coder
repository. Each format can be written as a string (for reading and comparing) and as token ids (for training). In the
token ids, text between special tokens never becomes a special token, even if a file contains `<|fim_middle|>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from alignment.models.model_family import QWEN2_5, ModelFamily, family_of
from alignment.models.special_tokens import (
    ADDED_TOKENS,  # noqa: F401 - part of this module's interface
    CHAT_STOP_TOKENS,  # noqa: F401
    ENDOFTEXT,
    FILE_SEP,
    FIM_MIDDLE,
    FIM_PAD,  # noqa: F401
    FIM_PREFIX,
    FIM_STOP_TOKENS,
    FIM_SUFFIX,
    IM_END,
    IM_START,
    REPO_NAME,
    TOOL_CALL,
    TOOL_CALL_END,
)

IGNORED = -100
"""Label of tokens that the loss ignores (`ignore_index` of torch's cross-entropy)."""

assert QWEN2_5.default_system is not None
DEFAULT_SYSTEM_PROMPT = QWEN2_5.default_system

# The list of tools at the end of the system message: the text before the tools, after the tools, and around two of the
# three places where the tokens of calls are shown.
TOOLS_BEFORE = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_AFTER = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
TOOLS_FORM = " XML tags:\n"
TOOLS_EXAMPLE = '\n{"name": <function-name>, "arguments": <args-json-object>}\n'

# Qwen2.5's chat template (Apache-2.0). TRL recognizes the template by its exact text and adds what
# `assistant_only_loss` needs. Exported models have the unchanged template, which every runtime can read.
_TEMPLATES = Path(__file__).parent / "templates"
CHAT_TEMPLATE = (_TEMPLATES / "qwen2_5.jinja").read_text(encoding="utf-8")

FimMode = Literal["psm", "spm"]


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
    """Return the beginning of a repo-level prompt: the repository's name, then the path and content of each file."""
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
    for match in family_of(tokenizer).written_token.finditer(text):
        ids += tokenizer.encode(text[start : match.start() + 1], add_special_tokens=False)
        start = match.start() + 1
    return ids + tokenizer.encode(text[start:], add_special_tokens=False)


def encode_with_starts(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Encode text as `encode_text` does, and also return the position in the text of each token's first character.

    Args:
        tokenizer: a fast tokenizer of transformers.
        text: the text.

    Returns:
        Token ids, and positions in ascending order. Tokens that share a character of several bytes have the same
        position.
    """
    matches = family_of(tokenizer).written_token.finditer(text) if "<" in text else ()
    cuts = [0, *(match.start() + 1 for match in matches), len(text)]
    ids: list[int] = []
    starts: list[int] = []
    for start, end in pairwise(cuts):
        encoded = tokenizer(text[start:end], add_special_tokens=False, return_offsets_mapping=True)
        ids += encoded["input_ids"]
        starts += [start + offset for offset, _ in encoded["offset_mapping"]]
    return ids, starts


def contains_special_text(text: str, family: ModelFamily = QWEN2_5) -> bool:
    """Whether `text` contains the string of a special token of a model family.

    Such a text needs `encode_text` or `escape_special_text`.
    """
    return family.written_token.search(text) is not None


def escape_special_text(text: str, family: ModelFamily = QWEN2_5) -> str:
    """Insert a zero-width space after the `<` of each special token that is written out in a text.

    This is needed for chat messages, since a chat template joins the messages to one string, which is then encoded with
    special tokens.
    """
    return family.written_token.sub(lambda match: f"<\u200b{match.group()[1:]}", text)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a special token. Raises ValueError if the tokenizer does not have the token."""
    known_id = tokenizer.convert_tokens_to_ids(token)
    encoded = tokenizer.encode(token, add_special_tokens=False)
    if known_id is None or encoded != [known_id]:
        if (family := family_of(tokenizer)) is not QWEN2_5:
            raise ValueError(f"the tokenizer of the model family {family.name} has no token {token}")
        raise ValueError(
            f"this tokenizer has no token {token}: it splits the text into {len(encoded)} tokens. Use the tokenizer of "
            "a Qwen2.5 or Qwen2.5-Coder checkpoint, or add the token before training."
        )
    return encoded[0]


def encode_segments(tokenizer: Tokenizer, segments: Iterable[tuple[str, bool]]) -> list[int]:
    """Encode `(text, special)` pairs.

    If `special` is true, the text is encoded as one special token, otherwise by `encode_text`.
    """
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


def infill_segments(chunks: Iterable[tuple[str, str]]) -> list[tuple[str, bool]]:
    """Return the segments that llama.cpp's server puts in front of the FIM block of an `/infill` request.

    The server does not know the names of the repository and of the edited file, and writes `myproject` and `filename`
    instead, even if there are no chunks. If the segments are too long for the server's context (`n_ctx`), minus one
    batch and twice the length of the answer, the server drops tokens from their front.

    Args:
        chunks: file name and text of each entry of the request's `input_extra`.
    """
    segments = [(REPO_NAME, True), ("myproject\n", False)]
    for path, text in chunks:
        segments += [(FILE_SEP, True), (f"{path}\n", False), (text, False)]
    return [*segments, (FILE_SEP, True), ("filename\n", False)]


def stop_token_ids(tokenizer: Tokenizer, tokens: Sequence[str] = FIM_STOP_TOKENS) -> list[int]:
    """Return the ids of tokens that end generation, in ascending order."""
    return sorted(token_id(tokenizer, token) for token in tokens)


class Turn(NamedTuple):
    """One turn of ChatML: the role and the content between `<|im_start|>` and `<|im_end|>`."""

    role: str
    """The role as ChatML writes it. Results of tools are written as turns of the user."""
    pieces: list[tuple[str, bool]]
    """The content after the role and a newline, as `(text, special)` segments."""
    first: int
    """Index of the turn's first message. -1 if the turn is the default system message."""


def chat_turns(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), family: ModelFamily = QWEN2_5
) -> list[Turn]:
    """Return a conversation as turns of ChatML, as the family's chat template writes them.

    Args:
        messages: at least one message with `role` and `content`; messages of the assistant may have `tool_calls`, a
            list of `{name, arguments}` or `{function: {name, arguments}}` with `arguments` as a mapping. Without a
            system message at the start, the default one is added. Tool messages that follow each other share a turn.
        tools: descriptions of the tools, which are listed at the end of the system message.
        family: the family of the model that reads the conversation.

    Raises:
        ValueError: there is no message, or the family's template can't write tools and the conversation has tools.
    """
    if not messages:
        raise ValueError("a conversation needs at least one message")
    if not family.has_tools and (tools or any(m["role"] == "tool" or m.get("tool_calls") for m in messages)):
        raise ValueError(f"the chat template of the model family {family.name} has no tools: leave this row out")
    turns: list[Turn] = []
    if messages[0]["role"] != "system" and family.default_system is not None:
        turns.append(Turn("system", _system_pieces(family.default_system, tools), -1))
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            response = f"<tool_response>\n{content}\n</tool_response>"
            if index and messages[index - 1]["role"] == "tool":
                (before, _) = turns[-1].pieces[-1]
                turns[-1].pieces[-1] = (f"{before}\n{response}", False)
            else:
                turns.append(Turn("user", [(response, False)], index))
        elif calls := message.get("tool_calls"):
            turns.append(Turn(role, _call_pieces(content, calls), index))
        else:
            first = role == "system" and index == 0
            turns.append(Turn(role, _system_pieces(content, tools if first else ()), index))
    return turns


def _call_pieces(content: str, calls: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    pieces = [(f"{content}\n" if content else "", False)]
    for number, call in enumerate(calls):
        function = call.get("function") or call
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        body = f'\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n'
        pieces += [("\n" if number else "", False), (TOOL_CALL, True), (body, False), (TOOL_CALL_END, True)]
    return pieces


def _system_pieces(content: str, tools: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """Return the segments of a system message, with the list of tools at its end if there are any."""
    if not tools:
        return [(content, False)]
    lines = "".join(f"\n{json.dumps(tool, ensure_ascii=False)}" for tool in tools)
    text = f"{content}{TOOLS_BEFORE}{lines}{TOOLS_AFTER}"
    return [
        (text, False), (TOOL_CALL, True), (TOOL_CALL_END, True), (TOOLS_FORM, False),
        (TOOL_CALL, True), (TOOLS_EXAMPLE, False), (TOOL_CALL_END, True),
    ]  # fmt: skip


def chat(
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = False,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    escape: bool = False,
    family: ModelFamily = QWEN2_5,
) -> str:
    """Return messages in ChatML, as the family's chat template writes them, without a tokenizer.

    `tests/formats` checks that the result equals the output of the template.

    Args:
        messages: see `chat_turns`.
        add_generation_prompt: whether to end with the start of the assistant's turn.
        tools: see `chat_turns`.
        escape: insert a zero-width space into special strings of the messages (`escape_special_text`), for a text that
            is encoded with special tokens.
        family: the family of the model that reads the text.
    """
    text = ""
    for turn in chat_turns(messages, tools, family):
        pieces = (
            escape_special_text(piece, family) if escape and not special else piece for piece, special in turn.pieces
        )
        text += f"{IM_START}{turn.role}\n{''.join(pieces)}{IM_END}\n"
    return text + (f"{IM_START}assistant\n" if add_generation_prompt else "")


def training_template(tokenizer: Any) -> str:
    """Return the chat template that a model has after training.

    This is the checkpoint's own template if the family keeps it and the template writes conversations as `chat` does.
    Otherwise it is the published template of the family.
    """
    family = family_of(tokenizer)
    if family.keeps_template and tokenizer.chat_template and writes_family_format(tokenizer):
        return str(tokenizer.chat_template)
    assert family.template is not None, "check_supported refuses families without a template"
    return (_TEMPLATES / family.template).read_text(encoding="utf-8")


def writes_family_format(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template writes two small conversations exactly as `chat` does."""
    system, *rest = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user")]
    family = family_of(tokenizer)
    try:
        return all(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            == chat(messages, True, family=family)
            for messages in ([system, *rest], rest)
        )
    except Exception:  # a template may raise anything
        return False
