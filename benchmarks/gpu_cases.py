"""Define the cases of `gpu-check`: model sizes, settings, the predicted batch size, and the FLOPs per token."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.stage_requests import stage_request

if TYPE_CHECKING:
    from alignment.planning.memory import Memory
    from alignment.recipe.stage_request import StageRequest

# Functions import the toolkit when they are called, because `gpu-check --wheels` must install packages first.

LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
SMOKE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A kind of stage with a model size and a row length, trained by this toolkit or by plain TRL."""

    size: str
    kind: str
    length: int
    lora: bool = False
    plain: bool = False
    batch: int = 1

    @property
    def name(self) -> str:
        parts = [
            self.size,
            self.kind,
            "lora" if self.lora else "full",
            str(self.length),
            "TRL" if self.plain else "ours",
        ]
        return " ".join(parts)


def cases(smoke: bool) -> list[Case]:
    """Return the cases to measure. Each SFT case occurs twice, with this toolkit and with plain TRL."""
    if smoke:
        ours = [
            Case("smoke", "sft", 256),
            Case("smoke", "sft", 256, lora=True),
            Case("smoke", "dpo", 256),
            Case("smoke", "grpo", 32),
        ]
    else:
        ours = [
            Case(size, "sft", length, lora)
            for size in ("0.5b", "1.5b", "7b")
            for length in (4096, 32768)
            for lora in (False, True)
        ]
        ours += [Case(size, "dpo", 2048, lora) for size, lora in (("0.5b", False), ("1.5b", False), ("7b", True))]
        ours += [Case(size, "grpo", 512, lora) for size, lora in (("0.5b", False), ("1.5b", False), ("7b", True))]
    return [
        variant for case in ours for variant in ([case, replace(case, plain=True)] if case.kind == "sft" else [case])
    ]


def init_of(size: str) -> dict[str, Any]:
    """Return the settings `model: {init: ...}` for the shape of a Qwen2.5-Coder model, or for the smoke test."""
    from alignment.models.shapes import MAX_POSITION_EMBEDDINGS, ROPE_THETA, SHAPES

    shape = SMOKE | {"tie_word_embeddings": True} if size == "smoke" else asdict(SHAPES[size])
    return {**shape, "max_position_embeddings": MAX_POSITION_EMBEDDINGS, "rope_theta": ROPE_THETA}


def settings(case: Case, steps: int) -> dict[str, Any]:
    """Return the settings `train:` of a case's stage."""
    cuda = case.size != "smoke"
    train: dict[str, Any] = {
        "max_steps": steps, "save_strategy": "no", "logging_steps": 1, "learning_rate": 1e-5, "bf16": cuda,
        "per_device_train_batch_size": case.batch, "gradient_checkpointing": cuda and case.length > 4096,
    }  # fmt: skip
    if case.kind == "grpo":
        group = 4 if case.size == "smoke" else 16
        train |= {"num_generations": group, "max_completion_length": case.length, "per_device_train_batch_size": group}
        train |= {"gradient_checkpointing": cuda}
    else:
        train["max_length"] = case.length
    if case.kind == "dpo":
        train |= {"precompute_ref_log_probs": not case.lora, "gradient_checkpointing": cuda}
    return train


def dtype_of(case: Case) -> str:
    """Return the type of the weights: float32 if they are trained (with bf16 products), bfloat16 under LoRA."""
    return "bfloat16" if case.lora and case.size != "smoke" else "float32"


def planned(case: Case, card: float) -> tuple[Case, Memory]:
    """Choose the largest batch that is predicted to fit into memory, at most 65,536 tokens.

    Args:
        case: the case. The batch of a GRPO case is not changed.
        card: memory of the GPU in bytes.

    Returns:
        The case with the chosen batch (0 if not even one row fits), and the predicted memory.
    """
    from alignment.planning import memory
    from alignment.planning.resources import micro_batch_of, shape_of
    from alignment.recipe import BaseModelSettings, Reference, TrainingStage
    from alignment.recipe.launch_file import Layout

    with tempfile.TemporaryDirectory() as folder:
        request = request_of(case, Path(folder), Path(folder), 2)
    stage, source = request.stage, request.model
    assert isinstance(stage, TrainingStage) and source is not None
    model = BaseModelSettings(init=source.init, tokenizer=Reference("x"), dtype=source.dtype)
    shape, layout = shape_of(model), Layout(device="cpu" if case.size == "smoke" else "cuda")
    assert shape is not None
    micro = replace(micro_batch_of(stage, model, layout), masked=case.kind in ("dpo", "grpo"))
    if case.kind == "grpo":
        return case, memory.predict(shape, replace(micro, length=case.length + 100), layout)
    limit = 4 if case.size == "smoke" else max(1, 65536 // case.length)
    batch = min(limit, memory.largest_batch(shape, micro, layout, card * 0.92))
    return replace(case, batch=batch), memory.predict(shape, replace(micro, rows=max(batch, 1)), layout)


def request_of(case: Case, tokenizer: Path, folder: Path, steps: int) -> StageRequest:
    """Write the rows of a case's stage to `folder`, and return the request to run the stage."""
    rows = max(64, case.batch * (steps + 1))
    return stage_request(
        case.kind, init_of(case.size), settings(case, steps), LORA if case.lora else None, tokenizer, folder,
        length=case.length, dtype=dtype_of(case), rows=rows,
    )  # fmt: skip


def flops_per_token(case: Case) -> float:
    """Return the model FLOPs of training on one token, without recomputation.

    They are 6 per trained weight, 4 per frozen weight (which has no weight gradient), and 6 * layers * width * length
    for causal attention. The last term is half of that in PaLM's appendix B (arXiv 2204.02311), which ignores the
    causal mask.
    """
    from alignment.models.shapes import Shape

    init = init_of(case.size)
    shape = Shape(**{key: init[key] for key in Shape.__dataclass_fields__ if key != "rms_norm_eps"}, rms_norm_eps=1e-6)
    embedding = shape.vocab_size * shape.hidden_size
    weights = shape.parameters - (0 if shape.tie_word_embeddings else embedding)  # a look-up costs no FLOPs
    return (4 if case.lora else 6) * weights + 6 * shape.num_hidden_layers * shape.hidden_size * case.length
