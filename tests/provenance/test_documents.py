"""Card sections, ML-BOM and summary of training content of an export."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from stored_chain import COMMIT, write_chain

from alignment.provenance import mlbom
from alignment.provenance.card_sections import card_sections
from alignment.provenance.lineage import StageArtifact, find_artifacts
from alignment.provenance.model_facts import ModelFacts, collect, publishable
from alignment.provenance.training_content import training_content


@pytest.fixture
def facts(tmp_path: Path) -> ModelFacts:
    write_chain(tmp_path / "runs")
    export = next(item for item in find_artifacts([tmp_path / "runs"]) if item.name == "export")
    return collect(export, "shop-coder", license="Apache-2.0")


def test_the_card_says_what_was_learned_and_what_was_removed(facts):
    card = card_sections(facts)
    assert COMMIT in card and "near_duplicate 7" in card and "PASSWORD 2" in card and "owned 40" in card
    assert "78.3 [66.4, 86.9]" in card and "The first stage started from coder-0.5b." in card


def test_the_documents_have_no_folders_of_this_machine(facts, tmp_path):
    for text in (card_sections(facts), training_content(facts)):
        assert "/models" not in text and str(tmp_path) not in text and "/data/" not in text


def test_settings_are_published_without_folders_and_credentials():
    settings = {
        "data": ["/srv/runs/app/artifacts/corpus-0123456789ab/data", "/srv/private/rows.jsonl"],
        "url": "https://ada:secret@git.firm.example/shop.git", "peft": None,
    }  # fmt: skip
    assert publishable(settings) == {"data": ["corpus/data", "rows.jsonl"], "url": "https://git.firm.example/shop.git"}


def test_the_summary_of_training_content_counts_tokens_and_marks_what_is_unknown(facts):
    summary = training_content(facts)
    assert "1,234 tokens were trained on" in summary and "to be completed by the provider" in summary
    assert f"| shop | {COMMIT} | owned |" in summary


def test_a_model_without_artifacts_has_no_training_data(tmp_path):
    facts = collect(StageArtifact(tmp_path / "runs" / "artifacts" / "model", {}), "some-model")
    assert "No training data is recorded." in card_sections(facts)


@pytest.mark.parametrize("licenses", [["MIT"], ["MIT", "Apache-2.0 OR MIT"], ["owned", "none", ""]])
def test_the_ml_bom_is_valid_and_has_the_hash_of_every_file(facts, tmp_path, licenses):
    pytest.importorskip("cyclonedx", reason="the extra `provenance` is not installed")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    weights = tmp_path / "export" / "gguf" / "shop.gguf"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    facts.datasets[0].licenses.update(dict.fromkeys(licenses, 1))  # type: ignore[attr-defined]
    text = mlbom.ml_bom(facts, tmp_path / "export", [weights], "Qwen2ForCausalLM")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    model = document["metadata"]["component"]
    assert [(file["name"], file["hashes"][0]["content"]) for file in model["components"]] == [
        ("gguf/shop.gguf", hashlib.sha256(b"weights").hexdigest())
    ]
    assert [base["name"] for base in model["pedigree"]["ancestors"]] == ["coder-0.5b"]
    references = {component["bom-ref"] for component in document["components"]}
    assert f"source:shop@{COMMIT}" in references and "package:torch" in references
    assert {entry["ref"] for entry in model["modelCard"]["modelParameters"]["datasets"]} <= references


def test_the_same_export_gets_the_same_serial_number(facts, tmp_path):
    pytest.importorskip("cyclonedx", reason="the extra `provenance` is not installed")
    numbers = {json.loads(mlbom.ml_bom(facts, tmp_path, [], "Qwen2"))["serialNumber"] for _ in range(2)}
    assert len(numbers) == 1
