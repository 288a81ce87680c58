"""LoRA adapters as GGUF adapters, run in llama.cpp over their base model."""

import json

import pytest
from export_models import GATE

from alignment.export import ExportOptions, export
from alignment.export.adapter import write_adapter
from alignment.export.checkpoint import open_checkpoint
from alignment.export.export_settings import Comparison


@pytest.fixture(scope="module")
def adapter(trained, tmp_path_factory):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, use_rslora=True, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_an_adapter_runs_in_llama_cpp_as_in_peft(trained, adapter, held_out, tmp_path):
    options = ExportOptions(held_out=held_out, comparison=Comparison(**GATE), name="tiny", adapter=adapter)
    rows = export(trained, ["f32", "adapter"], tmp_path, options)
    assert [row["reasons"] for row in rows] == [[], []]
    assert rows[1]["top1_agreement"] >= 99
    # The adapter changes perplexity by more than the gate allows: a runtime that ignored it would fail.
    assert rows[1]["original_perplexity"] > 1.02 * rows[0]["original_perplexity"]
    assert (tmp_path / "tiny-lora" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_an_adapter_of_another_model_is_refused(untied, adapter, tmp_path):
    checkpoint = open_checkpoint(untied)
    checkpoint.config["intermediate_size"] = 1024
    with pytest.raises(ValueError, match="the adapter belongs to another base model"):
        write_adapter(adapter, checkpoint, tmp_path / "out.gguf")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_gguf_cannot_hold_is_refused(trained, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "use_dora": True}))
    with pytest.raises(ValueError, match="use_dora, which GGUF adapters do not support: merge the adapter"):
        write_adapter(tmp_path, open_checkpoint(trained), tmp_path / "out.gguf")
