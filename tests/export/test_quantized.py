"""GPTQ and AWQ by their real engines, and errors that are found before an engine starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from export_models import GATE, make_model, training_text

from alignment.export import CalibrationRows, ExportOptions, engine_environment, export
from alignment.export.checkpoint import open_checkpoint
from alignment.export.export_settings import Comparison, Quantize
from alignment.export.export_targets import parse_targets
from alignment.export.quantized import calibration_samples, quantize_folder
from alignment.rows.row_texts import ModelText

ROWS = [{"text": training_text()[:3000]}, {"text": training_text()[3000:6000]}]


def ready(engine: str) -> None:
    """Make the engine's environment, or skip the test with the reason why that is not possible."""
    try:
        engine_environment.engine_python(engine)
    except ValueError as error:
        pytest.skip(str(error))


def export_quantized(trained, held_out, out, targets, **settings):
    options = ExportOptions(
        calibration=CalibrationRows(ROWS, tokens=1024, sequence_length=128),
        held_out=held_out,
        comparison=Comparison(**GATE),
        quantize=Quantize(**settings, device="cpu"),
        name="tiny",
    )
    return export(trained, targets, out, options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "settings", "bits", "symmetric"),
    [
        ("gptq-int4", {"act_order": "none"}, 4, True),
        ("gptq-int8", {"group_size": 64}, 8, True),
        ("awq-int4", {}, 4, False),
    ],
)
def test_a_quantized_folder_loads_in_transformers_and_passes_its_gate(
    trained, held_out, tmp_path, target, settings, bits, symmetric
):
    ready("llm-compressor")
    (row,) = export_quantized(trained, held_out, tmp_path, [target], **settings)
    assert row["reasons"] == []
    assert row["top1_agreement"] > 90
    assert row["calibration"]["rows"] == {"fim": 1, "plain": 1}
    assert 512 < row["calibration"]["tokens"] <= 1024
    folder = Path(row["file"])
    written = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert written["quant_method"] == "compressed-tensors"
    weights = written["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["symmetric"]) == (bits, symmetric)
    assert weights["group_size"] == settings.get("group_size", 128)
    assert weights["actorder"] == {"gptq-int4": None, "gptq-int8": "static", "awq-int4": None}[target]
    assert row["size_bytes"] < 0.7 * sum(file.stat().st_size for file in trained.glob("*.safetensors"))
    assert "vllm serve . --served-model-name tiny" in (folder / "serve.sh").read_text()
    assert f"{target}: 1 fim, 1 plain rows" in (tmp_path / "README.md").read_text()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("target", "settings", "method"),
    [("gptq-int4", {"act_order": "group"}, "gptq"), ("gptq-int8", {"group_size": 64}, "gptq"), ("awq-int4", {}, "awq")],
)
def test_gptqmodel_writes_the_older_layouts_and_nothing_beside(
    trained, held_out, tmp_path, monkeypatch, target, settings, method
):
    ready("gptqmodel")
    monkeypatch.chdir(tmp_path)
    (row,) = export_quantized(trained, held_out, Path("out"), [target], engine="gptqmodel", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert row["reasons"] == []
    written = json.loads((Path(row["file"]) / "config.json").read_text())["quantization_config"]
    assert written["quant_method"] == method
    assert written["bits"] == int(target[-1])
    assert written["group_size"] == settings.get("group_size", 128)


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["gptq-int4", "awq-int4"])
def test_the_half_billion_shape_is_quantized_and_measured(half_billion, large_folder, target):
    ready("llm-compressor")
    # Random weights give logits without a clear maximum, so this only checks that the folder loads and is measured.
    options = ExportOptions(
        comparison=Comparison(context=32, positions=31, greedy_prompts=1, greedy_tokens=2),
        calibration=CalibrationRows(ROWS, tokens=128, sequence_length=64),
        quantize=Quantize(device="cpu"),
        name="half",
    )
    (row,) = export(half_billion, [target], large_folder, options)
    print(row)
    assert row["tokenization_equal"] and row["perplexity"] > 1
    assert row["bits_per_weight"] < 8


@pytest.mark.slow
def test_an_engine_that_fails_leaves_nothing_and_says_why(trained, tmp_path):
    ready("llm-compressor")
    (target,) = parse_targets(["gptq-int4"])
    with pytest.raises(ValueError, match="no calibration row has 16 tokens or more"):
        quantize_folder(
            open_checkpoint(trained),
            target,
            tmp_path / "out",
            [ModelText("x", "plain")],
            Quantize(),
            tokens=1024,
            sequence_length=128,
        )
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_an_environment_that_cannot_be_made_has_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    missing = engine_environment.EngineEnvironment("llm-compressor", ("no-such-package-anywhere==1.0",), resolve=True)
    monkeypatch.setitem(engine_environment.ENGINES, "llm-compressor", missing)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        ValueError, match=r"no-such-package.*python -m alignment\.export\.engine_environment llm-compressor"
    ):
        engine_environment.engine_python("llm-compressor")
    assert not engine_environment.is_ready("llm-compressor")
    assert not engine_environment.environment_folder("llm-compressor").exists()


def test_an_environment_sees_the_packages_of_the_running_one_after_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    empty = engine_environment.EngineEnvironment("llm-compressor", ("numpy",), resolve=True)
    monkeypatch.setitem(engine_environment.ENGINES, "llm-compressor", empty)
    python = engine_environment.engine_python("llm-compressor")
    assert engine_environment.engine_python("llm-compressor") == python
    code = "import sys, numpy, safetensors; print(sys.prefix)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(engine_environment.environment_folder("llm-compressor"))
    assert done.stdout.strip() != sys.prefix

    # An installed toolkit is among the training stack's packages, and jobs have its folder in PYTHONPATH.
    (tmp_path / "twice.py").write_text("where = 'PYTHONPATH'")
    own = next(engine_environment.environment_folder("llm-compressor").glob("lib/python*/site-packages"))
    (own / "twice.py").write_text("where = 'own'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [python, "-c", "import twice; print(twice.where)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "own"


class Letters:
    """A tokenizer with one id per byte."""

    def encode(self, text, add_special_tokens):
        return list(text.encode())


def test_calibration_samples_stay_within_the_token_limit():
    texts = [("a" * 70, "plain"), ("b" * 10, "plain"), ("c" * 64, "chat"), ("d" * 64, "chat")]
    samples, used = calibration_samples(Letters(), texts, 32, 80)
    assert [len(sample) for sample in samples] == [32, 32]
    assert used == {"rows": {"plain": 1, "chat": 1}, "samples": 2, "tokens": 64}


def test_a_long_calibration_row_does_not_displace_others():
    texts = [("a" * 640, "plain"), ("b" * 32, "chat"), ("c" * 32, "fim")]
    samples, used = calibration_samples(Letters(), texts, 32, 128)
    assert [chr(sample[0]) for sample in samples] == ["a", "b", "c", "a"]
    assert used == {"rows": {"plain": 1, "chat": 1, "fim": 1}, "samples": 4, "tokens": 128}


def test_rows_that_do_not_divide_into_groups_are_refused_before_the_engine_starts(tmp_path):
    model = make_model(tmp_path / "model", hidden_size=224, head_dim=64, intermediate_size=256)
    (target,) = parse_targets(["gptq-int4"])
    with pytest.raises(ValueError, match="rows of 224 weights can't be divided into groups of 128"):
        quantize_folder(
            open_checkpoint(model),
            target,
            tmp_path / "out",
            [ModelText("x", "plain")],
            Quantize(),
            tokens=1024,
            sequence_length=128,
        )


@pytest.mark.parametrize("settings", [{"group": 128}, {"group_size": 100}, {"act_order": True}, {"engine": "autoawq"}])
def test_quantize_settings_that_do_not_exist_are_refused(settings):
    with pytest.raises(ValueError, match="validation error for Quantize"):
        Quantize.model_validate(settings)


def test_calibrated_targets_need_rows(trained, tmp_path):
    with pytest.raises(ValueError, match="set `calibration`"):
        export(trained, ["awq-int4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
