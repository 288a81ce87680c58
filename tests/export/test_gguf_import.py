"""GGUF files as model folders: what the exporter writes is read back, and the published tokenizer's ids come out."""

import json

import numpy as np
import pytest
import torch
from export_models import make_model, training_text
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from alignment.cli import main
from alignment.export.checkpoint import open_checkpoint
from alignment.export.gguf_file import write_gguf
from alignment.export.levels import LEVELS, get_level
from alignment.models.gguf_import import GgufImport, import_gguf, read_import
from alignment.models.stored_config import stored_config


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("original") / "model", tied=request.param, dtype="float32")


def imported(folder, level, tmp_path, dtype="float32"):
    file = write_gguf(open_checkpoint(folder), get_level(level), tmp_path / f"{level}.gguf").files[0]
    return tmp_path / level, import_gguf(file, tmp_path / level, dtype)


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def test_a_file_in_float32_gives_the_same_model_and_the_same_generation_config(folder, tmp_path):
    out, summary = imported(folder, "f32", tmp_path)
    original, copy = weights(folder), weights(out)
    assert original.keys() == copy.keys()
    assert all(torch.equal(original[name], copy[name]) for name in original)
    assert summary.tied_embedding == json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    assert summary.sentence() == "The base weights come from f32.gguf, which is not quantized."
    config, copied = (json.loads((path / "config.json").read_text()) for path in (folder, out))
    for key in ("hidden_size", "rms_norm_eps", "rope_parameters", "tie_word_embeddings", "vocab_size", "eos_token_id"):
        assert copied[key] == config[key], key
    generation = [GenerationConfig.from_pretrained(path) for path in (folder, out)]
    assert generation[0].eos_token_id == generation[1].eos_token_id


@pytest.mark.parametrize("level", [name for name, level in LEVELS.items() if not level.is_float])
def test_every_level_is_read_and_its_rounding_is_estimated(folder, tmp_path, level):
    out, summary = imported(folder, level, tmp_path)
    original, copy = weights(folder), weights(out)
    errors = powers = estimated = 0.0
    for name, weight in original.items():
        if weight.dim() > 1 and not (name == "lm_head.weight" and summary.tied_embedding):
            errors += float((copy[name] - weight).square().sum())
            powers += float(weight.square().sum())
    for rounding in summary.types.values():
        estimated += rounding.relative_rounding**2 * rounding.weights
    matrices = sum(rounding.weights for name, rounding in summary.types.items() if name != "f32")
    measured, estimate = (errors / powers) ** 0.5, (estimated / matrices) ** 0.5
    assert estimate == pytest.approx(measured, rel=0.5)
    assert read_import(out) == summary


def test_token_ids_and_chat_template_are_those_of_the_original(folder, tmp_path):
    out, _ = imported(folder, "q8_0", tmp_path)
    original, copy = (AutoTokenizer.from_pretrained(path) for path in (folder, out))
    texts = [*training_text().split("\n\n"), "<|fim_prefix|>a<|im_end|> <tool_call>é\u0301 123\r\n"]
    assert [copy(text)["input_ids"] for text in texts] == [original(text)["input_ids"] for text in texts]
    assert len(copy) == len(original)
    assert copy.get_added_vocab() == original.get_added_vocab()
    assert copy.chat_template == original.chat_template
    assert (copy.eos_token, copy.pad_token, copy.bos_token) == (original.eos_token, original.pad_token, None)
    ids = original(texts[-1])["input_ids"]
    assert copy.decode(ids, skip_special_tokens=True) == original.decode(ids, skip_special_tokens=True)


def test_ids_of_the_published_tokenizer_come_out_of_a_file(real_tokenizer, data_dir, tmp_path):
    folder = make_model(tmp_path / "model", hidden_size=32, intermediate_size=32, vocab_size=151936)
    real_tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {key: 151643 for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / "config.json").write_text(json.dumps(config))
    out, _ = imported(folder, "f16", tmp_path, "bfloat16")
    copy = AutoTokenizer.from_pretrained(out)
    lines = (data_dir / "benchmarks" / "cruxeval.jsonl").read_text().splitlines()
    assert [copy(line)["input_ids"] for line in lines] == [real_tokenizer(line)["input_ids"] for line in lines]


def test_files_that_are_no_models_are_refused_by_name(folder, tmp_path):
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(ValueError, match=r"text\.gguf is not a GGUF file, or is cut off"):
        import_gguf(tmp_path / "text.gguf", tmp_path / "out")
    with pytest.raises(ValueError, match=r"there is no file .*none\.gguf"):
        import_gguf(tmp_path / "none.gguf", tmp_path / "out")
    file = write_gguf(open_checkpoint(folder), get_level("q8_0"), tmp_path / "whole.gguf").files[0]
    (tmp_path / "half.gguf").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"half\.gguf is not a GGUF file, or is cut off"):
        import_gguf(tmp_path / "half.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    import_gguf(file, tmp_path / "out")
    with pytest.raises(ValueError, match="exists: remove it"):
        import_gguf(file, tmp_path / "out")


def test_a_file_of_another_architecture_is_refused(tmp_path):
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "other.gguf", "gemma")
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="architecture 'gemma' is not supported: use a file of qwen2 or llama"):
        import_gguf(tmp_path / "other.gguf", tmp_path / "out")


def test_a_folder_that_was_not_imported_has_no_summary(folder, tmp_path):
    assert read_import(folder) is None
    (tmp_path / "quantization.json").write_text("{}")
    assert read_import(tmp_path) is None
    assert isinstance(GgufImport("f", 1, "qwen2", 1, True, {}).sentence(), str)


def test_the_command_writes_the_folder_and_says_what_quantization_cost(folder, tmp_path, capsys):
    file = write_gguf(open_checkpoint(folder), get_level("q8_0"), tmp_path / "model.gguf").files[0]
    assert main(["import", str(file), str(tmp_path / "out"), "--dtype", "float32"]) == 0
    assert "dequantized from model.gguf: q8_0" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert main(["import", str(tmp_path / "none.gguf"), str(tmp_path / "other")]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_the_config_of_a_file_is_read_without_its_weights(folder, tmp_path):
    file = write_gguf(open_checkpoint(folder), get_level("q8_0"), tmp_path / "model.gguf").files[0]
    config, expected = stored_config(file), stored_config(folder)
    for key in ("hidden_size", "num_hidden_layers", "num_key_value_heads", "vocab_size", "max_position_embeddings"):
        assert config[key] == expected[key]
    assert stored_config(tmp_path / "none.gguf") is None
    (tmp_path / "text.gguf").write_text("not a model")
    assert stored_config(tmp_path / "text.gguf") is None
