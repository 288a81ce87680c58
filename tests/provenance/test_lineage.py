"""What an artifact was made of, and which artifacts contain a repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from stored_chain import COMMIT, HEAD, write_chain

from alignment.cli import main
from alignment.provenance.input_files import describe_files, parse_sources
from alignment.provenance.lineage import StageArtifact, find_artifacts, trace


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_chain(tmp_path / "runs")
    return tmp_path / "runs"


def lineage_of(runs: Path, stage: str):
    return trace(next(artifact for artifact in find_artifacts([runs]) if artifact.name == stage))


def test_a_model_learned_from_its_corpus_and_was_screened_against_the_benchmark(runs):
    origins = {(origin.name, origin.head): origin.role for origin in lineage_of(runs, "pretrain").repositories()}
    assert origins == {("shop", ""): "learned", ("shop", HEAD): "screened", ("lib", ""): "screened"}


def test_a_file_of_the_data_is_learned(runs):
    file = next((runs / "artifacts").glob("pretrain-*/artifact.json"))
    content = json.loads(file.read_text())
    content["settings"]["data"].append({"data": "/data/lib.jsonl"})
    file.write_text(json.dumps(content))
    roles = {origin.name: origin.role for origin in lineage_of(runs, "pretrain").repositories() if not origin.head}
    assert roles == {"shop": "learned", "lib": "learned"}
    assert [(item.path, item.role) for item in lineage_of(runs, "export").files()] == [("/data/lib.jsonl", "learned")]


def test_an_evaluation_contains_nothing_of_its_benchmark(runs):
    assert [origin.role for origin in lineage_of(runs, "evaluate-base").repositories()] == ["measured"]


def test_an_export_descends_from_the_base_model_and_learned_what_its_model_learned(runs):
    lineage = lineage_of(runs, "export")
    assert [item.name for item in lineage.learned()] == ["corpus", "pretrain", "export"]
    assert [base["path"] for base in lineage.base_models()] == ["/models/coder-0.5b"]


def test_a_removed_artifact_is_named(runs):
    shutil.rmtree(next((runs / "artifacts").glob("corpus-*")))
    assert [name.partition("-")[0] for name in lineage_of(runs, "export").missing()] == ["corpus"]


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        (["--source", "shop"], {"benchmark", "corpus", "evaluate-base", "pretrain", "export"}),
        (["--source", "sh*", "--commit", HEAD[:6]], {"benchmark", "evaluate-base", "pretrain", "export"}),
        (["--source", "lib"], {"pretrain", "export"}),
        (["--commit", "dddd"], set()),
    ],
)
def test_the_command_finds_the_artifacts_that_contain_a_repository(runs, capsys, arguments, stages):
    assert main(["lineage", str(runs), *arguments, "--json"]) == 0
    assert {row["stage"] for row in json.loads(capsys.readouterr().out)} == stages


def test_without_a_match_the_command_names_what_the_artifacts_contain(runs, capsys):
    assert main(["lineage", str(runs), "--source", "other"]) == 0
    printed = capsys.readouterr().out
    assert "none of 5 artifacts contains other" in printed and f"shop {COMMIT[:12]}" in printed


def test_one_artifact_is_described(runs, capsys):
    assert main(["lineage", str(next((runs / "artifacts").glob("pretrain-*")))]) == 0
    printed = capsys.readouterr().out
    assert "base model: /models/coder-0.5b, sha256 dddddddddddd" in printed
    assert f"shop {COMMIT[:12]}, owned" in printed


def test_a_folder_without_artifacts_is_a_mistake(tmp_path, capsys):
    assert main(["lineage", str(tmp_path)]) == 1 and "has no finished stage" in capsys.readouterr().err
    assert main(["lineage", str(tmp_path / "none")]) == 1 and "there is no folder" in capsys.readouterr().err
    assert main(["lineage", str(tmp_path), "--commit", "ab"]) == 1
    assert "at least 4 characters" in capsys.readouterr().err


def test_artifacts_of_version_0_1_name_their_repositories_in_the_summary(tmp_path):
    content = {"summary": {"sources": [f"shop {COMMIT}", "notes folder"]}}
    assert StageArtifact(tmp_path, content).repositories() == [
        {"name": "shop", "commit": COMMIT}, {"name": "notes", "commit": ""},
    ]  # fmt: skip
    assert parse_sources([f"Code corpus, sha256 {'1' * 64} (shop {COMMIT}; lib folder)"]) == [
        {"name": "shop", "commit": COMMIT}, {"name": "lib", "commit": ""},
    ]  # fmt: skip


def test_files_outside_of_the_chain_keep_title_and_sources_of_their_report(tmp_path):
    (tmp_path / "report.json").write_text(
        json.dumps({"title": "Code corpus", "licenses": {"MIT": 2}, "sources": [f"shop {COMMIT}"]})
    )
    (entry, hub) = describe_files({str(tmp_path): "1" * 64, "owner/data": "hub"})
    assert entry["sources"] == [{"name": "shop", "commit": COMMIT}] and entry["licenses"] == {"MIT": 2}
    assert hub == {"hub": "owner/data"}
