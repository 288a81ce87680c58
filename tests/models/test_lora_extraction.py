"""The difference between two models as a LoRA adapter."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from alignment.cli import main
from alignment.models import loading
from alignment.models.lora_extraction import extract_adapter
from alignment.models.source import RandomInit

INIT = RandomInit(
    hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
PROBE = torch.tensor([[5, 17, 200, 33, 8, 120]])


@pytest.fixture
def base(tmp_path, tiny_tokenizer):
    loading.save(loading.random_model(INIT, tiny_tokenizer, 0), tiny_tokenizer, tmp_path / "base")
    return tmp_path / "base"


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def after_stages(base, out, ranks):
    """Write the base with one merged random adapter for each rank, as after a chain of LoRA stages."""
    model = load(base)
    torch.manual_seed(1)
    for rank in ranks:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        model = model.merge_and_unload()
    model.save_pretrained(out)
    return out


@torch.no_grad()
def gap(trained, base, adapter):
    """Largest difference of a logit between the trained model and the base with the adapter, as a share of the
    largest.
    """
    expected = load(trained)(PROBE).logits
    adapted = PeftModel.from_pretrained(load(base), str(adapter)).eval()(PROBE).logits
    return ((expected - adapted).abs().max() / expected.abs().max()).item()


def test_the_sum_of_the_stages_ranks_reproduces_the_chain(base, tmp_path):
    trained = after_stages(base, tmp_path / "trained", [4, 8])
    result = extract_adapter(trained, base, tmp_path / "adapter", 12)
    assert result.captured == pytest.approx(1.0, abs=1e-6) and result.layers == 14
    assert gap(trained, base, tmp_path / "adapter") < 1e-4


def test_a_smaller_rank_keeps_less_and_says_so(base, tmp_path):
    trained = after_stages(base, tmp_path / "trained", [16])
    shares = [extract_adapter(trained, base, tmp_path / f"rank-{rank}", rank).captured for rank in (2, 4, 8)]
    gaps = [gap(trained, base, tmp_path / f"rank-{rank}") for rank in (2, 4, 8)]
    assert shares == sorted(shares) and shares[-1] < 1.0
    assert gaps == sorted(gaps, reverse=True)


def test_the_full_rank_reproduces_a_model_whose_linear_layers_were_all_trained(base, tmp_path):
    model = load(base)
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.weight"):
            parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "trained")
    result = extract_adapter(tmp_path / "trained", base, tmp_path / "adapter", 64)
    assert result.captured == pytest.approx(1.0, abs=1e-5)
    assert gap(tmp_path / "trained", base, tmp_path / "adapter") < 1e-4


def test_a_trained_norm_or_embedding_is_refused(base, tmp_path):
    model = load(base)
    model.model.norm.weight.data += 0.1
    model.save_pretrained(tmp_path / "trained")
    with pytest.raises(ValueError, match=r"model\.norm\.weight differs .* linear layers only"):
        extract_adapter(tmp_path / "trained", base, tmp_path / "adapter", 4)
    assert not (tmp_path / "adapter").exists()


def test_equal_models_and_models_of_other_shapes_are_refused(base, tmp_path, tiny_tokenizer):
    with pytest.raises(ValueError, match="are equal"):
        extract_adapter(base, base, tmp_path / "adapter", 4)
    other = INIT.model_copy(update={"intermediate_size": 128})
    loading.save(loading.random_model(other, tiny_tokenizer, 0), tiny_tokenizer, tmp_path / "other")
    with pytest.raises(ValueError, match="has the shape"):
        extract_adapter(tmp_path / "other", base, tmp_path / "adapter", 4)


def test_the_command_prints_what_was_kept_and_keeps_existing_folders(base, tmp_path, capsys):
    trained = after_stages(base, tmp_path / "trained", [4])
    command = ["extract", str(trained), "--base", str(base), "--rank", "4", "--out", str(tmp_path / "adapter")]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"] == 4
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
