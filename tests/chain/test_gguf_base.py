"""A GGUF file as the base of a chain, in the number format that this CPU computes fastest."""

import json

import pytest
import tiny
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from alignment.export.checkpoint import open_checkpoint
from alignment.export.gguf_file import write_gguf
from alignment.export.levels import get_level
from alignment.models.precision import resolve_dtype

pytestmark = pytest.mark.slow


def write_base(folder):
    """`base.gguf` in q8_0 beside the recipe."""
    pytest.importorskip("gguf", reason="GGUF files need: pip install 'code-alignment[gguf]'")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    shape = {key: value for key, value in tiny.INIT.items() if key != "initializer_range"}
    config = Qwen2Config(
        **shape, vocab_size=len(tokenizer), tie_word_embeddings=True, eos_token_id=end, bos_token_id=end
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    write_gguf(open_checkpoint(folder / "base"), get_level("q8_0"), folder / "base.gguf")


def stored_types(folder):
    with safe_open(folder / "model" / "model.safetensors", framework="pt") as weights:
        return {weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118 - not a mapping


def test_a_chain_starts_from_a_gguf_file_and_trains_in_the_fastest_format(make_workshop):
    folder = make_workshop()
    write_base(folder)
    chosen = tiny.stages()
    stages = {
        "pretrain": chosen["pretrain"] | {"peft": {"r": 4}},
        "sft": chosen["sft"] | {"evaluate": False},
    }
    evaluate = [{"name": "instruct", "benchmark": "tasks", "data": "tasks.jsonl", "max_new_tokens": 8, "limit": 4}]
    evaluate[0]["allow_overlap"] = "the rewarded tasks themselves are measured, which is quick"
    recipe = tiny.write_recipe(folder, stages, model={"path": "base.gguf", "dtype": "auto"}, evaluate=evaluate)
    done = tiny.launch(recipe)
    assert done.returncode == 0, tiny.output(done)
    assert "dequantized from base.gguf: q8_0" in tiny.output(done)
    fastest = resolve_dtype("auto", "cpu").dtype
    runs = folder / "runs" / "tiny"
    assert stored_types(runs / "pretrain") == {getattr(torch, fastest)}
    assert stored_types(runs / "sft") == {torch.float32}
    artifact = json.loads((runs / "pretrain" / "artifact.json").read_text())
    assert artifact["model"] == "base"
    assert f"weights in {fastest}" in tiny.output(done)
    again = tiny.launch(recipe)
    assert "importing" not in tiny.output(again) and again.returncode == 0
