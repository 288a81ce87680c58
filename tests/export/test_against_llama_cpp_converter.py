"""Our converter against llama.cpp's own, and against its test vectors for Qwen2's tokenizer."""

import shutil
import statistics
import sys
from pathlib import Path

import pytest
from export_models import HALF_BILLION, make_model, make_random_model
from llama_cpp_reference import convert, measured

from alignment.export import export
from alignment.export.card import table
from alignment.export.checkpoint import open_checkpoint
from alignment.export.gguf_file import write_gguf
from alignment.export.levels import LEVELS, get_level

pytestmark = pytest.mark.slow

# What the converter guesses from the folder's name, and the caller tells us.
MAY_DIFFER = {"general.name", "general.basename", "general.size_label", "general.tags", "general.license"}
KINDS = ("f32", "f16", "bf16", "q8_0")
OURS = """
import sys
from pathlib import Path
from alignment.export.checkpoint import open_checkpoint
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
    """A folder with a model and what llama.cpp's converter makes of it."""
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


@pytest.fixture(scope="module")
def half_billion(data_dir, tmp_path_factory) -> Path:
    """Random weights in the exact shape of Qwen2.5-Coder-0.5B, with the real tokenizer."""
    folder = tmp_path_factory.mktemp("half") / "half-billion"
    yield make_random_model(folder, HALF_BILLION, data_dir / "qwen2.5-coder-tokenizer")
    shutil.rmtree(folder)


def test_tokens_equal_llama_cpps_qwen2_vectors(llama_cpp_source, data_dir, tmp_path):
    from alignment.export.llamacpp import Library, Model

    model = tiny_with_real_tokenizer(data_dir, tmp_path / "model", 151936)
    file = write_gguf(open_checkpoint(model), get_level("f16"), tmp_path / "model.gguf").files[0]
    runtime = Model(Library(), file, 32, 1)
    vectors = llama_cpp_source / "models" / "ggml-vocab-qwen2.gguf"
    inputs = Path(f"{vectors}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    outputs = Path(f"{vectors}.out").read_text(encoding="utf-8").splitlines()
    expected = [[int(number) for number in line.split()] for line in outputs]
    assert len(inputs) >= len(expected) > 40
    assert [runtime.tokenize(text) for text in inputs[: len(expected)]] == expected


def tiny_with_real_tokenizer(data_dir: Path, folder: Path, rows: int) -> Path:
    """A model of one narrow layer under the real vocabulary; untied where it has the larger models' rows."""
    shape = {"vocab_size": rows, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    return make_random_model(folder, HALF_BILLION | shape, data_dir / "qwen2.5-coder-tokenizer", tied=rows == 151936)


@pytest.mark.parametrize("rows", [151936, 152064])
def test_the_real_vocabulary_passes_the_gate_with_either_number_of_rows(data_dir, tmp_path, rows):
    model = tiny_with_real_tokenizer(data_dir, tmp_path / "model", rows)
    # Random weights: a near-tie may go either way, so the top-1 limit is left to models that have learned something.
    gate = {"context": 64, "positions": 63, "greedy_prompts": 1, "greedy_tokens": 2}
    gate["thresholds"] = {"f32": {"min_top1_agreement": 95}}
    (row,) = export(model, ["f32"], tmp_path / "out", gate=gate)
    assert row["reasons"] == []
    assert row["tokenization_equal"]


def test_converting_costs_less_time_and_memory_than_llama_cpps_converter(llama_cpp_source, half_billion, tmp_path):
    runs: list[tuple[dict[str, float], dict[str, float]]] = []
    for number in range(3):
        theirs = convert(llama_cpp_source, half_billion, tmp_path / "theirs", "f16")
        ours = measured([sys.executable, "-c", OURS, str(half_billion), "f16", str(tmp_path / "ours.gguf")])
        runs.append((ours, theirs))
        print(f"run {number}: ours {ours}, llama.cpp's {theirs}")
    our_tensors, _ = contents(tmp_path / "ours.gguf")
    tensors, _ = contents(tmp_path / "theirs-f16.gguf")
    assert our_tensors == tensors
    assert statistics.median(ours["cpu"] / theirs["cpu"] for ours, theirs in runs) <= 1
    assert max(ours["peak"] for ours, _ in runs) <= min(theirs["peak"] for _, theirs in runs)
    largest = max(tensor.weights for tensor in open_checkpoint(half_billion).tensors.values()) * 2 / 2**20
    assert max(ours["peak"] for ours, _ in runs) < 2048 + largest


def test_the_half_billion_shape_goes_to_every_level_and_counts_its_fallbacks(half_billion, tmp_path):
    # Random weights give logits without a winner: what must hold is that every level loads and is measured.
    gate = {"context": 64, "positions": 63, "greedy_prompts": 1, "greedy_tokens": 4}
    rows = {row["level"]: row for row in export(half_billion, list(LEVELS), tmp_path, gate=gate)}
    print(table(list(rows.values())))
    assert [row["tokenization_equal"] for row in rows.values()] == [True] * len(LEVELS)
    assert rows["f32"]["passed"] and rows["f16"]["passed"] and rows["q8_0"]["passed"]
    assert {level for level, row in rows.items() if row["fallback_tensors"]} == {
        level for level in LEVELS if level.endswith(("_K", "_K_M"))
    }
    # Hidden size 896 is no multiple of 256: all matrices that read it fall back, only ffn_down does not.
    assert rows["q4_K_M"]["fallback_tensors"] >= 144
