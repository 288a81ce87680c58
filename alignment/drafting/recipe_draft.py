"""Write a commented recipe, and the Accelerate config file that it names, from surveys of repositories or from rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alignment.drafting.hardware import (
    CPU_LORA,
    GENERATIONS,
    LORA,
    VLLM,
    Hardware,
    TrainingFit,
    choose_training,
    completion_length,
)
from alignment.drafting.recipe_data import (
    DraftRequest,
    RecipeData,
    anchor_of,
    data_of_repositories,
    data_of_rows,
    is_instruct,
)
from alignment.installation import shipped
from alignment.planning import resources
from alignment.recipe.stage_parts import BaseModelSettings
from alignment.settings import Reference

LEARNING_RATES = {"pretrain": "1.0e-4", "sft": "1.0e-4", "dpo": "5.0e-6", "grpo": "1.0e-5"}
"""Learning rates for LoRA, from `recipes/qwen2.5-coder/lora.yaml`, which names their sources."""
CPU_STEPS = {"pretrain": 96, "sft": 40, "dpo": 20, "grpo": 5}
"""Number of optimizer steps on a CPU, keyed by kind of stage. For pretrain as in `recipes/qwen2.5-coder/0.5b-cpu.yaml`: what
these steps gain is in docs/results.md. The others take minutes to hours, and show that training works."""
CPU_MIDDLES = "{line: 0.15, lines: 0.25, block: 0.2, body: 0.3, cursor: 0.05, edge: 0.05}"


@dataclass
class RecipeDraft:
    """The texts of recipe and Accelerate config file, and the reasons why stages were left out."""

    recipe: str
    accelerate: str
    left_out: list[str] = field(default_factory=list)
    """One sentence for each stage that was left out, with the reason."""


SMALL = 1e9
"""Number of parameters below which 4-bit exports differ too much from the original, see docs/results.md."""


def draft(request: DraftRequest) -> RecipeDraft:
    """Return a recipe for the request.

    Raises:
        ValueError: the model does not fit on the hardware, or the rows are of a kind that no stage reads.
    """
    data = data_of_rows(request.rows) if request.rows else data_of_repositories(request)
    shape = resources.shape_of(BaseModelSettings(path=Reference(request.model)))
    fit = choose_training(shape, request.hardware, list(data.training))
    writer = _Writer(request, data, fit, small=shape is not None and shape.parameters < SMALL)
    return RecipeDraft("\n".join(writer.lines()) + "\n", _accelerate_config(fit, request.hardware), data.left_out)


def _scalar(text: str) -> str:
    """Return the text as a YAML scalar, in quotes if YAML would read the plain text as something other than this
    string.
    """
    plain = re.fullmatch(r"[A-Za-z/~.][\w/.~@+-]*(?::[\w/.~@+-]+)*", text) and text.lower() not in (
        "true",
        "false",
        "null",
        "yes",
        "no",
    )
    return text if plain else json.dumps(text, ensure_ascii=False)


def _accelerate_config(fit: TrainingFit, hardware: Hardware) -> str:
    text = (shipped() / "accelerate_configs" / f"{fit.launch}.yaml").read_text(encoding="utf-8")
    return re.sub(r"(?m)^num_processes: .*$", f"num_processes: {hardware.devices}", text)


class _Writer:
    """Writes the lines of a recipe."""

    def __init__(self, request: DraftRequest, data: RecipeData, fit: TrainingFit, small: bool) -> None:
        self.request, self.data, self.fit, self.small = request, data, fit, small
        self.cpu = request.hardware.card_gb is None
        self.instruct = is_instruct(request.model)

    def lines(self) -> Iterator[str]:
        """Yield all lines."""
        yield from self._header()
        yield from self._model()
        yield "stages:"
        yield from self.data.builds
        for kind, rows in self.data.training.items():
            yield from self._training(kind, rows)
        yield from self._export()
        if self.cpu and "sft" in self.data.training and not self.instruct:
            yield "contract: {must_stop: false}  # so few steps do not teach a base model to end every answer; remove this for real training"
        if self.data.evaluate:
            yield "evaluate:  # the base model and every trained model, on the same tasks"
            yield from self.data.evaluate
        if self.data.left_out:
            yield "# Left out:"
            yield from (f"# * {sentence}" for sentence in self.data.left_out)

    def _header(self) -> Iterator[str]:
        recipe, launch = self.request.out.name, self.request.launch_file.name
        yield f"# Written by `align init` for {self.request.hardware.text}. Check, plan and run it:"
        yield "#"
        yield f"#   align check {recipe}"
        yield f"#   align plan {recipe}"
        yield f"#   align run {recipe}"
        yield f"#   accelerate launch --config_file {launch} recipes/run.py {recipe}      # the same, from a checkout"
        yield "#"
        yield "# Every setting can be changed here, or for one run with --set, for example --set stages.pretrain.train.learning_rate=5e-5."
        yield f"name: {recipe_name(self.request.out)}"
        yield "seed: 42"
        yield f"launch: {launch}  # devices and sharding"
        if not self.request.surveys:
            return
        yield "sources:  # `held_out` keeps the newest commits for the benchmark; the license `owned` stands for your own code"
        for number, (location, item) in enumerate(zip(self.request.sources, self.request.surveys, strict=True)):
            languages = ", ".join(f"{name} {share:.0%}" for name, share in item.languages.items()) or "no code"
            settings = {"path": _scalar(location), "license": _scalar(self.request.license)}
            if item.held_out is not None:
                settings["held_out"] = f"{item.held_out:g}"
            if self.request.interpreter and any(suite.language == "python" for suite in item.suites):
                settings["interpreter"] = _scalar(self.request.interpreter)
            mapping = ", ".join(f"{key}: {value}" for key, value in settings.items())
            anchor = f"&{anchor_of(number)} " if len(self.request.surveys) > 1 else ""
            yield f"  - {anchor}{{{mapping}}}  # {languages}; {item.characters:,} characters of code"
            for suite in item.runnable:
                if suite.note:
                    yield f"    # tests: {suite.note}"

    def _model(self) -> Iterator[str]:
        yield "model:"
        yield f"  path: {_scalar(self.request.model)}"
        yield "  dtype: auto  # bfloat16 where the hardware multiplies it"
        if self.instruct and not self.cpu:
            yield "  # An Instruct model: it answers questions from the start, and continued pretraining may cost some of that. Lower"
            yield "  # `stages.pretrain.train.learning_rate` if answers get worse."

    def _training(self, kind: str, rows: Sequence[str]) -> Iterator[str]:
        fit = self.fit.stages[kind]
        if kind == "dpo" and rows == ["preferences/preferences.jsonl"]:
            yield "  # Answers of the model to the tasks: one that passes its tests is preferred to one that fails."
            yield "  - {name: preferences, kind: build, builder: preferences, settings: {tasks: tasks/tasks.jsonl, n: 8, max_new_tokens: 768, references: true}}"
        yield f"  - name: {kind}"
        yield f"    kind: {kind}"
        yield "    data: [" + ", ".join(f"{{data: {_scalar(item)}}}" for item in rows) + "]"
        if kind == "pretrain":
            if self.cpu:
                yield "    # Most tokens teach to fill in the middle, as editors ask for it: a line, some lines, a block, a whole body."
                yield f"    fim: {{rate: 0.7, middles: {CPU_MIDDLES}}}"
            else:
                yield "    fim: {rate: 0.5}  # half of the tokens teach to fill in the middle, as editors ask for it"
        if kind == "grpo":
            yield "    rewards: [{name: tests_passed}, {name: hidden_fraction, weight: 0.2}]"
            yield f"    max_prompt_length: {fit.length - completion_length(fit)}"
        first, lora = kind == next(iter(self.data.training)), CPU_LORA if self.cpu else LORA
        yield "    peft: " + (
            "&lora {" + ", ".join(f"{key}: {value}" for key, value in lora.items()) + "}" if first else "*lora"
        )
        if self.fit.quantized:
            yield "    quantization: 4bit  # needs the extra [qlora]"
        yield "    train:"
        yield from (f"      {line}" for line in self._train(kind))

    def _train(self, kind: str) -> Iterator[str]:
        fit = self.fit.stages[kind]
        if kind == "grpo":
            yield f"num_generations: {GENERATIONS}"
            yield f"max_completion_length: {completion_length(fit)}"
            if not self.fit.quantized and not self.cpu:
                yield from (f"{key}: {str(value).lower()}" for key, value in VLLM.items())
                yield f"vllm_max_model_length: {fit.length}  # max_prompt_length + max_completion_length"
            yield "beta: 0.0  # no reference model"
            yield "mask_truncated_completions: true"
        else:
            yield f"max_length: {fit.length}"
        if kind == "sft":
            yield "packing: true"
        if kind == "dpo":
            yield "beta: 0.1"
        yield f"per_device_train_batch_size: {fit.rows}"
        yield f"gradient_accumulation_steps: {fit.accumulate}"
        if self.cpu:
            yield f"max_steps: {CPU_STEPS[kind]}  # about an hour for 96 steps of a 0.5B model; more steps teach more"
        elif kind == "grpo":
            yield "max_steps: 100"
        else:
            yield f"num_train_epochs: {1 if kind == 'dpo' else 2}"
        rate = LEARNING_RATES[kind]
        if kind == "pretrain":
            rate = "2.0e-4" if self.cpu else "5.0e-5" if self.instruct else rate
        yield f"learning_rate: {rate}"
        yield "lr_scheduler_type: " + ("constant" if kind == "grpo" else "cosine")
        warmup = f"{0.08 if self.cpu else 0.05}  # share of the steps"
        yield f"warmup_steps: {5 if kind == 'grpo' else warmup}"
        if not self.cpu:
            yield "bf16: true"
        yield f"gradient_checkpointing: {str(fit.checkpointing).lower()}"
        yield f"logging_steps: {1 if kind == 'grpo' or self.cpu else 5}"
        yield f"save_steps: {10 if self.cpu else 100}"
        yield "save_total_limit: 1  # checkpoints to keep, for resuming"

    def _export(self) -> Iterator[str]:
        data = f", data: {_scalar(self.data.export_data)}" if self.data.export_data else ""
        yield "  # For Ollama, llama.cpp and editors. Each file is compared with the original, and refused if it differs too much."
        if self.small:
            yield "  # Not in 4 bits: q4_K_M raised the perplexity of the 0.5B model by 18%."
        formats = "q8_0" if self.small else "q8_0, q4_K_M"
        yield f"  - {{name: export, kind: export, formats: [{formats}]{data}}}"


def recipe_name(out: Path) -> str:
    """Return a valid name of a recipe from the name of its file."""
    name = re.sub(r"[^a-z0-9._-]+", "-", out.stem.lower()).strip("-._")
    return name[:64] or "recipe"
