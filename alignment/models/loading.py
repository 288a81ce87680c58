"""Loading, adapting, merging and saving models, so that what is saved is what was trained.

The order of a training stage: `load` -> `apply_context` -> train -> `merge_adapter` (with LoRA) -> `save`. What was
saved is then checked in a fresh process by `alignment.models.contract`.
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
    Qwen2Config,
)

from alignment.models import formats

# Largest difference of any logit between model with adapter and merged model, both in float32, as a share of the
# largest logit: more than float32's own rounding is a wrong merge.
MERGE_TOLERANCE = 1e-4
# The same after the merged weights are rounded to the type they are kept in; an adapter that changes the logits by more
# may lose as much as it changed, and no more.
ROUNDING_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


def load_tokenizer(source: dict[str, Any]) -> Any:
    """The tokenizer of a model source; it must know the tokens of fill-in-the-middle and ChatML."""
    where = source.get("tokenizer") or source["path"]
    tokenizer: Any
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=source.get("revision"))
    except (OSError, ValueError) as error:
        raise ValueError(f"no tokenizer can be loaded from {where}: {_first_line(error)}") from None
    for token, _ in formats.ADDED_TOKENS:
        formats.token_id(tokenizer, token)
    return tokenizer


def write_random(source: dict[str, Any], tokenizer: Any, seed: int, folder: Path) -> None:
    """Write a source's `init` down as a checkpoint: whoever starts from it, sharded or not, loads the same weights."""
    model = random_model(source["init"], tokenizer, seed, getattr(torch, source["dtype"]))
    set_stop_tokens(model, tokenizer, chat=False)
    save(model, tokenizer, folder)


def load(source: dict[str, Any], tokenizer: Any, **kwargs: Any) -> PreTrainedModel:
    """The checkpoint of a source, as `alignment.chain.plan` resolves it: path, revision, dtype, attn_implementation.

    `kwargs` go to `from_pretrained`.
    """
    dtype = getattr(torch, source.get("dtype") or "bfloat16")
    attention = source.get("attn_implementation")
    with _in_words(source):
        model = AutoModelForCausalLM.from_pretrained(
            source["path"], revision=source.get("revision"), dtype=dtype, attn_implementation=attention, **kwargs
        )
    rows = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index]
    if 0 < rows < len(tokenizer):  # rows are 0 where ZeRO-3 has the weights in shards
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens and the model {source['path']} only {rows} rows")
    return model


@contextmanager
def _in_words(source: dict[str, Any]) -> Iterator[None]:
    """What the libraries say of a checkpoint that is missing, cut short or contradicts itself, as one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = _first_line(error)
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights do not have the shapes that its config.json says"
        raise ValueError(f"no model can be loaded from {source['path']}: {reason}") from error


def random_model(
    init: dict[str, Any], tokenizer: Any, seed: int, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A Qwen2 model with random weights; the embedding has as many rows as the tokenizer has tokens, or more."""
    settings = dict(init)
    rope = {"rope_type": "default", "rope_theta": settings.pop("rope_theta", 1_000_000.0)}
    rows = max(len(tokenizer), settings.pop("vocab_size", None) or 0)
    end = formats.token_id(tokenizer, formats.ENDOFTEXT)
    config = Qwen2Config(
        **settings, vocab_size=rows, rope_parameters=rope, bos_token_id=end, eos_token_id=end, dtype=dtype
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end)
    return model


def apply_context(config: Any, context: dict[str, Any] | None) -> list[str]:
    """Write long-context settings into a model's config before it is built; returns what changed, in words.

    RoPE's base may only grow: a checkpoint trained at 1e6 has no use for 1e4. YaRN needs the length it stretches,
    by default the config's own. Raises ValueError for what would harm the model silently.
    """
    if not context:
        return []
    changes: list[str] = []
    rope = dict(config.rope_parameters or {})
    theta = context.get("rope_theta")
    if theta is not None and theta != rope.get("rope_theta"):
        if theta < rope.get("rope_theta", 0):
            raise ValueError(
                f"context.rope_theta: the model was trained with {rope['rope_theta']:g}; lowering it to {theta:g} "
                "would scramble its positions. Leave it out, or raise it."
            )
        changes.append(f"RoPE base {rope.get('rope_theta', 0):g} -> {theta:g}")
        rope["rope_theta"] = theta
    factor = context.get("yarn_factor")
    if factor is not None:
        original = (
            context.get("original_max_position_embeddings")
            or rope.get("original_max_position_embeddings")
            or config.max_position_embeddings
        )
        rope |= {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": original}
        stretched = int(original * factor)
        changes.append(f"YaRN factor {factor:g} over {original} tokens")
        if not context.get("max_position_embeddings"):
            config.max_position_embeddings = max(config.max_position_embeddings, stretched)
    if context.get("max_position_embeddings"):
        config.max_position_embeddings = context["max_position_embeddings"]
        changes.append(f"length {config.max_position_embeddings}")
    config.rope_parameters = rope
    return changes


def load_with_context(
    source: dict[str, Any], context: dict[str, Any] | None, tokenizer: Any, **kwargs: Any
) -> tuple[PreTrainedModel, list[str]]:
    """`load`, with the stage's long-context settings in the config that the model is built from."""
    if not context:
        return load(source, tokenizer, **kwargs), []
    with _in_words(source):
        config = AutoConfig.from_pretrained(source["path"], revision=source.get("revision"))
    changes = apply_context(config, context)
    return load(source, tokenizer, config=config, **kwargs), changes


def set_stop_tokens(model: Any, tokenizer: Any, chat: bool) -> None:
    """Make tokenizer, config and generation config agree on where to stop.

    Base models end at `<|endoftext|>`; chat models at `<|im_end|>`, or at `<|endoftext|>` after that, as the
    generation config of Qwen2.5-Coder-Instruct has it.
    """
    end, turn = (formats.token_id(tokenizer, token) for token in (formats.ENDOFTEXT, formats.IM_END))
    tokenizer.chat_template = formats.CHAT_TEMPLATE
    tokenizer.pad_token = formats.ENDOFTEXT
    tokenizer.eos_token = formats.IM_END if chat else formats.ENDOFTEXT
    model.config.bos_token_id = end
    model.config.pad_token_id = end
    model.config.eos_token_id = turn if chat else end
    generation = model.generation_config or GenerationConfig()
    generation.bos_token_id = end
    generation.pad_token_id = end
    generation.eos_token_id = [turn, end] if chat else end
    model.generation_config = generation


def replaces_template(tokenizer: Any) -> bool:
    """Whether the tokenizer's own chat template writes conversations otherwise than the toolkit's, which takes its place."""
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ]
    if not tokenizer.chat_template:
        return False
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False)) != formats.chat(messages)
    except Exception:  # whatever somebody's template raises
        return True


def save(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Save weights, configs, tokenizer and chat template together."""
    model.config.use_cache = True
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def merge_adapter(
    source: dict[str, Any], adapter: Path, tokenizer: Any, context: dict[str, Any] | None
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Merge a LoRA adapter into the full weights it was trained on, and prove the two equal by their logits.

    Returns the merged model and the proof: `merge_logit_difference`, the largest difference of any logit before and
    after merging in float32, as a share of the largest logit; `merge_rounding`, the share of the adapter's effect on
    the logits that is lost when the weights are rounded to the type they are kept in (0 for float32).
    Raises ValueError where merging changed the model, or rounding did by more than the adapter.
    """
    from peft import PeftModel

    model, _ = load_with_context(source, context, tokenizer)
    # Merge in float32, whatever the weights are kept in: bfloat16 would lose small updates.
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
    # Still in float32: what is asked is what rounding does to the weights, not to the arithmetic.
    for weight in merged.parameters():
        weight.copy_(weight.to(dtype))
    rounding = (merged(input_ids=probe).logits - before).abs().max().item() / scale
    if not (difference <= MERGE_TOLERANCE and rounding <= max(ROUNDING_TOLERANCE[dtype], effect)):
        raise ValueError(
            f"merging the adapter changed the model: logits differ by {difference:.2e} of the largest, and by "
            f"{rounding:.2e} as {str(dtype).removeprefix('torch.')}, where the adapter itself changed them by "
            f"{effect:.2e}. The adapter is kept in {adapter}; nothing was merged."
        )
    lost = min(1.0, rounding / effect) if effect > MERGE_TOLERANCE and dtype != torch.float32 else 0.0
    return merged.to(dtype), {"merge_logit_difference": difference, "merge_rounding": round(lost, 4)}


def _probe_ids(tokenizer: Any) -> torch.Tensor:
    text = formats.chat([{"role": "user", "content": "def add(a, b):\n    return a + b\n"}], True)
    return torch.tensor([tokenizer.encode(text, add_special_tokens=False)])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
