"""Errors in the input: the message names the cause, and no file is left under a final name."""

import errno
import json
import os
import shutil
import struct

import pytest

from alignment.export import ExportOptions, export, parse_targets
from alignment.export.checkpoint import open_checkpoint
from alignment.export.export_settings import Comparison
from alignment.export.gate import check_levels
from alignment.export.gguf_file import write_gguf
from alignment.export.levels import get_level


@pytest.fixture
def model(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


def attempt(folder, level="q8_0"):
    """Write the model. If it fails, no file may be left."""
    out = folder.parent / "out"
    try:
        write_gguf(open_checkpoint(folder), get_level(level), out / "model.gguf")
    finally:
        assert not out.exists() or list(out.iterdir()) == []


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def change_tokenizer(folder, change):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    change(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def rename_tensors(folder, change):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.dumps({change(name): entry for name, entry in json.loads(data[8 : 8 + length]).items()}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])


def overwrite(folder, tensor, raw):
    """Overwrite the first two bytes of a tensor."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    start = 8 + length + json.loads(data[8 : 8 + length])[tensor]["data_offsets"][0]
    data[start : start + 2] = raw
    file.write_bytes(data)


def test_a_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="there is no model folder"):
        open_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "256"}, "hidden_size is '256', not a positive integer"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_parameters": "yarn"}, "the RoPE settings are 'yarn'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "RoPE of type 'yarn' needs a number as `factor`"),
        ({"quantization_config": {}}, "is already quantized"),
        ({"use_sliding_window": True}, "sliding-window attention"),
    ],
)
def test_a_config_that_qwen2_models_do_not_have(model, changes, message):
    change_config(model, **changes)
    with pytest.raises(ValueError, match=message):
        attempt(model)


@pytest.mark.parametrize("text", ["[1]", '"x"', "{", "\x00"])
def test_a_config_that_is_not_a_json_object(model, text):
    (model / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json (does not hold a JSON object|is not valid JSON)"):
        attempt(model)


def test_tensors_under_other_names(model):
    rename_tensors(model, lambda name: name.replace("model.layers", "transformer.h"))
    with pytest.raises(ValueError, match=r"lacks 24 tensors.*instead it has transformer\.h\.0\."):
        attempt(model)


def test_a_pointer_in_place_of_weights(model):
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
    with pytest.raises(ValueError, match="Git LFS pointer, not the weights"):
        attempt(model)


def test_an_index_without_shards(model):
    (model / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="names no shard"):
        attempt(model)


def test_an_adapter_in_place_of_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="LoRA adapter, not a model: merge it"):
        open_checkpoint(tmp_path)


def test_another_architecture(model):
    change_config(model, model_type="gemma")
    with pytest.raises(ValueError, match="model_type 'gemma'"):
        attempt(model)


def test_a_truncated_shard(model):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="is truncated"):
        attempt(model)


def test_a_missing_shard(model):
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="lacks the shards model-00001-of-00002"):
        attempt(model)


def test_a_missing_layer(model):
    change_config(model, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"lacks 12 tensors, first model\.layers\.2\."):
        attempt(model)


def test_a_config_of_another_size(model):
    change_config(model, intermediate_size=1024)
    with pytest.raises(ValueError, match=r"mlp\.gate_proj\.weight has shape \(512, 256\)"):
        attempt(model)


def test_an_untied_config_over_tied_weights(model):
    change_config(model, tie_word_embeddings=False)
    with pytest.raises(ValueError, match="does not tie it to the embedding"):
        attempt(model)


def test_a_trained_head_that_the_config_ties_to_the_embedding(model, untied):
    change_config(untied_copy := shutil.copytree(untied, model.parent / "untied"), tie_word_embeddings=True)
    with pytest.raises(ValueError, match=r"lm_head\.weight that differs from the embedding"):
        attempt(untied_copy)


def test_nan_weights_name_the_tensor(model):
    overwrite(model, "model.layers.1.mlp.up_proj.weight", b"\xc0\x7f")
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        attempt(model)


def test_weights_beyond_float16(model):
    overwrite(model, "model.embed_tokens.weight", b"\x80\x4f")
    with pytest.raises(ValueError, match="beyond float16's maximum of 65504: export bf16"):
        attempt(model, "f16")


def test_no_tokenizer(model):
    (model / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        attempt(model)


def test_a_tokenizer_that_splits_differently(model):
    change_tokenizer(model, lambda t: t["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\w+|\W+"))
    with pytest.raises(ValueError, match="not by Qwen2's rule"):
        attempt(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["model"].update(ignore_merges=True), "sets ignore_merges"),
        (lambda t: t["added_tokens"][0].update(lstrip=True), "sets lstrip, which llama.cpp does not support"),
        (lambda t: t["model"].pop("merges"), "not Qwen2's byte-level BPE"),
        (lambda t: t.update(model={"type": "Unigram", "vocab": [["a", 0.0]]}), "is a Unigram tokenizer"),
        (lambda t: t.update(pre_tokenizer=None), "splits text by no rule"),
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "normalizes text by"),
        (lambda t: t.clear(), "is a None tokenizer"),
    ],
)
def test_a_tokenizer_of_another_family(model, change, message):
    change_tokenizer(model, change)
    with pytest.raises(ValueError, match=message):
        attempt(model)


def test_a_tokenizer_with_more_tokens_than_the_embedding(model):
    change_tokenizer(model, lambda t: t["added_tokens"][0].update(id=5000))
    with pytest.raises(ValueError, match="ids up to 5000, the embedding only 704 rows"):
        attempt(model)


def test_a_config_with_special_ids_of_another_tokenizer(model):
    change_config(model, eos_token_id=7)
    with pytest.raises(ValueError, match="eos_token_id 7, which is not a special token"):
        attempt(model)


def test_a_full_disk_found_before_writing(model, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match=r"GB free, the export needs"):
        attempt(model)


def test_a_disk_that_fills_up_while_writing(model):
    """A limit of the kernel stands for the full disk: no file may grow beyond 300 kB."""
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(ValueError, match="could not be written"):
            attempt(model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_folder_whose_disk_fills_up_is_not_left_half_written(model, monkeypatch):
    from alignment.export import serving_files

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(serving_files, "link_or_copy", full)
    with pytest.raises(ValueError, match=r"out could not be written \(No space left on device\)"):
        serving_files.write_folder(open_checkpoint(model), model.parent / "out", "tiny", "card")
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_a_package_that_is_not_installed(model, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "gguf" else real(name, *a))
    with pytest.raises(ValueError, match=r"pip install 'code-alignment\[gguf\]'"):
        export(model, ["q8_0"], model.parent / "out")


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5", "../x", ".hidden", "a/"])
def test_a_name_that_would_leave_the_output_folder(model, name):
    with pytest.raises(ValueError, match="is part of file names"):
        export(model, ["q8_0"], model.parent / "out", ExportOptions(name=name))


def test_an_output_that_would_replace_the_model(model):
    with pytest.raises(ValueError, match="would replace the model"):
        export(model, ["vllm"], model)
    older = model.rename(model.parent / "tiny-huggingface")
    with pytest.raises(ValueError, match="would replace the model"):
        export(older, ["vllm"], model.parent, ExportOptions(name="tiny"))
    assert (older / "model.safetensors").is_file()


def test_an_output_folder_with_a_readme_of_the_user(model):
    (model.parent / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds a README\.md that is not from an export"):
        export(model, ["q8_0"], model.parent)


def test_an_output_below_a_file(model):
    with pytest.raises(ValueError, match="cannot write to"):
        write_gguf(open_checkpoint(model), get_level("f16"), model / "config.json" / "x.gguf")


@pytest.mark.parametrize(
    "targets", [[], ["q9"], ["ollama:q9"], ["q8_0", "Q8_0"], "q8_0", ["llama:q8_0"], ["vllm", "huggingface"]]
)
def test_targets_that_do_not_exist(targets):
    with pytest.raises(ValueError, match=r"q4_K_M|named twice"):
        parse_targets(targets)


@pytest.mark.parametrize(
    "settings", [{"contxt": 5}, {"thresholds": {"q9": {}}}, {"thresholds": {"q8_0": {"max_ppl": 1}}}]
)
def test_gate_settings_that_do_not_exist(settings):
    with pytest.raises(ValueError, match=r"Extra inputs are not permitted|has no level 'q9'"):
        check_levels(Comparison.model_validate(settings))


@pytest.mark.slow
def test_too_few_held_out_rows(trained, tmp_path):
    with pytest.raises(ValueError, match="give more rows or a shorter context"):
        export(trained, ["q8_0"], tmp_path, ExportOptions(held_out=[{"text": "x = 1"}]))
    assert list(tmp_path.iterdir()) == []
