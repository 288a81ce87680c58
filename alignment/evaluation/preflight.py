"""Check a checkpoint before a long evaluation: chat template, stop tokens, and whether the tokenizer fits the model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignment.models import formats
from alignment.models.model_family import family_of

_CONVERSATION = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "3"},
]
QWEN_IDS = {formats.ENDOFTEXT: 151643, formats.IM_START: 151644, formats.IM_END: 151645}
QWEN_VOCABULARIES = (151936, 152064)
"""Numbers of embedding rows of the released Qwen2.5 checkpoints: up to 3B, and from 7B on."""


def check_checkpoint(model_path: str | Path, modes: Iterable[str], fim: bool = False) -> list[str]:
    """Check that a checkpoint can be measured, from its configuration and tokenizer, without loading weights.

    Args:
        model_path: a checkpoint folder, or a name on the hub.
        modes: modes of the benchmarks to run, `base` and `chat`.
        fim: whether some of these benchmarks are fill-in-the-middle benchmarks.

    Returns:
        Warnings about problems that do not change the scores.

    Raises:
        ValueError: the checkpoint cannot be loaded or measured; the message lists all problems.
    """
    from transformers import AutoConfig, AutoTokenizer

    if is_local_path(str(model_path)) and not Path(model_path).exists():
        raise ValueError(f"there is no folder {model_path}: name a model's folder, or a model on the hub as OWNER/NAME")
    chat = "chat" in set(modes)
    try:
        config = AutoConfig.from_pretrained(model_path)
        tokenizer = AutoTokenizer.from_pretrained(model_path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{model_path} is not a checkpoint that transformers can load: {error}") from error
    problems = [*_embedding_problems(Path(model_path), config, tokenizer)]
    warnings: list[str] = []
    stops = _generation_stops(Path(model_path), config)
    if chat:
        problems += _template_problems(tokenizer)
        problems += _end_of_turn_problems(tokenizer, stops)
    elif not stops and tokenizer.eos_token_id is None:
        problems.append(NO_EOS)
    if fim and not (family := family_of(tokenizer)).trains_fim:
        problems.append(f"{family.no_fim()}: leave out the fill-in-the-middle benchmarks")
    elif fim:
        for token in (formats.FIM_PREFIX, formats.FIM_MIDDLE, formats.FIM_SUFFIX):
            if tokenizer.encode(token, add_special_tokens=False) != [tokenizer.convert_tokens_to_ids(token)]:
                problems.append(f"fill-in-the-middle needs the token {token}, which this tokenizer does not have")
    if not chat and stops and tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in stops:
        warnings.append(
            f"{model_path}: the tokenizer's EOS is {tokenizer.eos_token!r}, but generation_config.json stops at ids "
            f"{stops}. In this evaluation both end a completion; other runtimes may use only one of them"
        )
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise ValueError(f"{model_path} cannot be measured:{listed}")
    return warnings


NO_EOS = "no EOS: neither the tokenizer nor the generation config has one, so no completion would end by itself"


def is_local_path(model: str) -> bool:
    """Whether a text can only be a path, because names on the hub have the form `name` or `owner/name`."""
    return model.startswith((".", "/", "~")) or model.count("/") > 1


def _embedding_problems(folder: Path, config: Any, tokenizer: Any) -> Iterable[str]:
    rows = _embedding_rows(folder) or config.vocab_size
    if rows != config.vocab_size:
        yield f"vocab_size in config.json is {config.vocab_size}, but the embedding has {rows} rows"
    vocabulary = tokenizer.get_vocab()
    highest = max(vocabulary.values())
    if highest >= rows:
        beyond = sorted(token for token, index in vocabulary.items() if index >= rows)
        yield (
            f"the tokenizer does not fit: {len(beyond)} of its tokens have ids beyond the embedding's {rows} rows, for "
            f"example {beyond[0]!r} (id {vocabulary[beyond[0]]}). Is it the tokenizer of another model?"
        )
    if config.vocab_size in QWEN_VOCABULARIES and len(vocabulary) > 100_000:
        for token, expected in QWEN_IDS.items():
            if vocabulary.get(token) != expected:
                yield f"{token} has id {vocabulary.get(token)}, not {expected}: this is not Qwen2.5's tokenizer"
    elif rows > 2 * (highest + 1):
        yield (
            f"the tokenizer does not fit: its highest id is {highest}, the embedding has {rows} rows. Is it the "
            "tokenizer of another model?"
        )


def _embedding_rows(folder: Path) -> int | None:
    """Read the number of rows of the input embedding from the safetensors headers.

    None if the folder has no safetensors file with an embedding.
    """
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        return None
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118 (not a mapping)
                    if name.endswith("embed_tokens.weight"):
                        return int(weights.get_slice(name).get_shape()[0])
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged: {error}") from error
    return None


def _generation_stops(folder: Path, config: Any) -> list[int]:
    """Return the token ids that stop generation, from generation_config.json, or else from config.json."""
    file = folder / "generation_config.json"
    stops = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else config.eos_token_id
    return [stop for stop in (stops if isinstance(stops, list) else [stops]) if stop is not None]


def _template_problems(tokenizer: Any) -> Iterable[str]:
    if not tokenizer.chat_template:
        yield "no chat template: a chat benchmark needs one. Save the tokenizer of the SFT stage, or use mode: base"
        return
    try:
        rendered = tokenizer.apply_chat_template(_CONVERSATION, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template can fail with any exception
        yield f"the chat template cannot render a conversation: {error}"
        return
    if formats.IM_START not in tokenizer.get_vocab():
        return  # the template of another model family: the correct rendering is unknown
    expected = formats.chat(_CONVERSATION, add_generation_prompt=True)
    # Text before the first user turn may differ, since templates have different default system prompts.
    if rendered.split(formats.IM_START + "user", 1)[-1] != expected.split(formats.IM_START + "user", 1)[-1]:
        yield (
            "the chat template is not ChatML, although the tokenizer has ChatML's tokens: a model trained on "
            f"`{expected.splitlines()[-1]}` would be prompted with {rendered[-60:]!r}. Save Qwen2.5's template with the "
            "tokenizer"
        )


def _end_of_turn_problems(tokenizer: Any, stops: list[int]) -> Iterable[str]:
    end = tokenizer.get_vocab().get(formats.IM_END)
    if end is None:
        if tokenizer.eos_token_id is None and not stops:
            yield NO_EOS
        return
    if end not in stops:
        yield (
            f"generation_config.json stops at ids {stops}, without {formats.IM_END} ({end}): in other runtimes the "
            "model will not stop. Add the id to `eos_token_id`"
        )
