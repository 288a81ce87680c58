"""Checks of lengths, attention and kernels: settings that would drop context silently or mix packed samples are
errors.
"""

import pytest
import yaml

from alignment.models import kernels
from alignment.models.source import ModelSource
from alignment.recipe import RecipeError, load
from alignment.recipe.length_checks import check_loaded

MODEL = "Qwen/Qwen2.5-Coder-7B"


def mistakes(folder, stages, launch=None, model=MODEL):
    (folder / "rows.jsonl").write_text('{"text": "x"}\n')
    (folder / "tasks.jsonl").write_text('{"prompt": "x", "tests": []}\n')
    value = {"name": "r", "model": {"path": model}, "stages": []}
    if launch:
        (folder / "launch.yaml").write_text(yaml.safe_dump(launch))
        value["launch"] = "launch.yaml"
    for number, stage in enumerate(stages):
        rows = "tasks.jsonl" if stage.get("kind") == "grpo" else "rows.jsonl"
        value["stages"].append({"name": f"s{number}", "kind": "sft", "data": [{"data": rows}], **stage})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(value))
    try:
        load(folder / "recipe.yaml")
    except RecipeError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_a_length_beyond_the_models_positions_is_refused_with_the_yarn_factor_it_needs(tmp_path):
    (mistake,) = mistakes(tmp_path, [{"train": {"max_length": 131072}}])
    assert "max_length" in mistake and "32768 positions" in mistake and "yarn_factor: 4.0" in mistake


def test_yarn_extends_the_positions_of_its_stage_and_of_later_ones(tmp_path):
    stretched = {"train": {"max_length": 131072}, "context": {"yarn_factor": 4.0}}
    assert not mistakes(tmp_path, [stretched, {"train": {"max_length": 100_000}}])
    assert mistakes(tmp_path, [stretched, {"model": "base", "train": {"max_length": 100_000}}])


def test_prompt_and_completion_together_must_fit_the_model_and_vllm(tmp_path):
    stage = {"kind": "grpo", "max_prompt_length": 32000, "train": {"max_completion_length": 1024}}
    assert "more than the model's 32768" in mistakes(tmp_path, [stage])[0]
    stage = {"kind": "grpo", "max_prompt_length": 2048}
    stage["train"] = {"max_completion_length": 1024, "use_vllm": True, "vllm_max_model_length": 2048}
    assert "set it to 3072" in mistakes(tmp_path, [stage])[0]


def test_vllm_with_a_context_that_only_the_trainer_has_is_refused(tmp_path):
    stage = {"kind": "grpo", "context": {"yarn_factor": 2.0}, "train": {"use_vllm": True}}
    assert "would sample from a different model" in mistakes(tmp_path, [stage])[0]
    assert not mistakes(tmp_path, [{**stage, "train": {}}])


def ulysses(attention):
    return {
        "distributed_type": "DEEPSPEED", "num_processes": 8, "deepspeed_config": {"zero_stage": 3},
        "parallelism_config": {"parallelism_config_sp_size": 4, "parallelism_config_sp_attn_implementation": attention},
    }  # fmt: skip


def test_packing_under_sequence_parallelism_needs_flash_attention(tmp_path):
    packed = [{"train": {"packing": True}}]
    assert "would attend to each other" in mistakes(tmp_path, packed, ulysses("sdpa"))[0]
    assert not mistakes(tmp_path, packed, ulysses("flash_attention_2"))
    assert not mistakes(tmp_path, [{"train": {}}], ulysses("sdpa"))


@pytest.mark.parametrize("kind", ["dpo", "grpo"])
def test_dpo_and_grpo_are_refused_under_sequence_parallelism(tmp_path, kind):
    assert "sequence parallelism works for" in mistakes(tmp_path, [{"kind": kind}], ulysses("flash_attention_2"))[0]


def test_the_length_of_a_model_is_checked_when_it_is_loaded():
    from transformers import Qwen2Config

    with pytest.raises(ValueError, match="max_length is 2048 and the model has 1024"):
        check_loaded(Qwen2Config(max_position_embeddings=1024), {"max_length": 2048})
    check_loaded(Qwen2Config(max_position_embeddings=2048), {"max_length": 2048})


def test_the_attention_kernel_is_the_recipes_or_the_installed_one(monkeypatch):
    monkeypatch.setattr(kernels, "installed_attention", lambda: "flash_attention_2")

    def chosen(train, **settings):
        return kernels.choose_attention(ModelSource(path="model", **settings), train).attn_implementation

    assert chosen({}, attn_implementation="eager", dtype="bfloat16") == "eager"
    assert chosen({}, dtype="bfloat16") == "flash_attention_2"
    assert chosen({"bf16": True}, dtype="float32") == "flash_attention_2"
    assert chosen({"bf16": False}, dtype="float32") is None  # flash attention computes in 16 bits alone


@pytest.mark.parametrize(
    ("capability", "packages", "expected"),
    [
        ((9, 0), {"flash_attn", "flash_attn_interface"}, "flash_attention_3"),
        ((8, 0), {"flash_attn", "flash_attn_interface"}, "flash_attention_2"),
        ((7, 5), {"flash_attn"}, None),
        ((9, 0), set(), None),
    ],
)
def test_the_best_kernel_that_the_gpu_supports_is_chosen(monkeypatch, capability, packages, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name in packages else None)
    assert kernels.installed_attention() == expected


def test_fused_kernels_are_refused_if_they_can_not_run(monkeypatch):
    source = ModelSource(path="model", use_kernels=True)
    assert kernels.fused_kernels(ModelSource(path="model")) == {}
    with pytest.raises(ValueError, match="this machine has none"):
        kernels.fused_kernels(source)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("transformers.utils.import_utils.is_kernels_available", lambda: False)
    with pytest.raises(ValueError, match="needs the package `kernels`, from"):
        kernels.fused_kernels(source)
    monkeypatch.setattr("transformers.utils.import_utils.is_kernels_available", lambda: True)
    assert kernels.fused_kernels(source) == {"use_kernels": True}
