"""Is this checkpoint what it says? Found out before a long run: chat template, end of turn, tokenizer and embedding."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignment.models import formats
from alignment.models.stored_tensors import read_safetensors_header

_PROBE = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "3"}]


def check_checkpoint(model_path: str | Path, modes: Iterable[str], fim: bool = False) -> list[str]:
    """Raise ValueError naming everything that makes scores of this checkpoint meaningless; return mere warnings.

    Loads the configuration and the tokenizer, not the weights. `modes` are the modes of the benchmarks to run.
    """
    from transformers import AutoConfig, AutoTokenizer

    chat = "chat" in set(modes)
    try:
        config = AutoConfig.from_pretrained(model_path)
        tokenizer = AutoTokenizer.from_pretrained(model_path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{model_path} is no checkpoint that transformers can load: {error}") from error
    problems = [*_embedding(Path(model_path), config, tokenizer)]
    warnings: list[str] = []
    stops = _generation_stops(Path(model_path), config)
    if chat:
        problems += _template(tokenizer)
        problems += _end_of_turn(tokenizer, stops)
    elif not stops and tokenizer.eos_token_id is None:
        problems.append("no EOS: neither the tokenizer nor the generation config names one, so nothing ends by itself")
    if fim:
        for token in (formats.FIM_PREFIX, formats.FIM_MIDDLE, formats.FIM_SUFFIX):
            if tokenizer.encode(token, add_special_tokens=False) != [tokenizer.convert_tokens_to_ids(token)]:
                problems.append(f"fill-in-the-middle needs the token {token}, which this tokenizer splits or lacks")
    if not chat and stops and tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in stops:
        warnings.append(
            f"{model_path}: the tokenizer ends with {tokenizer.eos_token!r}, generation_config.json with ids {stops}; "
            "both end a completion here, but other runtimes may know only one"
        )
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise ValueError(f"{model_path} can't be measured as it is:{listed}")
    return warnings


def _embedding(folder: Path, config: Any, tokenizer: Any) -> Iterable[str]:
    rows = _embedding_rows(folder) or config.vocab_size
    if rows != config.vocab_size:
        yield f"config.json says vocab_size {config.vocab_size}, the embedding has {rows} rows"
    vocabulary = tokenizer.get_vocab()
    highest = max(vocabulary.values())
    if highest >= rows:
        beyond = sorted(token for token, index in vocabulary.items() if index >= rows)
        yield (
            f"the tokenizer does not fit: {len(beyond)} of its tokens lie beyond the embedding's {rows} rows, for "
            f"example {beyond[0]!r} (id {vocabulary[beyond[0]]}). Is it the tokenizer of another model?"
        )
    real_ids = {formats.ENDOFTEXT: 151643, formats.IM_START: 151644, formats.IM_END: 151645}
    if config.vocab_size in (151936, 152064) and len(vocabulary) > 100_000:
        for token, expected in real_ids.items():
            if vocabulary.get(token) != expected:
                yield f"{token} has id {vocabulary.get(token)}, not {expected}: this is not Qwen2.5's tokenizer"
    elif rows > 2 * (highest + 1):
        yield (
            f"the tokenizer does not fit: its highest id is {highest}, the embedding has {rows} rows. Is it the "
            "tokenizer of another model?"
        )


def _embedding_rows(folder: Path) -> int | None:
    """Rows of the input embedding by the safetensors headers alone."""
    if not folder.is_dir():
        return None
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in read_safetensors_header(file).items():
            if name.endswith("embed_tokens.weight"):
                return tensor.shape[0]
    return None


def _generation_stops(folder: Path, config: Any) -> list[int]:
    file = folder / "generation_config.json"
    stops = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else config.eos_token_id
    return [stop for stop in (stops if isinstance(stops, list) else [stops]) if stop is not None]


def _template(tokenizer: Any) -> Iterable[str]:
    if not tokenizer.chat_template:
        yield "no chat template: a chat benchmark needs one. Save the tokenizer of the SFT stage, or use mode: base"
        return
    try:
        rendered = tokenizer.apply_chat_template(_PROBE, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever a template does wrong, jinja says it in its own way
        yield f"the chat template can't render a conversation: {error}"
        return
    if formats.IM_START not in tokenizer.get_vocab():
        return  # another family's template: nothing is known about what is right
    expected = formats.chat(_PROBE, add_generation_prompt=True)
    own_system = rendered.split(formats.IM_START + "user", 1)[-1] == expected.split(formats.IM_START + "user", 1)[-1]
    if not own_system:
        yield (
            "the chat template is not ChatML, though the tokenizer has its tokens: a model trained on "
            f"`{expected.splitlines()[-1]}` will be asked with {rendered[-60:]!r}. Save Qwen2.5's template with it"
        )


def _end_of_turn(tokenizer: Any, stops: list[int]) -> Iterable[str]:
    end = tokenizer.get_vocab().get(formats.IM_END)
    if end is None:
        if tokenizer.eos_token_id is None and not stops:
            yield "no EOS: neither the tokenizer nor the generation config names one"
        return
    if end not in stops:
        yield (
            f"generation_config.json ends at ids {stops}, without {formats.IM_END} ({end}): served elsewhere, the "
            "model will not stop. Add it to `eos_token_id`"
        )
