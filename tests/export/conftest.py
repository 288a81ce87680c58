"""Fixtures of the export tests: tiny Qwen2 models, and what is made from them."""

import shutil
from pathlib import Path

import pytest
from export_models import GATE, HALF_BILLION, make_model, make_random_model, training_text
from llama_cpp_reference import reference_source

pytest.importorskip("gguf", reason="needs the extra [gguf]")
pytest.importorskip("xllamacpp", reason="needs the extra [gguf]")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A tied model, trained until it predicts its training code far better than chance."""
    return make_model(tmp_path_factory.mktemp("trained") / "tiny-coder", steps=100)


@pytest.fixture(scope="session")
def held_out() -> list[dict]:
    """Code that the model has learned. There, its most likely tokens have clear margins."""
    return [{"text": training_text()[:6000]}]


@pytest.fixture(scope="session")
def exported(trained, held_out, tmp_path_factory) -> list[dict]:
    """The result rows of exporting the trained model at every GGUF level."""
    from alignment.export import ExportOptions, export
    from alignment.export.export_settings import Comparison
    from alignment.export.levels import LEVELS

    out = tmp_path_factory.mktemp("exported")
    options = ExportOptions(
        held_out=held_out,
        comparison=Comparison(**GATE),
        name="tiny",
        license="apache-2.0",
        base_model="Qwen/Qwen2.5-Coder-0.5B",
        provenance={"recipe": "tests"},
    )
    return export(trained, list(LEVELS), out, options)


@pytest.fixture(scope="session")
def untied(tmp_path_factory) -> Path:
    """An untied model with random weights, in float32."""
    return make_model(tmp_path_factory.mktemp("untied") / "tiny-untied", tied=False, dtype="float32")


@pytest.fixture(scope="session")
def llama_cpp_source() -> Path:
    """Source tree with llama.cpp's converter and test vectors: LLAMA_CPP_SOURCE, or downloaded once by pip."""
    try:
        return reference_source()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def half_billion(data_dir, tmp_path_factory) -> Path:
    """A model with random weights in the shape of Qwen2.5-Coder-0.5B, with the real tokenizer."""
    folder = tmp_path_factory.mktemp("half") / "half-billion"
    yield make_random_model(folder, HALF_BILLION, data_dir / "qwen2.5-coder-tokenizer")
    shutil.rmtree(folder)


@pytest.fixture
def large_folder(tmp_path) -> Path:
    """A folder for gigabytes, removed after the test."""
    yield tmp_path
    shutil.rmtree(tmp_path)
