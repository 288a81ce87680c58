"""Compares our quantized files with those of llama.cpp's `llama_model_quantize`, byte for byte.

Needs LLAMA_CPP_PYTHON: a Python interpreter that has `llama-cpp-python`. That package compiles llama.cpp, so it is not
part of the development environment.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from export_models import make_model

from alignment.export.checkpoint import open_checkpoint
from alignment.export.gguf_file import write_gguf
from alignment.export.imatrix import read_imatrix, write_imatrix
from alignment.export.levels import LEVELS, get_level

pytestmark = pytest.mark.nightly

QUANTIZE = """
import ctypes, sys
import numpy as np
import llama_cpp
source, target, file_type, matrices = sys.argv[1:5]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = int(file_type), 1
if matrices != "-":
    Data = type(params.imatrix)._type_
    loaded = dict(np.load(matrices))
    rows = (Data * (len(loaded) + 1))()
    for row, (name, values) in zip(rows, loaded.items()):
        row.name, row.size = name.encode(), values.size
        row.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params.imatrix = ctypes.cast(rows, type(params.imatrix))
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))
"""

SHAPES = {
    "28 layers, untied, grouped 4": {
        "num_hidden_layers": 28,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "tied": False,
    },
    "24 layers, tied, grouped 2, short rows": {
        "num_hidden_layers": 24,
        "hidden_size": 224,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "head_dim": 64,
        "tied": True,
    },
}


@pytest.fixture(scope="module")
def reference_python() -> str:
    python = os.environ.get("LLAMA_CPP_PYTHON", "")
    if not python or subprocess.run([python, "-c", "import llama_cpp"], capture_output=True).returncode:
        pytest.skip("set LLAMA_CPP_PYTHON to a Python that has llama-cpp-python")
    return python


@pytest.fixture(scope="module", params=SHAPES, ids=list(SHAPES))
def source(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shape")
    checkpoint = open_checkpoint(make_model(folder / "model", **SHAPES[request.param]))
    write_gguf(checkpoint, get_level("f32"), folder / "f32.gguf")
    return checkpoint, folder


def tensors(file: Path) -> dict[str, tuple[str, bytes]]:
    from gguf import GGUFReader

    return {entry.name: (entry.tensor_type.name, entry.data.tobytes()) for entry in GGUFReader(file).tensors}


def quantize_by_llama_cpp(python: str, folder: Path, level: str, matrices: str = "-") -> dict[str, tuple[str, bytes]]:
    out = folder / "reference.gguf"
    file_type = str(LEVELS[level].file_type)
    command = [python, "-c", QUANTIZE, str(folder / "f32.gguf"), str(out), file_type, matrices]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return tensors(out)


def assert_equal(ours: dict[str, tuple[str, bytes]], theirs: dict[str, tuple[str, bytes]]) -> None:
    assert {name: kind for name, (kind, _) in ours.items()} == {name: kind for name, (kind, _) in theirs.items()}
    assert [name for name in ours if ours[name][1] != theirs[name][1]] == []


@pytest.mark.parametrize("level", [name for name in LEVELS if name.startswith("q")])
def test_every_tensor_has_the_type_and_the_bytes_that_llama_cpp_gives_it(source, level, reference_python):
    checkpoint, folder = source
    write_gguf(checkpoint, get_level(level), folder / "ours.gguf")
    assert_equal(tensors(folder / "ours.gguf"), quantize_by_llama_cpp(reference_python, folder, level))


@pytest.mark.parametrize("level", ["q4_0", "q5_0", "q4_K_M", "q2_K"])
def test_with_an_importance_matrix_too(source, level, reference_python):
    checkpoint, folder = source
    generator = np.random.default_rng(0)
    drawn = {
        name: (generator.random(tensor.shape[-1]).astype(np.float32) * 64, 64)
        for name, tensor in ((plan.name, plan.source) for plan in plans(checkpoint))
    }
    write_imatrix(folder / "imatrix.gguf", drawn, 64)
    matrices = read_imatrix(folder / "imatrix.gguf")
    np.savez(folder / "imatrix.npz", **matrices)
    write_gguf(checkpoint, get_level(level), folder / "ours.gguf", imatrix=matrices)
    theirs = quantize_by_llama_cpp(reference_python, folder, level, str(folder / "imatrix.npz"))
    assert_equal(tensors(folder / "ours.gguf"), theirs)


def plans(checkpoint):
    from alignment.export.gguf_file import plan_tensors

    every = plan_tensors(checkpoint, get_level("f32"))
    return [plan for plan in every if plan.name.startswith("blk.") and len(plan.source.shape) == 2]
