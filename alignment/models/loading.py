"""Load, change, merge and save models, with checks that the saved model equals the trained model.

A training stage calls `load_with_context`, trains, calls `merge_adapter` (with LoRA), and calls `save`. Afterwards
`alignment.models.contract` checks the saved model in a fresh process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from alignment.models import formats
from alignment.models.model_family import check_supported, family_of, stored_family
from alignment.models.precision import resolve_dtype
from alignment.models.source import Context, ModelSource, RandomInit

# Largest allowed difference of any logit between the model with adapter and the merged model, both in float32, as a
# share of the largest logit. Rounding in float32 causes smaller differences, and a wrong merge causes larger ones.
MERGE_TOLERANCE = 1e-4
# The same limit after the merged weights are rounded to the type in which they are saved. If the adapter changes the
# logits by more than this limit, rounding may change them by as much as the adapter does.
ROUNDING_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        ValueError: there is no tokenizer, or it lacks a special token of its model family, or the toolkit can't train
            models of this family.
    """
    location = source.tokenizer or source.checkpoint
    tokenizer: PreTrainedTokenizerBase
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, revision=source.revision)
    except (OSError, ValueError) as error:
        raise ValueError(f"no tokenizer can be loaded from {location}: {_first_line(error)}") from None
    family = stored_family(Path(source.checkpoint)) if source.path else None
    check_supported(family or family_of(tokenizer))
    for token in family_of(tokenizer).added_tokens:
        formats.token_id(tokenizer, token)
    return tokenizer


def _torch_dtype(source: ModelSource) -> torch.dtype:
    """Return the torch type of a source's weights. With `dtype: auto`, random weights are drawn in float32."""
    if source.dtype == "auto" and source.init is not None:
        return torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: torch.dtype = getattr(torch, resolve_dtype(source.dtype, device).dtype)
    return dtype


def write_random(source: ModelSource, tokenizer: PreTrainedTokenizerBase, seed: int, folder: Path) -> None:
    """Write a checkpoint with the random weights of `source.init`.

    All processes then load the same weights from this checkpoint, whether or not the weights are sharded among the
    processes.
    """
    assert source.init is not None
    model = random_model(source.init, tokenizer, seed, _torch_dtype(source))
    set_stop_tokens(model, tokenizer, chat=False)
    save(model, tokenizer, folder)


def checkpoint_of(source: ModelSource, seed: int, folder: Path) -> str:
    """Return the folder or hub name of a model's checkpoint. Random weights are first written to `folder`."""
    if source.init is None:
        return source.checkpoint
    write_random(source, load_tokenizer(source), seed, folder)
    return str(folder)


def load(source: ModelSource, tokenizer: PreTrainedTokenizerBase, **kwargs: Any) -> PreTrainedModel:
    """Load a checkpoint.

    Args:
        source: the checkpoint. Random weights must first be written to disk by `write_random`.
        tokenizer: the model's tokenizer.
        kwargs: further arguments of `from_pretrained`.

    Raises:
        ValueError: the checkpoint is missing or damaged, or has fewer embedding rows than the tokenizer has tokens.
    """
    with _one_line_errors(source):
        model = AutoModelForCausalLM.from_pretrained(
            source.checkpoint,
            revision=source.revision,
            dtype=_torch_dtype(source),
            attn_implementation=source.attn_implementation,
            **kwargs,
        )
    rows = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index]
    if 0 < rows < len(tokenizer):  # the number of rows is 0 if ZeRO-3 has sharded the weights
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, but the embedding of the model {source.path} has only {rows} rows: "
            "use the model's own tokenizer"
        )
    return model


@contextmanager
def _one_line_errors(source: ModelSource) -> Iterator[None]:
    """Convert exceptions that libraries raise for missing, truncated or inconsistent checkpoints to a ValueError with a
    message of one line.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = _first_line(error)
        if "ignore_mismatched_sizes" in reason:
            reason = "the weights do not have the shapes that config.json says"
        raise ValueError(f"no model can be loaded from {source.path}: {reason}") from error


def random_model(
    init: RandomInit, tokenizer: PreTrainedTokenizerBase, seed: int, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Create a Qwen2 model with random weights.

    The embedding has one row per token of the tokenizer, or `init.vocab_size` rows if that number is larger.
    """
    settings = init.model_dump(exclude={"rope_theta", "vocab_size"})
    end = formats.token_id(tokenizer, formats.ENDOFTEXT)
    config = Qwen2Config(
        **settings,
        vocab_size=max(len(tokenizer), init.vocab_size or 0),
        rope_parameters={"rope_type": "default", "rope_theta": init.rope_theta},
        bos_token_id=end,
        eos_token_id=end,
        dtype=dtype,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end)
    return model


def apply_context(config: Any, context: Context | None) -> list[str]:
    """Write long-context settings into a model's config, before the model is built.

    Args:
        config: config of a transformers model, which is changed in place.
        context: the settings. None changes nothing.

    Returns:
        A description of each change.

    Raises:
        ValueError: the RoPE base would be lowered, which would destroy the positions that the model has learned.
    """
    if context is None:
        return []
    changes: list[str] = []
    rope = dict(config.rope_parameters or {})
    theta = context.rope_theta
    if theta is not None and theta != rope.get("rope_theta"):
        if theta < rope.get("rope_theta", 0):
            raise ValueError(
                f"context.rope_theta: the model was trained with {rope['rope_theta']:g}; lowering it to {theta:g} "
                "would destroy the positions that it has learned. Remove `context.rope_theta`, or set a larger value."
            )
        changes.append(f"RoPE base {rope.get('rope_theta', 0):g} -> {theta:g}")
        rope["rope_theta"] = theta
    factor = context.yarn_factor
    if factor is not None:
        original = (
            context.original_max_position_embeddings
            or rope.get("original_max_position_embeddings")
            or config.max_position_embeddings
        )
        rope |= {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": original}
        stretched = int(original * factor)
        changes.append(f"YaRN factor {factor:g} over {original} tokens")
        if context.max_position_embeddings is None:
            config.max_position_embeddings = max(config.max_position_embeddings, stretched)
    if context.max_position_embeddings is not None:
        config.max_position_embeddings = context.max_position_embeddings
        changes.append(f"length {config.max_position_embeddings}")
    config.rope_parameters = rope
    return changes


def load_with_context(
    source: ModelSource, context: Context | None, tokenizer: PreTrainedTokenizerBase, **kwargs: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint and apply a stage's long-context settings to its config.

    Returns:
        The model, and descriptions of the changes that `apply_context` made.
    """
    if context is None:
        return load(source, tokenizer, **kwargs), []
    with _one_line_errors(source):
        config = AutoConfig.from_pretrained(source.checkpoint, revision=source.revision)
    changes = apply_context(config, context)
    return load(source, tokenizer, config=config, **kwargs), changes


def set_stop_tokens(model: Any, tokenizer: PreTrainedTokenizerBase, chat: bool) -> None:
    """Set the same stop tokens in tokenizer, config and generation config, and set the chat template of the training.

    Generation stops at `<|endoftext|>` for base models, and at `<|im_end|>` or `<|endoftext|>` for chat models, as in
    the generation config of Qwen2.5-Coder-Instruct.
    """
    family = family_of(tokenizer)
    begin, end, turn = (
        formats.token_id(tokenizer, token) for token in (family.begin, family.end_of_text, family.end_of_turn)
    )
    tokenizer.chat_template = formats.training_template(tokenizer)
    tokenizer.pad_token = family.end_of_text
    tokenizer.eos_token = family.end_of_turn if chat else family.end_of_text
    model.config.bos_token_id = begin
    model.config.pad_token_id = end
    model.config.eos_token_id = turn if chat else end
    generation = model.generation_config or GenerationConfig()
    generation.bos_token_id = begin
    generation.pad_token_id = end
    generation.eos_token_id = [turn, end] if chat else end
    model.generation_config = generation


def replaces_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether training replaces the tokenizer's chat template by a different template, its family's."""
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    if not tokenizer.chat_template:
        return False
    family = family_of(tokenizer)
    if family.keeps_template:
        return not formats.writes_family_format(tokenizer)
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False)) != formats.chat(messages, family=family)
    except Exception:  # a template may raise anything
        return True


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save weights, configs, tokenizer and chat template to one folder."""
    model.config.use_cache = True
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def merge_adapter(
    source: ModelSource, adapter: Path, tokenizer: PreTrainedTokenizerBase, context: Context | None
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Merge a LoRA adapter into its base model, and compare the logits before and after merging.

    Args:
        source: the model that the adapter was trained on.
        adapter: folder of the adapter.
        tokenizer: the model's tokenizer.
        context: long-context settings that the adapter was trained with.

    Returns:
        The merged model, and two measurements. `merge_logit_difference` is the largest difference of any logit before
        and after merging in float32, as a share of the largest logit. `merge_rounding` is the share of the adapter's
        effect on the logits that is lost when the weights are rounded to the type in which they are saved (0 for
        float32).

    Raises:
        ValueError: merging changed the model, or rounding changed it by more than the adapter did.
    """
    from peft import PeftModel

    model, _ = load_with_context(source, context, tokenizer)
    # Merge in float32, even if the weights are saved in another type: bfloat16 would lose small updates.
    dtype = model.dtype
    adapted = PeftModel.from_pretrained(model.float(), str(adapter)).eval()
    probe = _probe_ids(tokenizer)
    with adapted.disable_adapter():
        plain = adapted(input_ids=probe).logits
    before = adapted(input_ids=probe).logits
    scale = max(before.abs().max().item(), 1e-9)
    effect = (before - plain).abs().max().item() / scale

    merged = adapted.merge_and_unload(safe_merge=True).eval()
    difference = (merged(input_ids=probe).logits - before).abs().max().item() / scale
    # Round the weights but compute in float32, to measure only the rounding of the weights, not of the arithmetic.
    for weight in merged.parameters():
        weight.copy_(weight.to(dtype))
    rounding = (merged(input_ids=probe).logits - before).abs().max().item() / scale
    if not (difference <= MERGE_TOLERANCE and rounding <= max(ROUNDING_TOLERANCE[dtype], effect)):
        raise ValueError(
            f"merging the adapter changed the model: logits differ by {difference:.2e} of the largest logit, and by "
            f"{rounding:.2e} with weights in {str(dtype).removeprefix('torch.')}; the adapter changed them by "
            f"{effect:.2e}. The adapter is kept in {adapter}; nothing was merged."
        )
    lost = min(1.0, rounding / effect) if effect > MERGE_TOLERANCE and dtype != torch.float32 else 0.0
    return merged.to(dtype), {"merge_logit_difference": difference, "merge_rounding": round(lost, 4)}


def _probe_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    messages = [{"role": "user", "content": "def add(a, b):\n    return a + b\n"}]
    text = formats.chat(messages, True, family=family_of(tokenizer))
    return torch.tensor([tokenizer.encode(text, add_special_tokens=False)])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
