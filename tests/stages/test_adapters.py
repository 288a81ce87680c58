"""Every setting of PEFT's LoraConfig: it trains, resumes, merges and exports to the same logits, or is refused at
its key."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.export.adapter import write_adapter
from alignment.export.checkpoint import open_checkpoint
from alignment.export.gguf_file import gguf_name
from alignment.export.serving_files import write_folder
from alignment.models import loading
from alignment.models.source import ModelSource, RandomInit
from alignment.recipe import RecipeError, load
from alignment.recipe.adapter_checks import export_refusals
from alignment.recipe.schema import Tracking
from alignment.recipe.stage_request import StageRequest
from alignment.stages import sft
from alignment.stages.token_trainer import TokenTrainer

INIT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
}
STEPS = 2
# Field -> settings that train, resume, merge and export. `r` is 4 where it is not given.
RIGHT = {
    "r": [{"r": 3}],
    "lora_alpha": [{"lora_alpha": 3}],
    "lora_dropout": [{"lora_dropout": 0.2}],
    "target_modules": [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "down_proj"]},
        {"target_modules": r".*\.0\.self_attn\.[qv]_proj"},
        {"target_modules": ["q_proj", "embed_tokens"], "tied": False},
    ],
    "exclude_modules": [{"exclude_modules": ["q_proj"]}, {"exclude_modules": r".*\.mlp\..*"}],
    "layers_to_transform": [{"layers_to_transform": 1}, {"layers_to_transform": [0], "target_modules": ["q_proj"]}],
    "layers_pattern": [{"layers_pattern": "layers", "layers_to_transform": [0], "target_modules": ["q_proj"]}],
    "use_rslora": [{"use_rslora": True}],
    "rank_pattern": [
        {"rank_pattern": {"q_proj": 2}},
        {"rank_pattern": {r".*\.1\.mlp\.up_proj": 6}, "use_rslora": True},
    ],
    "alpha_pattern": [{"alpha_pattern": {"v_proj": 3}}],
    "bias": [{"bias": "all"}, {"bias": "lora_only"}],
    "lora_bias": [{"lora_bias": True, "target_modules": ["q_proj", "k_proj", "v_proj"]}],
    "use_dora": [{"use_dora": True}, {"use_dora": True, "lora_dropout": 0.1}],
    "modules_to_save": [
        {"modules_to_save": ["norm", "input_layernorm", "q_proj"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"], "tied": False},
    ],
    "ensure_weight_tying": [{"ensure_weight_tying": True, "modules_to_save": ["embed_tokens"]}],
    "init_lora_weights": [
        *({"init_lora_weights": value} for value in (False, "gaussian", "orthogonal", "mica", "pissa", "olora")),
        {"init_lora_weights": "pissa_niter_4"},
        {
            "init_lora_weights": "pissa_niter_4",
            "use_rslora": True,
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {"v_proj": 3},
        },
        {"init_lora_weights": "pissa_niter_4", "bias": "all", "modules_to_save": ["norm"]},
        {"init_lora_weights": "olora", "modules_to_save": ["embed_tokens"], "tied": False},
    ],
}
# Field -> settings that are refused at that key, and words of the message.
REFUSED = {
    "task_type": [({"task_type": "SEQ_CLS"}, "always CAUSAL_LM")],
    "peft_type": [({"peft_type": "LORA"}, "always LORA")],
    "auto_mapping": [({"auto_mapping": {}}, "PEFT writes it")],
    "peft_version": [({"peft_version": "0.1"}, "PEFT writes it")],
    "base_model_name_or_path": [({"base_model_name_or_path": "x"}, "use `model`")],
    "revision": [({"revision": "main"}, "`revision` of the recipe's `model`")],
    "inference_mode": [({"inference_mode": True}, "always trained")],
    "fan_in_fan_out": [({"fan_in_fan_out": True}, "would ignore it")],
    "megatron_config": [({"megatron_config": {}}, "Megatron")],
    "megatron_core": [({"megatron_core": "megatron.core"}, "Megatron")],
    "trainable_token_indices": [
        ({"trainable_token_indices": [5]}, "can't merge single tokens"),
        ({"trainable_token_indices": {"embed_tokens": [5]}}, "can't merge single tokens"),
    ],
    "loftq_config": [({"loftq_config": {"loftq_bits": 4}}, "LoftQ quantizes the base")],
    "eva_config": [({"eva_config": {}}, "its own pass over the data")],
    "corda_config": [({"corda_config": {}}, "its own pass over the data")],
    "lora_ga_config": [({"lora_ga_config": {}}, "its own pass over the data")],
    "kasa_config": [({"kasa_config": {}}, "removes parts of the base weights")],
    "velora_config": [({"velora_config": {}}, "resuming is not tested")],
    "monteclora_config": [({"monteclora_config": {}}, "terms in the loss")],
    "arrow_config": [({"arrow_config": {}}, "several trained adapters")],
    "use_bdlora": [({"use_bdlora": {}}, "block-diagonal")],
    "use_qalora": [({"use_qalora": True}, "GPTQ")],
    "qalora_group_size": [({"qalora_group_size": 8}, "GPTQ")],
    "alora_invocation_tokens": [({"alora_invocation_tokens": [5]}, "can't be merged")],
    "layer_replication": [({"layer_replication": [[0, 2]]}, "more layers than its base")],
    "runtime_config": [({"runtime_config": {"ephemeral_gpu_offload": True}}, "object of Python")],
    # Settings that are right with some values.
    "target_modules": [
        ({"target_modules": ["q_porj"]}, "Did you mean 'q_proj'?"),
        ({"target_modules": []}, "is empty"),
        ({"target_modules": ".*porj"}, "no module of the model matches"),
        ({"target_modules": "(q_proj"}, "not a regular expression"),
        ({"target_modules": ["norm"]}, "not norms"),
        ({"target_modules": ".*layernorm"}, "not norms"),
        ({"target_modules": ["embed_tokens"]}, "share one matrix"),
        ({"target_modules": ["lm_head", "q_proj"]}, "share one matrix"),
        ({"target_modules": ".*(embed_tokens|q_proj)"}, "share one matrix"),
        ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, "share one matrix"),
        ({"target_modules": ["q_proj", "lm_head"], "tied": False}, "name lm_head in `modules_to_save`"),
    ],
    "exclude_modules": [
        ({"exclude_modules": ".*"}, "no module of the model is left"),
        ({"exclude_modules": ["q_porj"]}, "Did you mean 'q_proj'?"),
        ({"exclude_modules": ["self_attn"], "target_modules": ["q_proj"]}, "the model has no module 'self_attn'"),
    ],
    "layers_to_transform": [
        ({"layers_to_transform": [2]}, "has no layer 2"),
        ({"layers_to_transform": 0, "target_modules": ".*q_proj"}, "can't be used with a pattern"),
        ({"layers_to_transform": 0, "target_modules": ["lm_head"]}, "no module of the model is left"),
    ],
    "layers_pattern": [
        ({"layers_pattern": "layers"}, "only with `layers_to_transform`"),
        ({"layers_pattern": "blocks", "layers_to_transform": [0]}, "are called `layers`"),
    ],
    "modules_to_save": [({"modules_to_save": ["lm_heed"]}, "Did you mean 'lm_head'?")],
    "rank_pattern": [
        ({"rank_pattern": {"q_porj": 4}}, "Did you mean 'q_proj'?"),
        ({"rank_pattern": {"q_proj": 0}}, "above 0"),
        ({"rank_pattern": {"q_proj": 3}, "init_lora_weights": "orthogonal"}, "even ranks"),
        ({"rank_pattern": {"k_proj": 40}, "init_lora_weights": "mica"}, "no rank above 32"),
    ],
    "alpha_pattern": [({"alpha_pattern": {"q_proj": "x"}}, "above 0")],
    "r": [
        ({"r": 0}, "at least 1"),
        ({"r": 3, "init_lora_weights": "orthogonal"}, "even ranks"),
        ({"r": 40, "init_lora_weights": "pissa"}, "no rank above 32"),
    ],
    "lora_alpha": [({"lora_alpha": 0}, "at least 1")],
    "lora_dropout": [({"lora_dropout": 1.0}, "below 1")],
    "lora_bias": [({"lora_bias": True}, "have no bias into which")],
    "use_dora": [({"use_dora": "yes"}, "must be true or false")],
    "target_parameters": [({"target_parameters": ["mlp.up_proj.weight"]}, "use `target_modules`")],
    "init_lora_weights": [
        ({"init_lora_weights": "eva"}, "its own pass over the data"),
        ({"init_lora_weights": "corda"}, "its own pass over the data"),
        ({"init_lora_weights": "loftq"}, "LoftQ quantizes the base"),
        ({"init_lora_weights": "lora_ga"}, "LoraConfig.init_lora_weights must be"),
        ({"init_lora_weights": "pisa"}, "LoraConfig.init_lora_weights must be"),
        ({"init_lora_weights": "pissa", "use_dora": True}, "whose norms DoRA trains"),
        ({"init_lora_weights": "pissa", "stage": {"quantization": "4bit"}}, "rounded to 4 bits"),
        ({"init_lora_weights": "olora", "stage": {"kind": "dpo", "name": "dpo"}}, "the reference model"),
        (
            {
                "init_lora_weights": "olora",
                "stage": {"kind": "grpo", "rewards": [{"name": "parses"}], "train": {"beta": 0.1}},
            },
            "or `beta: 0`",
        ),
    ],
    "bias": [
        ({"bias": "all", "stage": {"kind": "dpo"}}, "the reference model would change"),
        ({"bias": "lora_only", "stage": {"kind": "kto"}}, "the reference model would change"),
    ],
}


def cases(table):
    return [(field, case) for field, cases in table.items() for case in cases]


def test_every_field_of_lora_config_has_a_case():
    assert set(RIGHT) | set(REFUSED) == {field.name for field in dataclasses.fields(LoraConfig)}


def problems(folder, tokenizer, settings):
    """The problems in `peft:` of a recipe whose only stage has these settings: (key, message)."""
    settings = dict(settings)
    tied, stage = settings.pop("tied", True), settings.pop("stage", {})
    recipe = {
        "name": "adapters",
        "model": {"init": {**INIT, "tie_word_embeddings": tied}, "tokenizer": str(tokenizer), "dtype": "float32"},
        "stages": [{"kind": "sft", "data": [{"data": "rows.jsonl"}], **stage, "name": "one", "peft": settings}],
    }
    (folder / "rows.jsonl").write_text("{}\n")
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    try:
        load(folder / "recipe.yaml")
    except RecipeError as error:
        return [(problem.key, problem.message) for problem in error.problems if ".peft" in problem.key]
    return []


@pytest.mark.parametrize(("field", "case"), cases(REFUSED))
def test_a_setting_that_no_stage_can_train_or_merge_is_refused_at_its_key(field, case, tmp_path, tiny_tokenizer_dir):
    settings, words = case
    refused = problems(tmp_path, tiny_tokenizer_dir, settings)
    assert any(key == f"stages.one.peft.{field}" and words in message for key, message in refused), refused


@pytest.mark.parametrize(("field", "settings"), cases(RIGHT))
def test_a_setting_that_works_is_accepted(field, settings, tmp_path, tiny_tokenizer_dir):
    assert problems(tmp_path, tiny_tokenizer_dir, settings) == []


def test_with_beta_0_no_reference_is_needed(tmp_path, tiny_tokenizer_dir):
    grpo = {"kind": "grpo", "rewards": [{"name": "parses"}]}
    assert problems(tmp_path, tiny_tokenizer_dir, {"init_lora_weights": "olora", "bias": "all", "stage": grpo}) == []


@pytest.fixture(scope="module")
def bases(tmp_path_factory, tiny_tokenizer_dir):
    """Folders of base models, keyed by whether their embeddings are tied, and the rows to train on."""
    folder = tmp_path_factory.mktemp("bases")
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    for tied in (True, False):
        init = RandomInit(**INIT, tie_word_embeddings=tied)
        source = ModelSource(init=init, tokenizer=str(tiny_tokenizer_dir), dtype="float32")
        loading.write_random(source, tokenizer, 0, folder / f"tied-{tied}")
    rows = [
        {"messages": [{"role": "user", "content": f"Add {n}."}, {"role": "assistant", "content": f"x + {n}"}]}
        for n in range(20)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def trained_logits(monkeypatch):
    """A list to which every training adds the logits of the trained model, before anything is merged."""
    logits = []
    save_model = TokenTrainer.save_model

    def save(self, output_dir=None, _internal_call=False):
        save_model(self, output_dir, _internal_call)
        if output_dir is not None and Path(output_dir).name == "adapter":
            logits.append(logits_of(self.model.eval()))

    monkeypatch.setattr(TokenTrainer, "save_model", save)
    return logits


@torch.no_grad()
def logits_of(model):
    if isinstance(model, Path):
        model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return model(input_ids=torch.arange(5, 25)[None]).logits


def train(bases, out, settings, tied):
    stage = {
        "name": "sft",
        "kind": "sft",
        "data": [{"data": str(bases / "rows.jsonl")}],
        "peft": settings,
        "train": {
            "max_length": 192, "max_steps": STEPS, "save_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 0.02,
            "gradient_checkpointing": False, "lr_scheduler_type": "constant",
        },
    }  # fmt: skip
    return sft.run(
        StageRequest.for_stage(
            stage,
            out,
            ModelSource(path=str(bases / f"tied-{tied}"), dtype="float32"),
            seed=1,
            tracking=Tracking(wandb="disabled"),
        )
    )


def weights_with_gguf_adapter(base, file):
    """The weights of a checkpoint, keyed by their names in GGUF, plus the adapter of a GGUF file, as llama.cpp
    applies it."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    alpha = reader.fields["adapter.lora.alpha"].contents()
    matrices = {tensor.name: np.asarray(tensor.data, dtype=np.float64) for tensor in reader.tensors}
    weights = {
        gguf_name(name): tensor.double().numpy() for name, tensor in load_file(base / "model.safetensors").items()
    }
    for name, second in matrices.items():
        if name.endswith(".lora_b"):
            first = matrices[f"{name[:-1]}a"]
            weights[name.removesuffix(".lora_b")] += alpha / first.shape[0] * second @ first
    return weights


WRITTEN_ALL_THE_SAME = ("rank_pattern", "alpha_pattern", "init_lora_weights")
"""Settings with which `align check` refuses the format `adapter`, although the file of llama.cpp is right."""


@pytest.mark.slow
@pytest.mark.parametrize(("field", "settings"), cases(RIGHT))
def test_a_setting_trains_resumes_merges_and_exports_to_the_same_logits(
    field, settings, bases, trained_logits, tmp_path
):
    settings = {"r": 4, **settings}
    tied = settings.pop("tied", True)
    base, out, resumed = bases / f"tied-{tied}", tmp_path / "out", tmp_path / "resumed"
    train(bases, out, settings, tied)
    (trained,) = trained_logits
    assert (trained - logits_of(base)).abs().max() > 1e-3, "training must change the logits"
    merged = logits_of(out / "model")
    torch.testing.assert_close(merged, trained, rtol=1e-4, atol=1e-4)

    write_folder(open_checkpoint(out / "model"), tmp_path / "exported", "tiny", "")
    torch.testing.assert_close(logits_of(tmp_path / "exported"), merged, rtol=0, atol=0)
    refused = list(export_refusals({key: value for key, value in settings.items() if key not in WRITTEN_ALL_THE_SAME}))
    if refused:
        with pytest.raises(ValueError, match=r"not support|not a LoRA matrix"):
            write_adapter(out / "adapter", open_checkpoint(base), tmp_path / "adapter.gguf")
    else:
        write_adapter(out / "adapter", open_checkpoint(base), tmp_path / "adapter.gguf")
        weights = weights_with_gguf_adapter(base, tmp_path / "adapter.gguf")
        for name, tensor in load_file(out / "model" / "model.safetensors").items():
            np.testing.assert_allclose(weights[gguf_name(name)], tensor.numpy(), rtol=0, atol=1e-5)

    (resumed / "checkpoints").mkdir(parents=True)
    for path in (out / "checkpoints").iterdir():  # what an interrupted run leaves after its first step
        if path.name == "checkpoint-1":
            shutil.copytree(path, resumed / "checkpoints" / path.name)
        elif path.is_file():
            shutil.copy(path, resumed / "checkpoints")
    train(bases, resumed, settings, tied)
    torch.testing.assert_close(trained_logits[-1], trained, rtol=0, atol=0)


@pytest.mark.slow
def test_a_run_that_resumes_on_another_machine_keeps_the_first_start_of_pissa(bases, trained_logits, tmp_path):
    """Another machine may decompose the base weights differently. Here the first start was half as large, in another
    order."""
    settings = {"r": 4, "init_lora_weights": "pissa"}
    train(bases, tmp_path / "out", settings, True)
    start = tmp_path / "other" / "checkpoints" / "adapter_start.safetensors"
    start.parent.mkdir(parents=True)
    mirrored = {}
    for name, tensor in load_file(tmp_path / "out" / "checkpoints" / start.name).items():
        mirrored[name] = tensor.flip(0 if ".lora_A." in name else 1) * 0.5
    save_file(mirrored, start)
    train(bases, tmp_path / "other", settings, True)
    torch.testing.assert_close(logits_of(tmp_path / "other" / "model"), trained_logits[-1], rtol=1e-4, atol=1e-4)
    config = json.loads((tmp_path / "other" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (8, True)


def test_an_adapter_whose_start_changed_its_base_is_not_exported(tmp_path):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"})
    )
    with pytest.raises(ValueError, match="pissa_niter_4, which changes the base weights"):
        write_adapter(tmp_path, None, tmp_path / "out.gguf")
