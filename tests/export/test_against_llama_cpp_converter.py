"""Compares our GGUF files with those of llama.cpp's converter, and our tokens with its test vectors for Qwen2."""

import statistics
import sys
from pathlib import Path

import pytest
from export_models import HALF_BILLION, make_model, make_random_model
from llama_cpp_reference import convert, measured

from alignment.export import ExportOptions, export
from alignment.export.card import figures_table
from alignment.export.checkpoint import open_checkpoint
from alignment.export.export_settings import Comparison, LevelLimits
from alignment.export.gguf_file import write_gguf
from alignment.export.levels import LEVELS, get_level

pytestmark = pytest.mark.slow

# Keys that llama.cpp's converter guesses from the folder's name, and that callers of ours give.
MAY_DIFFER = {"general.name", "general.basename", "general.size_label", "general.tags", "general.license"}
KINDS = ("f32", "f16", "bf16", "q8_0")
OURS = """
import sys
from pathlib import Path
from alignment.export.checkpoint import open_checkpoint
from alignment.export.export_settings import Comparison, LevelLimits
from alignment.export.gguf_file import write_gguf
from alignment.export.levels import get_level
write_gguf(open_checkpoint(sys.argv[1]), get_level(sys.argv[2]), Path(sys.argv[3]))
"""


def contents(file: Path):
    from gguf import GGUFReader

    reader = GGUFReader(file)
    tensors = {
        tensor.name: (tensor.tensor_type.name, tuple(tensor.shape.tolist()), tensor.data.tobytes())
        for tensor in reader.tensors
    }
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return tensors, keys


@pytest.fixture(scope="module", params=["tied, bfloat16", "untied, float32"])
def converted(request, llama_cpp_source, tmp_path_factory) -> Path:
    """A folder with a model, and with the files that llama.cpp's converter makes of it."""
    folder = tmp_path_factory.mktemp("converted")
    tying, dtype = request.param.split(", ")
    make_model(folder / "model", tied=tying == "tied", dtype=dtype)
    convert(llama_cpp_source, folder / "model", folder / "theirs", *KINDS)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_and_metadata_equal_llama_cpps_converter(converted, kind):
    written = write_gguf(open_checkpoint(converted / "model"), get_level(kind), converted / "ours.gguf")
    our_tensors, our_keys = contents(written.files[0])
    tensors, keys = contents(converted / f"theirs-{kind}.gguf")
    assert {name: entry[:2] for name, entry in our_tensors.items()} == {
        name: entry[:2] for name, entry in tensors.items()
    }
    assert [name for name in tensors if tensors[name][2] != our_tensors[name][2]] == []
    differing = {key for key in keys if keys[key] != our_keys.get(key)} - MAY_DIFFER
    assert {key: (keys[key], our_keys.get(key)) for key in differing} == {}


def test_tokens_equal_llama_cpps_qwen2_vectors(llama_cpp_source, data_dir, tmp_path):
    from alignment.export.llamacpp import GgufModel, LlamaCppLibrary

    model = tiny_with_real_tokenizer(data_dir, tmp_path / "model", 151936)
    file = write_gguf(open_checkpoint(model), get_level("f16"), tmp_path / "model.gguf").files[0]
    runtime = GgufModel(LlamaCppLibrary(), file, 32, 1)
    vectors = llama_cpp_source / "models" / "ggml-vocab-qwen2.gguf"
    inputs = Path(f"{vectors}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    outputs = Path(f"{vectors}.out").read_text(encoding="utf-8").splitlines()
    expected = [[int(number) for number in line.split()] for line in outputs]
    assert len(inputs) >= len(expected) > 40
    assert [runtime.tokenize(text) for text in inputs[: len(expected)]] == expected


def tiny_with_real_tokenizer(data_dir: Path, folder: Path, rows: int) -> Path:
    """A model with the real vocabulary and one narrow layer; tied with 152064 embedding rows, untied with 151936."""
    shape = {"vocab_size": rows, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    return make_random_model(folder, HALF_BILLION | shape, data_dir / "qwen2.5-coder-tokenizer", tied=rows == 151936)


@pytest.mark.parametrize("rows", [151936, 152064])
def test_the_real_vocabulary_passes_the_gate_with_either_number_of_rows(data_dir, tmp_path, rows):
    model = tiny_with_real_tokenizer(data_dir, tmp_path / "model", rows)
    # Random weights have many near-ties, so the limit of the top-1 agreement is lower than for trained models.
    comparison = Comparison(
        context=64,
        positions=63,
        greedy_prompts=1,
        greedy_tokens=2,
        thresholds={"f32": LevelLimits(min_top1_agreement=95)},
    )
    (row,) = export(model, ["f32"], tmp_path / "out", ExportOptions(comparison=comparison))
    assert row["reasons"] == []
    assert row["tokenization_equal"]


def test_the_half_billion_shape_equals_llama_cpps_converter_at_less_memory(
    llama_cpp_source, half_billion, large_folder
):
    ours, theirs = both(llama_cpp_source, half_billion, large_folder)
    our_tensors, our_keys = contents(large_folder / "ours.gguf")
    tensors, keys = contents(large_folder / "theirs-f16.gguf")
    assert our_tensors == tensors
    differing = {key for key in keys if keys[key] != our_keys.get(key)} - MAY_DIFFER
    assert differing == {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type"}
    tokens, our_tokens = keys["tokenizer.ggml.tokens"], our_keys["tokenizer.ggml.tokens"]
    # The one name that differs: llama.cpp would treat it as the end of generation wherever it occurs in HTML.
    assert {mine: other for mine, other in zip(our_tokens, tokens, strict=True) if mine != other} == {
        "[PAD128247]": "</s>"
    }
    assert ours["peak"] < theirs["peak"]
    largest = max(tensor.weights for tensor in open_checkpoint(half_billion).tensors.values()) * 2 / 2**20
    assert ours["peak"] < 2048 + largest


def both(source: Path, model: Path, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Time and memory of our converter and of llama.cpp's, for f16, measured one after the other."""
    theirs = convert(source, model, folder / "theirs", "f16", tiny=False)
    ours = measured([sys.executable, "-c", OURS, str(model), "f16", str(folder / "ours.gguf")])
    print(f"ours {ours}, llama.cpp's {theirs}")
    return ours, theirs


@pytest.mark.nightly
def test_converting_costs_no_more_time_than_llama_cpps_converter(llama_cpp_source, half_billion, large_folder):
    runs = [both(llama_cpp_source, half_billion, large_folder) for _ in range(3)]
    assert statistics.median(ours["cpu"] / theirs["cpu"] for ours, theirs in runs) <= 1


@pytest.mark.nightly
def test_the_half_billion_shape_goes_to_every_level_and_counts_its_fallbacks(half_billion, large_folder):
    # Random weights give logits without a clear maximum, so this only checks that every level loads and is measured.
    options = ExportOptions(comparison=Comparison(context=32, positions=31, greedy_prompts=1, greedy_tokens=2))
    rows = {row["level"]: row for row in export(half_billion, list(LEVELS), large_folder, options)}
    print(figures_table(list(rows.values())))
    assert [row["tokenization_equal"] for row in rows.values()] == [True] * len(LEVELS)
    assert all(row["perplexity"] > 1 for row in rows.values())
    assert rows["f32"]["kl_divergence"] < 1e-4
    # The hidden size of 896 is not a multiple of 256: of the matrices only the 24 ffn_down hold k-quants, and the
    # embedding, which is also the output head, gets q8_0 instead of q6_K.
    expected = {level: 145 if "K" in level else 1 if level in ("q5_0", "q4_0") else 0 for level in LEVELS}
    assert {level: row["fallback_tensors"] for level, row in rows.items()} == expected
