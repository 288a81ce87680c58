"""Check a saved model in a fresh process: the model loads, its files agree with each other, and its answers end.

These checks are called the contract of a saved model. `python -m alignment.models.contract < request.json` checks one
model. If a check fails, the stage that saved the model is not done, and `alignment.chain` stops with a message that
names every failed check.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment import logs
from alignment.files import write_json
from alignment.models import formats
from alignment.models.model_family import family_of
from alignment.processes import ProcessRequest, die_with_parent

PROBE_TOKENS = 256
"""Largest number of tokens within which an answer must end."""


class ContractRequest(ProcessRequest):
    """The saved model to check, and the checks to make."""

    model: Path
    """Folder of the model."""
    chat: bool
    """Whether the model ends its answers with `<|im_end|>`. Base models end with `<|endoftext|>`."""
    must_stop: bool
    """Whether to check that greedy answers of a chat model end by themselves."""
    out: Path
    """JSON file to which the results are written."""


def check(folder: Path, chat: bool, must_stop: bool = True) -> dict[str, Any]:
    """Check weights, embedding, stop tokens, chat template, and whether answers end.

    Args:
        folder: folder of the saved model. `probes.json` next to this folder may contain prompts for the last check.
        chat: whether the model ends its answers with `<|im_end|>`.
        must_stop: whether to generate answers and check that they end.

    Returns:
        The number of tensors and of parameters, and how many answers ended.

    Raises:
        ValueError: some checks failed. The message names all of them.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    # With ignore_mismatched_sizes, all tensors of a wrong shape are listed, instead of an error for the first one.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
    )
    model, loading_info = loaded
    broken = [
        f"weights: {kind.replace('_', ' ')}: {sorted(map(str, loading_info[kind]))[:3]}"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if loading_info.get(kind)
    ]
    tensors, messages = _check_weights(folder)
    broken += [*messages, *_check_embedding(model, tokenizer, folder), *_check_stop_tokens(model, tokenizer, chat)]
    figures: dict[str, Any] = {"tensors": tensors, "parameters": sum(p.numel() for p in model.parameters())}
    if chat and must_stop and not broken:
        prompts = _probes(folder.parent / "probes.json", tokenizer)
        stopped = _count_stopped(model, tokenizer, prompts)
        figures |= {"probes": len(prompts), "probes_stopped": stopped}
        if stopped * 2 < len(prompts):
            broken.append(
                f"stop: {len(prompts) - stopped} of {len(prompts)} answers had no end after {PROBE_TOKENS} tokens. Train "
                "longer, or check that the data's answers end and that the loss covers <|im_end|>"
            )
    if broken:
        raise ValueError("the model breaks its contract:\n" + "\n".join(f"  - {clause}" for clause in broken))
    return figures


def _check_weights(folder: Path) -> tuple[int, list[str]]:
    """Return the number of saved tensors, and a message for each kind of error in the tensors."""
    import torch
    from safetensors import safe_open

    empty, not_finite, tensors = [], [], 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - safe_open is no mapping
                tensor = weights.get_tensor(name)
                tensors += 1
                if tensor.numel() == 0:
                    empty.append(name)
                elif not torch.isfinite(tensor).all():
                    not_finite.append(name)
    messages = []
    if empty:
        messages.append(f"weights: {len(empty)} empty tensors, for example {empty[0]} (saved without gathering shards)")
    if not_finite:
        messages.append(f"weights: NaN or infinity in {len(not_finite)} tensors, for example {not_finite[0]}")
    return tensors, messages


def _check_embedding(model: Any, tokenizer: Any, folder: Path) -> Iterator[str]:
    """Check that the embedding has a row for every token, and is tied to the output layer if config.json says so."""
    rows = model.get_input_embeddings().weight.shape[0]
    size = model.config.vocab_size
    if rows < len(tokenizer) or rows != size:
        yield f"embedding: {rows} rows, config says {size}, tokenizer has {len(tokenizer)} tokens"
    # Read config.json directly: if the file has two different tensors, transformers loads them untied and changes
    # `model.config`.
    tied = bool(json.loads((folder / "config.json").read_text()).get("tie_word_embeddings", False))
    shared = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    if shared != tied:
        yield f"tied embeddings: config.json says {tied}, the loaded model says {shared}"


def _check_stop_tokens(model: Any, tokenizer: Any, chat: bool) -> Iterator[str]:
    """Check that tokenizer, config and generation config have the same end token, and that the chat template is the one
    used in training.
    """
    family = family_of(tokenizer)
    if tokenizer.chat_template != formats.training_template(tokenizer):
        yield "chat template: not the one the model was trained with"
    config, generation = model.config, model.generation_config
    expected = family.end_of_turn if chat else family.end_of_text
    end = formats.token_id(tokenizer, expected)
    stops = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    if tokenizer.eos_token != expected:
        yield f"EOS: the tokenizer says {tokenizer.eos_token!r}, not {expected!r}"
    if config.eos_token_id != end:
        yield f"EOS: config.json says {config.eos_token_id}, not {end} ({expected})"
    if end not in stops:
        yield f"EOS: generation_config.json says {stops}, without {end} ({expected})"


def _probes(file: Path, tokenizer: Any) -> list[str]:
    """Return the prompts for the check that answers end: prompts from the stage's data, or one general prompt."""
    if file.is_file():
        return [str(prompt) for prompt in json.loads(file.read_text())]
    question = [{"role": "user", "content": "Write a Python function that reverses a string."}]
    return [formats.chat(question, True, family=family_of(tokenizer))]


def _count_stopped(model: Any, tokenizer: Any, prompts: list[str]) -> int:
    """Generate greedy answers, and count the answers that end with `<|im_end|>`."""
    import torch

    end = formats.token_id(tokenizer, family_of(tokenizer).end_of_turn)
    if torch.accelerator.is_available():  # on a CPU, a 7B model takes minutes for this
        try:
            model.to(torch.accelerator.current_accelerator())
        except torch.OutOfMemoryError:
            model.to("cpu")
    stopped = 0
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)], device=model.device)
        with torch.no_grad():
            answer = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=PROBE_TOKENS, do_sample=False
            )[0, ids.shape[1] :].tolist()
        stopped += end in answer
    return stopped


def main() -> int:
    die_with_parent()
    logs.configure()
    # These imports take seconds. They run before the request arrives, while the stage still trains.
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM  # noqa: F401

    request = ContractRequest.from_json(sys.stdin.read())
    try:
        figures = check(request.model, request.chat, request.must_stop)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    write_json(request.out, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
