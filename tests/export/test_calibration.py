"""Calibration rows and importance matrices."""

import numpy as np
import pytest
from export_models import GATE, training_text

from alignment.export import CalibrationRows, ExportOptions, export
from alignment.export.export_settings import Comparison
from alignment.export.imatrix import read_imatrix
from alignment.export.texts import HARD_CORPUS, calibration_texts, excerpts, read_rows
from alignment.models import formats
from alignment.rows import reading


def test_rows_become_texts_in_the_formats_of_training():
    rows = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        {"text": "x = 1\n"},
        {"text": "def f():\n    return 1\n"},
        {"prefix": "a", "middle": "b", "suffix": "c"},
        {"repository": "a/b", "files": [{"path": "x.py", "text": "x = 1\n"}]},
    ]
    calibration = calibration_texts(rows)
    texts = [entry.text for entry in calibration]
    assert [entry.form for entry in calibration] == ["chat", "plain", "fim", "fim", "repository"]
    assert texts[0] == formats.chat(rows[0]["messages"])
    assert texts[1] == rows[1]["text"]
    assert texts[2].startswith(formats.FIM_PREFIX) and texts[2].endswith(formats.ENDOFTEXT)
    assert texts[3] == formats.fim_document("a", "b", "c")
    assert texts[4] == formats.repo_document("a/b", [("x.py", "x = 1\n")])
    assert calibration_texts(rows) == calibration


@pytest.mark.parametrize(("share", "forms"), [(0.0, {"plain"}), (1.0, {"fim"})])
def test_the_share_of_fill_in_the_middle_is_as_set(share, forms):
    assert {entry.form for entry in calibration_texts([{"text": "x = 1\n"}] * 5, fim=share)} == forms


def test_rows_are_read_from_jsonl_with_the_line_of_an_error(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not JSON"):
        read_rows(file)


def test_a_datasets_list_of_removed_files_is_not_read_as_rows(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part.jsonl").write_text('{"text": "x = 1"}\n')
    (tmp_path / "removed.jsonl").write_text('{"path": "y.py", "reason": "generated"}\n')
    assert read_rows(tmp_path) == [{"text": "x = 1"}]
    assert reading.read_rows(tmp_path) == [{"text": "x = 1"}]


def test_the_hard_corpus_is_in_normal_form():
    import unicodedata

    assert [text for text in HARD_CORPUS if unicodedata.normalize("NFC", text) != text] == []


@pytest.mark.slow
def test_an_importance_matrix_has_the_mean_squared_inputs_and_helps_low_levels(trained, held_out, exported, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = ExportOptions(
        name="tiny",
        held_out=held_out,
        comparison=Comparison(**GATE),
        calibration=CalibrationRows([{"text": training_text()[:6000]}], tokens=256),
        make_imatrix=True,
    )
    (row,) = export(trained, ["q2_K"], tmp_path, options)
    assert row["imatrix"] and row["passed"]
    assert row["calibration"] == {"rows": {"plain": 1}, "samples": 3, "tokens": 384}
    without = next(other for other in exported if other["level"] == "q2_K")
    assert row["tensor_types"] == without["tensor_types"]
    assert row["kl_divergence"] < without["kl_divergence"]

    means = read_imatrix(tmp_path / "tiny-imatrix.gguf")
    assert len(means) == 14
    ids = AutoTokenizer.from_pretrained(trained).encode(training_text()[:6000])
    seen = []
    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    windows = -(-256 // 127)
    with torch.inference_mode():
        model(torch.tensor(ids[: windows * 128]).view(windows, 128))
    expected = seen[0].flatten(0, 1).square().mean(0).numpy()
    assert np.allclose(means["blk.1.ffn_down.weight"], expected, rtol=1e-3)


def test_the_comparison_reads_code_of_many_files_from_random_lines():
    texts = [f"# license of {n}\n" + "".join(f"value_{n}_{line} = {line}\n" for line in range(400)) for n in range(50)]
    parts = excerpts(texts, 800, seed=1)
    first = parts[:50]
    assert all(len(part) <= 800 and part.startswith(("value_", "# license")) for part in first)
    assert sum(part.startswith("# license") for part in first) < 10 and "value_0_" not in first[0]
    assert sorted("".join(parts)) == sorted("".join(texts)), "nothing is lost or repeated"
    assert excerpts(texts, 800, seed=1) == parts != excerpts(texts, 800, seed=2)
    assert excerpts(texts[:1], 800) == texts[:1] and excerpts([], 800) == []
