"""GPTQ and AWQ by their real engine, and what is refused before it starts."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
from export_models import GATE, make_model, training_text

from alignment.export import export
from alignment.export.checkpoint import open_checkpoint
from alignment.export.quantized import check_settings, make
from alignment.export.targets import parse_targets


@pytest.fixture(scope="module")
def environment() -> str:
    """The engine's own environment, or nothing where the running one has it."""
    folder = os.environ.get("ALIGN_QUANT_ENVIRONMENT", "")
    if not folder and importlib.util.find_spec("gptqmodel") is None:
        pytest.skip("needs the extra [quant], or ALIGN_QUANT_ENVIRONMENT with a folder to make its environment in")
    return folder


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("target", "settings", "method"),
    [
        ("gptq-int4", {"act_order": True}, "gptq"),
        ("gptq-int8", {"group_size": 64}, "gptq"),
        ("awq-int4", {}, "awq"),
    ],
)
def test_a_quantized_folder_loads_in_transformers_and_passes_its_gate(
    trained, held_out, environment, tmp_path, target, settings, method
):
    (row,) = export(
        trained,
        [target],
        tmp_path,
        calibration=[{"text": training_text()[:6000]}],
        held_out=held_out,
        gate=GATE,
        quantize=settings | {"environment": environment, "device": "cpu", "sequence_length": 128},
        calibration_tokens=1024,
        name="tiny",
    )
    assert row["reasons"] == []
    folder = Path(row["file"])
    written = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert written["quant_method"] == method
    assert written["bits"] == int(target[-1])
    assert written["group_size"] == settings.get("group_size", 128)
    assert "vllm serve . --served-model-name tiny" in (folder / "serve.sh").read_text()
    assert "1 plain rows" in (tmp_path / "README.md").read_text()


def test_rows_that_do_not_divide_into_groups_are_refused_before_the_engine_starts(tmp_path):
    model = make_model(tmp_path / "model", hidden_size=224, head_dim=64, intermediate_size=256)
    (target,) = parse_targets(["gptq-int4"])
    with pytest.raises(ValueError, match="rows of 224 weights do not divide into groups of 128"):
        make(open_checkpoint(model), target, tmp_path / "out", ["x"], 10, check_settings({}))


@pytest.mark.parametrize("settings", [{"group": 128}, {"group_size": 100}])
def test_quantize_settings_that_do_not_exist_are_refused(settings):
    with pytest.raises(ValueError, match="quantize"):
        check_settings(settings)


def test_calibrated_targets_need_rows(trained, tmp_path):
    with pytest.raises(ValueError, match="set `calibration`"):
        export(trained, ["awq-int4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
