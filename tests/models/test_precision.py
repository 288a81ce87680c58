"""`dtype: auto`: bfloat16 where the hardware multiplies it."""

import pytest

from alignment.models import precision
from alignment.models.precision import Precision, bfloat16_feature, resolve_dtype


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        ("flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n", "AMX"),
        ("flags\t\t: fpu avx512f avx512_bf16\n", "AVX512-BF16"),
        ("Features\t: fp asimd bf16\n", "BF16 of Armv8.6"),
        ("flags\t\t: fpu avx2 avx512f\nmodel name: bf16 amx_bf16\n", None),
        ("", None),
    ],
)
def test_the_instruction_set_is_read_from_the_flags_alone(tmp_path, text, feature):
    (tmp_path / "cpuinfo").write_text(text)
    assert bfloat16_feature(tmp_path / "cpuinfo") == feature


def test_without_cpuinfo_no_instruction_set_is_assumed(tmp_path):
    assert bfloat16_feature(tmp_path / "none") is None


def test_auto_takes_the_fastest_format_and_says_why(monkeypatch):
    assert resolve_dtype("auto", "cuda").dtype == "bfloat16"
    assert resolve_dtype("float32", "cuda") == Precision("float32", "as set")
    monkeypatch.setattr(precision, "bfloat16_feature", lambda: None)
    assert str(resolve_dtype("auto", "cpu")) == "float32 (this CPU has no bfloat16 instructions)"
    monkeypatch.setattr(precision, "bfloat16_feature", lambda: "AMX")
    assert str(resolve_dtype("auto", "cpu")) == "bfloat16 (this CPU has AMX)"


@pytest.mark.parametrize(
    ("adapter", "master_weights", "expected"),
    [(True, False, ("bfloat16", False)), (False, False, ("float32", True)), (False, True, ("bfloat16", True))],
)
def test_auto_keeps_float32_weights_where_all_of_them_are_trained(monkeypatch, adapter, master_weights, expected):
    monkeypatch.setattr(precision, "bfloat16_feature", lambda: "AMX")
    chosen = precision.resolve_training("auto", "cpu", adapter=adapter, master_weights=master_weights)
    assert (chosen.weights, chosen.autocast) == expected
    monkeypatch.setattr(precision, "bfloat16_feature", lambda: None)
    chosen = precision.resolve_training("auto", "cpu", adapter=adapter, master_weights=master_weights)
    assert (chosen.weights, chosen.autocast) == ("float32", False)
