"""Our converter against llama.cpp's own, and against its test vectors for Qwen2's tokenizer."""

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


def test_the_half_billion_shape_equals_llama_cpps_converter_at_less_memory(llama_cpp_source, half_billion, roomy):
    ours, theirs = both(llama_cpp_source, half_billion, roomy)
    our_tensors, our_keys = contents(roomy / "ours.gguf")
    tensors, keys = contents(roomy / "theirs-f16.gguf")
    assert our_tensors == tensors
    differing = {key for key in keys if keys[key] != our_keys.get(key)} - MAY_DIFFER
    assert differing == {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type"}
    tokens, our_tokens = keys["tokenizer.ggml.tokens"], our_keys["tokenizer.ggml.tokens"]
    # The one name that differs: llama.cpp would read it as an end of generation wherever HTML has it.
    assert {mine: other for mine, other in zip(our_tokens, tokens, strict=True) if mine != other} == {
        "[PAD128247]": "</s>"
    }
    assert ours["peak"] < theirs["peak"]
    largest = max(tensor.weights for tensor in open_checkpoint(half_billion).tensors.values()) * 2 / 2**20
    assert ours["peak"] < 2048 + largest


def both(source: Path, model: Path, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """What our converter costs for f16, and what llama.cpp's does in the same run."""
    theirs = convert(source, model, folder / "theirs", "f16", tiny=False)
    ours = measured([sys.executable, "-c", OURS, str(model), "f16", str(folder / "ours.gguf")])
    print(f"ours {ours}, llama.cpp's {theirs}")
    return ours, theirs


@pytest.mark.nightly
def test_converting_costs_no_more_time_than_llama_cpps_converter(llama_cpp_source, half_billion, roomy):
    runs = [both(llama_cpp_source, half_billion, roomy) for _ in range(3)]
    assert statistics.median(ours["cpu"] / theirs["cpu"] for ours, theirs in runs) <= 1


@pytest.mark.nightly
def test_the_half_billion_shape_goes_to_every_level_and_counts_its_fallbacks(half_billion, roomy):
    # Random weights give logits without a winner: what must hold is that every level loads and is measured.
    gate = {"context": 32, "positions": 31, "greedy_prompts": 1, "greedy_tokens": 2}
    rows = {row["level"]: row for row in export(half_billion, list(LEVELS), roomy, gate=gate)}
    print(table(list(rows.values())))
    assert [row["tokenization_equal"] for row in rows.values()] == [True] * len(LEVELS)
    assert all(row["perplexity"] > 1 for row in rows.values())
    assert rows["f32"]["kl_divergence"] < 1e-4
    # Hidden size 896 is no multiple of 256: of the matrices only the 24 ffn_down hold k-quants, and the embedding, which
    # is the output head too, takes q8_0 where it would be q6_K.
    expected = {level: 145 if "K" in level else 1 if level in ("q5_0", "q4_0") else 0 for level in LEVELS}
    assert {level: row["fallback_tensors"] for level, row in rows.items()} == expected
