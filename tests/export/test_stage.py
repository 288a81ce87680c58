"""The export stage and `align export`: their settings reach the export, and errors are found before it starts."""

import importlib.util
import json
import re

import pytest
from export_models import GATE, training_text

from alignment.cli.export_command import export_stage
from alignment.models.source import ModelSource
from alignment.recipe import ExportStage, RecipeError, SandboxSettings
from alignment.recipe.export_checks import check_stage, comparison
from alignment.recipe.stage_request import StageRequest

CALIBRATION = {"data": [{"data": "rows.jsonl"}]}


def stage(**settings) -> ExportStage:
    return ExportStage.model_validate({"name": "export", "kind": "export", "formats": ["q8_0"]} | settings)


@pytest.mark.parametrize(
    ("settings", "place", "message"),
    [
        ({"formats": ["q8_0", "awq-int4"]}, "formats", "awq-int4 needs rows to calibrate on: set `calibration`"),
        ({"formats": ["q9"]}, "formats.0", "there is no export target 'q9'"),
        ({"imatrix": True}, "imatrix", "needs rows: set `calibration`"),
        ({"imatrix": True, "calibration": CALIBRATION, "formats": ["f16"]}, "imatrix", "used only by quantized GGUF"),
        ({"imatrix": True, "calibration": CALIBRATION, "imatrix_file": "a.gguf"}, "imatrix_file", "remove one of them"),
        ({"calibration": CALIBRATION}, "calibration", "used only by GPTQ, AWQ and `imatrix: true`"),
        ({"quantize": {"group_size": 64}}, "quantize", "used only by GPTQ and AWQ"),
        (
            {"formats": ["awq-int4"], "calibration": CALIBRATION, "quantize": {"act_order": "none"}},
            "quantize.act_order",
            "used only by GPTQ",
        ),
        (
            {"formats": ["gptq-int4"], "calibration": CALIBRATION, "quantize": {"act_order": "group"}},
            "quantize.act_order",
            "for `group`, set `engine: gptqmodel`",
        ),
        ({"formats": ["vllm"], "split_bytes": 2_000_000}, "split_bytes", "used only by GGUF"),
        ({"formats": ["ollama:q8_0"], "split_bytes": 2_000_000}, "split_bytes", "Ollama reads a single GGUF file"),
        ({"compare": {"thresholds": {"q4_0": {}}}}, "compare.thresholds.q4_0", "not among this stage's formats"),
        (
            {"compare": {"thresholds": {"q8_0": {"max_pass_at_1_drop": 1.0}}}},
            "compare.thresholds.q8_0.max_pass_at_1_drop",
            "nothing measures pass@1",
        ),
        (
            {
                "compare": {"thresholds": {"q8_0": {"max_perplexity_increase": 1.0}}},
                "max_perplexity_change": {"gguf:q8_0": 2.0},
            },
            "max_perplexity_change.gguf:q8_0",
            "compare.thresholds.q8_0.max_perplexity_increase sets the same limit",
        ),
    ],
)
def test_settings_that_contradict_or_have_no_effect_are_mistakes(settings, place, message):
    mistakes = [(".".join(map(str, path)), text) for path, text in check_stage(stage(**settings))]
    assert [path for path, _ in mistakes] == [place]
    assert message in mistakes[0][1]


def test_a_missing_package_is_found_before_anything_runs(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "xllamacpp" else real(name, *a))
    ((place, message),) = check_stage(stage())
    assert place == ("formats",)
    assert message == "GGUF export needs xllamacpp: pip install 'code-alignment[gguf]'"
    assert list(check_stage(stage(formats=["vllm"]))) == []


def test_limits_apply_to_a_level_under_any_of_its_names():
    export = stage(
        formats=["gguf:q8_0", "ollama:q4_0", "vllm"],
        max_perplexity_change={"q8_0": 0.5},
        compare={"context": 64, "thresholds": {"ollama:q4_0": {"max_kl_divergence": 0.1}, "vllm": {}}},
    )
    assert list(check_stage(export)) == []
    settings = comparison(export)
    assert settings.context == 64
    assert settings.thresholds["q8_0"].max_perplexity_increase == 0.5
    assert settings.thresholds["q4_0"].max_kl_divergence == 0.1


def parse(*words):
    from alignment.cli import parser

    return export_stage(parser().parse_args(["export", "model", *words]))


def test_the_command_line_reaches_every_key_of_the_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export = parse(
        *("--to", "q4_K_M", "awq-int4", "--calibration", "a.jsonl", "b", "--imatrix", "--license", "mit"),
        *("--base-model", "a/b", "--split-bytes", "2000000", "--push", "c/d", "--benchmark", "tasks:rows.jsonl"),
        *("--set", "compare.thresholds.q4_K_M.max_kl_divergence=0.5", "--set", "quantize.group_size=64"),
        *("--held-out", "held.jsonl", "--set", "calibration.tokens=99"),
    )
    assert [str(source.data.path()) for source in export.calibration.data] == [f"{tmp_path}/a.jsonl", f"{tmp_path}/b"]
    assert export.calibration.tokens == 99
    assert (export.imatrix, export.license, export.base_model, export.split_bytes) == (True, "mit", "a/b", 2_000_000)
    assert (export.push.repository, export.push.visibility) == ("c/d", "private")
    assert (export.benchmark.benchmark, str(export.benchmark.data)) == ("tasks", "rows.jsonl")
    assert export.compare.thresholds["q4_K_M"].max_kl_divergence == 0.5
    assert export.quantize.group_size == 64
    assert export.data == "held.jsonl"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "quantise.group_size=64"), "--set: quantise: no such setting. Did you mean 'quantize'?"),
        (("--set", "imatrix"), "--set: imatrix: write it as key.of.setting=value"),
        (("--set", "compare.context=many"), "--set: compare.context: must be a whole number, not 'many'"),
        (("--set", "compare.thresholds.q4_K_M.max_kl_divergence=0.1"), "'q4_K_M' is not among this stage's formats"),
        (("--imatrix",), "--imatrix: imatrix: an importance matrix needs rows: set `calibration`"),
        (("--split-bytes", "3"), "--split-bytes: split_bytes: must be greater than or equal to 1000000, not 3"),
    ],
)
def test_the_command_line_is_checked_like_a_recipe(words, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        parse("--to", "q8_0", *words)


@pytest.mark.parametrize(
    ("format", "key"),
    [
        ("q4_K_M", "q4_K_M"),
        ("gptq-int4", "gptq-int4"),
        ("ollama:q4_K_M", "ollama:q4_K_M"),
        ("llama.cpp:q8_0", '"llama.cpp:q8_0"'),
        ("llama.cpp:q8_0", "'llama.cpp:q8_0'"),
    ],
)
def test_the_command_line_sets_the_limits_of_every_format(format, key):
    words = ("--to", format, *(("--calibration", "rows.jsonl") if format.startswith("gptq") else ()))
    made = parse(*words, "--set", f"compare.thresholds.{key}.max_kl_divergence=1e-3")
    assert made.compare.thresholds[format].max_kl_divergence == 0.001


def request(trained, out, **settings):
    return StageRequest.for_stage(
        stage(**settings).model_dump(mode="json"),
        out,
        ModelSource(path=str(trained)),
        seed=1,
        model_stage="sft",
        sandbox=SandboxSettings(workers=1),
        recipe="tiny",
    )


@pytest.mark.slow
def test_a_stage_exports_for_every_runtime_with_the_data_of_the_recipe(trained, tmp_path, grader):
    """From recipe keys to artifact: imatrix, folders, licence, pass@1 of the original and of every export."""
    from alignment.stages.export import run

    text = training_text()
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"text": text[:3000]}) + "\n" + json.dumps({"text": text[3000:6000]})
    )
    task = {"id": "a", "prompt": "def f", "language": "python", "kind": "calls", "entry_point": "f", "source": "t"}
    task |= {"split": "heldout", "tests": json.dumps({"cases": [{"args": [], "expected": 1}]})}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    result = run(
        request(
            trained,
            tmp_path / "out",
            formats=["q4_K_M", "llama.cpp:q4_K_M", "vllm"],
            data=str(tmp_path / "rows.jsonl"),
            compare=GATE,
            calibration={"data": [{"data": str(tmp_path / "rows.jsonl")}], "tokens": 512},
            imatrix=True,
            license="apache-2.0",
            base_model="Qwen/Qwen2.5-Coder-0.5B",
            benchmark={"name": "own", "benchmark": "tasks", "data": str(tmp_path / "tasks.jsonl"), "max_new_tokens": 8},
        )
    )
    assert [row["target"] for row in result["exports"]] == ["q4_K_M", "llama.cpp:q4_K_M", "vllm"]
    for row in result["exports"]:
        assert row["passed"] and row["top1_agreement"] > 85 and row["tokens_per_second"] > 0
        assert row["pass_at_1"] == row["original_pass_at_1"] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: apache-2.0\nbase_model: Qwen/Qwen2.5-Coder-0.5B\n" in card
    assert "| pass@1 (%) | Tokens/s |" in card
    assert "Calibration data:\n\n- q4_K_M, llama.cpp:q4_K_M: " in card
    assert "llama-server --model tiny-q4_K_M.gguf" in (tmp_path / "out/tiny-llama.cpp-q4_K_M/serve.sh").read_text()
    assert json.loads((tmp_path / "out" / "export.json").read_text())[0]["imatrix"]


@pytest.mark.slow
def test_a_stage_whose_export_fails_its_gate_fails_and_keeps_the_file(trained, tmp_path):
    from alignment.stages.export import run

    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": training_text()[:6000]}))
    failing = request(
        trained,
        tmp_path / "out",
        formats=["q2_K"],
        data=str(tmp_path / "rows.jsonl"),
        compare=GATE | {"thresholds": {"q2_K": {"max_kl_divergence": 0.0}}},
    )
    with pytest.raises(ValueError, match="q2_K differ too much from the original"):
        run(failing)
    assert [file.name for file in (tmp_path / "out").glob("*.gguf")] == ["broken-tiny-q2_K.gguf"]
