"""A tiny Qwen2 model that has learned a little code, shared by the export tests."""

import shutil
from pathlib import Path

import pytest
from export_models import GATE, HALF_BILLION, make_model, make_random_model, training_text
from llama_cpp_reference import reference_source

pytest.importorskip("gguf", reason="needs the extra [gguf]")
pytest.importorskip("xllamacpp", reason="needs the extra [gguf]")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A tied model, trained until it predicts code far better than chance."""
    return make_model(tmp_path_factory.mktemp("trained") / "tiny-coder", steps=100)


@pytest.fixture(scope="session")
def held_out() -> list[dict]:
    """The code that the model has learned: on it, agreement is not a matter of near-ties."""
    return [{"text": training_text()[:6000]}]


@pytest.fixture(scope="session")
def exported(trained, held_out, tmp_path_factory) -> list[dict]:
    """The trained model at every GGUF level, each through the gate."""
    from alignment.export import export
    from alignment.export.levels import LEVELS

    out = tmp_path_factory.mktemp("exported")
    return export(
        trained,
        list(LEVELS),
        out,
        held_out=held_out,
        gate=GATE,
        name="tiny",
        license="apache-2.0",
        base_model="Qwen/Qwen2.5-Coder-0.5B",
        provenance={"recipe": "tests"},
    )


@pytest.fixture(scope="session")
def untied(tmp_path_factory) -> Path:
    """An untied model with random weights, in float32."""
    return make_model(tmp_path_factory.mktemp("untied") / "tiny-untied", tied=False, dtype="float32")


@pytest.fixture(scope="session")
def llama_cpp_source() -> Path:
    """llama.cpp's converter and test vectors, the reference for ours: from LLAMA_CPP_SOURCE, or fetched once by pip."""
    try:
        return reference_source()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def half_billion(data_dir, tmp_path_factory) -> Path:
    """Random weights in the exact shape of Qwen2.5-Coder-0.5B, with the real tokenizer."""
    folder = tmp_path_factory.mktemp("half") / "half-billion"
    yield make_random_model(folder, HALF_BILLION, data_dir / "qwen2.5-coder-tokenizer")
    shutil.rmtree(folder)


@pytest.fixture
def roomy(tmp_path) -> Path:
    """A folder for gigabytes, gone after the test."""
    yield tmp_path
    shutil.rmtree(tmp_path)
