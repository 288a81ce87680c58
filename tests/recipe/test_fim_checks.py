"""Fill-in-the-middle settings that tear samples apart are refused or warned about."""

import json

import pytest

from alignment.cli import main

FIM = "fim: {level: document, rate: 0.5, spans: lines}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            FIM,
            "fim: {window: 512}",
            "stages.pretrain.fim.window: a sample of 512 tokens does not fit into a row of 256",
        ),
        (FIM, "fim: {spans: lines}", "`spans` is for `level: document`"),
        (
            f"{FIM}\n    train:",
            "fim: {rate: 0.5}\n    train:\n      packing_strategy: bfd_split",
            "stages.pretrain.train.packing_strategy: `bfd_split` splits samples",
        ),
    ],
)
def test_settings_that_split_samples_or_have_no_effect_are_mistakes(mistakes, old, new, expected):
    assert any(expected in mistake for mistake in mistakes((old, new)))


@pytest.mark.parametrize(("level", "warned"), [("document", True), ("context", False)])
def test_check_warns_about_documents_that_do_not_fit_a_row(level, warned, write, small, tmp_path, capsys):
    rows = [{"text": "x = 1\n" * count} for count in (5, 5, 500)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = small.replace(FIM, f"fim: {{level: {level}}}").replace(
        "- {data: data/long.jsonl, share: 0.5}", f"- {{data: {tmp_path}/own.jsonl, share: 0.5}}"
    )
    path = str(write(recipe=recipe))
    assert main(["check", "--fast", path]) == 0
    printed = capsys.readouterr().out
    assert ("about 1 of the first 3 documents" in printed) is warned
    assert main(["check", "--fast", "--json", path]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("of the first 3 documents" in warning for warning in warnings) is warned
