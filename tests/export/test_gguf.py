"""GGUF files: every level passes its gate and has the metadata that runtimes need."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from export_models import make_model

from alignment.export import ExportOptions, export
from alignment.export.checkpoint import open_checkpoint, to_float32
from alignment.export.export_settings import Comparison
from alignment.export.gate import missed_limits, thresholds_of
from alignment.export.gguf_file import gguf_name, to_bfloat16, write_gguf
from alignment.export.levels import LEVELS, get_level
from alignment.export.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED
from alignment.models import formats


def read(file):
    from gguf import GGUFReader

    return GGUFReader(file)


def value(reader, key):
    return reader.fields[key].contents()


def test_every_level_passes_its_gate(exported):
    assert [(row["target"], row["reasons"]) for row in exported] == [(level, []) for level in LEVELS]


def test_a_lower_level_is_a_smaller_file_and_further_from_the_original(exported):
    rows = {row["level"]: row for row in exported}
    order = ["f32", "f16", "q8_0", "q6_K", "q4_K_M", "q3_K_M", "q2_K"]
    sizes = [rows[level]["size_bytes"] for level in order]
    divergence = [rows[level]["kl_divergence"] for level in order]
    assert sizes == sorted(sizes, reverse=True)
    assert divergence == sorted(divergence)


def test_f32_holds_every_weight_of_the_checkpoint_bit_for_bit(exported, trained):
    tensors = {tensor.name: tensor.data for tensor in read(exported[0]["file"]).tensors}
    source = open_checkpoint(trained).tensors
    assert set(tensors) == {gguf_name(name) for name in source}
    for name, tensor in source.items():
        stored = to_float32(np.asarray(tensor.raw()), tensor.dtype).reshape(tensor.shape)
        assert np.array_equal(tensors[gguf_name(name)], stored), name


def test_norms_and_biases_stay_in_float32_at_every_level(exported):
    for row in exported:
        for tensor in read(row["file"]).tensors:
            if "norm" in tensor.name or tensor.name.endswith("bias"):
                assert tensor.tensor_type.name == "F32", (row["level"], tensor.name)


def test_bfloat16_is_rounded_to_nearest_even():
    import torch

    values = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    values = np.concatenate([values, np.array([1.00390625, 1.01171875, 3e38, 1e-40, -0.0], dtype=np.float32)])
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(to_bfloat16(values), expected)


def test_metadata_names_architecture_licence_base_model_and_provenance(exported):
    reader = read(exported[0]["file"])
    assert value(reader, "general.architecture") == "qwen2"
    assert value(reader, "general.license") == "apache-2.0"
    assert value(reader, "general.base_model.0.name") == "Qwen2.5-Coder-0.5B"
    assert value(reader, "general.base_model.0.organization") == "Qwen"
    assert value(reader, "alignment.recipe") == "tests"
    assert value(reader, "qwen2.rope.freq_base") == 1000000.0
    assert value(reader, "qwen2.attention.head_count_kv") == 2


def test_vocabulary_has_types_padding_and_fim_ids(exported, trained):
    reader = read(exported[0]["file"])
    tokens, types = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    kinds = dict(zip(tokens, types, strict=True))
    assert len(tokens) == open_checkpoint(trained).vocabulary_rows
    assert kinds["<|fim_prefix|>"] == kinds["<|endoftext|>"] == CONTROL
    assert kinds["<tool_call>"] == USER_DEFINED
    assert kinds["a"] == NORMAL
    assert tokens[-1] == f"[PAD{len(tokens) - 1}]"
    assert types[-1] == UNUSED
    for key, token in (
        ("fim_pre", formats.FIM_PREFIX),
        ("fim_suf", formats.FIM_SUFFIX),
        ("fim_mid", formats.FIM_MIDDLE),
        ("fim_pad", formats.FIM_PAD),
        ("fim_rep", formats.REPO_NAME),
        ("fim_sep", formats.FILE_SEP),
        ("eos", formats.ENDOFTEXT),
        ("eot", formats.IM_END),
    ):
        assert tokens[value(reader, f"tokenizer.ggml.{key}_token_id")] == token
    assert value(reader, "tokenizer.ggml.pre") == "qwen2"
    assert value(reader, "tokenizer.ggml.add_bos_token") is False
    assert value(reader, "tokenizer.chat_template") == formats.CHAT_TEMPLATE


def test_yarn_is_written_with_the_length_it_reaches(trained, tmp_path):
    model = shutil.copytree(trained, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "yarn",
        "rope_theta": 1000000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 2048,
    }
    (model / "config.json").write_text(json.dumps(config))
    file = write_gguf(open_checkpoint(model), get_level("f16"), tmp_path / "yarn.gguf").files[0]
    reader = read(file)
    assert value(reader, "qwen2.rope.scaling.type") == "yarn"
    assert value(reader, "qwen2.rope.scaling.factor") == 4.0
    assert value(reader, "qwen2.rope.scaling.original_context_length") == 2048
    assert value(reader, "qwen2.context_length") == 8192


def test_old_and_new_configs_write_the_same_rope_keys(trained, tmp_path):
    model = shutil.copytree(trained, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    rope = {"factor": 4.0, "original_max_position_embeddings": 2048}
    forms = (
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 5e5, **rope}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "yarn", **rope}},
    )
    written = []
    for form in forms:
        plain = {key: entry for key, entry in config.items() if not key.startswith("rope")}
        (model / "config.json").write_text(json.dumps(plain | form))
        reader = read(write_gguf(open_checkpoint(model), get_level("f16"), tmp_path / "out.gguf").files[0])
        written.append({key: value(reader, key) for key in reader.fields if "rope" in key})
    assert written[0] == written[1]
    assert written[0]["qwen2.rope.freq_base"] == 5e5


def test_split_and_sharded_files_hold_the_same_tensors_as_whole_ones(untied, tmp_path):
    from transformers import AutoModelForCausalLM

    sharded = shutil.copytree(untied, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(untied, dtype="float32").save_pretrained(sharded, max_shard_size="2MB")
    assert (sharded / "model.safetensors.index.json").is_file()
    level = get_level("q4_K_M")
    whole = write_gguf(open_checkpoint(untied), level, tmp_path / "whole.gguf")
    split = write_gguf(open_checkpoint(sharded), level, tmp_path / "split.gguf", split_bytes=300_000)
    assert [file.name for file in split.files[:1]] == [f"split-00001-of-{len(split.files):05d}.gguf"]
    assert len(split.files) > 2

    def tensors(files):
        return {tensor.name: tensor.data.tobytes() for file in files for tensor in read(file).tensors}

    assert tensors(split.files) == tensors(whole.files)


def test_llama_cpp_runs_split_files_of_an_untied_model(untied, tmp_path):
    from alignment.export.llamacpp import GgufModel, LlamaCppLibrary

    library = LlamaCppLibrary()
    whole = write_gguf(open_checkpoint(untied), get_level("q8_0"), tmp_path / "whole.gguf")
    split = write_gguf(open_checkpoint(untied), get_level("q8_0"), tmp_path / "split.gguf", split_bytes=800_000)
    logits = [GgufModel(library, files[0], 64, 1).decode(range(32)).copy() for files in (whole.files, split.files)]
    assert np.array_equal(*logits)


def test_rows_that_hold_no_k_quant_fall_back_and_are_counted(tmp_path):
    model = make_model(tmp_path / "model", hidden_size=224, head_dim=64, intermediate_size=256)
    written = write_gguf(open_checkpoint(model), get_level("q4_K_M"), tmp_path / "out.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in read(written.files[0]).tensors}
    assert types["blk.0.attn_q.weight"] == "Q5_0"
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.0.attn_output.weight"] == "Q4_K"
    quantized = [name for name, kind in types.items() if kind != "F32"]
    assert written.fallback_tensors == sum(types[name] in ("Q5_0", "Q8_0") for name in quantized)


@pytest.mark.slow
def test_f32_agrees_with_transformers_on_ten_thousand_positions(trained, tmp_path):
    comparison = Comparison(context=256, positions=10_000, greedy_prompts=1, greedy_tokens=4)
    (row,) = export(trained, ["f32"], tmp_path, ExportOptions(comparison=comparison))
    assert row["positions"] >= 10_000
    assert row["top1_agreement"] >= 99.9


@pytest.mark.slow
def test_a_file_that_fails_its_gate_is_named_broken(trained, held_out, tmp_path):
    gate = {
        "context": 64,
        "positions": 63,
        "greedy_prompts": 0,
        "thresholds": {"q2_K": {"max_kl_divergence": 0.0}},
    }
    options = ExportOptions(held_out=held_out, comparison=Comparison.model_validate(gate), name="tiny")
    (row,) = export(trained, ["q2_K"], tmp_path, options)
    assert not row["passed"]
    assert "KL divergence" in row["reasons"][0]
    assert sorted(path.name for path in tmp_path.glob("*.gguf")) == ["broken-tiny-q2_K.gguf"]
    assert "**broken**" in (tmp_path / "README.md").read_text()
    assert Path(row["file"]).is_file()


MEASURED = {
    "perplexity": 2.0,
    "top1_agreement": 99.0,
    "kl_divergence": 0.01,
    "greedy_agreement": 50.0,
    "tokenization_equal": True,
    "tokenization_differs_on": [],
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"perplexity": 2.3}, "perplexity +15.00% (limit +8%)"),
        ({"perplexity": float("nan")}, "perplexity +inf%"),
        ({"top1_agreement": 84.0}, "top-1 agreement 84.00% (at least 85%)"),
        ({"kl_divergence": float("nan")}, "KL divergence nan"),
        ({"greedy_agreement": 10.0}, "greedy agreement 10.0% (at least 20%)"),
        (
            {"tokenization_equal": False, "tokenization_differs_on": ["x"]},
            "tokenizes these texts differently from the original: ['x']",
        ),
    ],
)
def test_the_gate_names_the_limit_that_was_missed(changed, reason):
    settings = Comparison.model_validate({"thresholds": {"q4_K_M": {"min_greedy_agreement": 20.0}}})
    limits = thresholds_of(settings, "q4_K_M")
    assert missed_limits(MEASURED, 2.0, limits) == []
    (message,) = missed_limits(MEASURED | changed, 2.0, limits)
    assert reason in message
