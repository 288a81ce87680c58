"""Uploads to the hub: only on request, nothing that failed its gate, nothing public by default."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from alignment.export.export_settings import Push
from alignment.export.publish import DOCUMENTS, publish, upload_patterns

PASSED = [{"target": "q8_0", "passed": True, "files": ["tiny-q8_0.gguf"]}]


@pytest.fixture
def hub(monkeypatch):
    calls = []

    class Api:
        private = True

        def create_repo(self, repository, private, exist_ok):
            calls.append(("create", repository, private))

        def repo_info(self, repository):
            return SimpleNamespace(private=Api.private)

        def upload_folder(self, repo_id, folder_path, allow_patterns):
            calls.append(("upload", repo_id, allow_patterns))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return SimpleNamespace(calls=calls, api=Api)


PRIVATE = Push(repository="a/b", visibility="private")


@pytest.mark.parametrize(
    "push",
    [
        "private",
        {"repository": "a/b"},
        {"repository": "a/b", "visibility": "privat"},
        {"repository": "a/b", "visibility": "private", "extra": 1},
        {"repository": "b", "visibility": "private"},
    ],
)
def test_incomplete_or_unknown_settings_of_a_push_are_an_error(push):
    with pytest.raises(ValueError, match="validation error for Push"):
        Push.model_validate(push)


def test_a_private_push_creates_a_private_repository_and_uploads_the_files_of_the_rows(hub, tmp_path):
    (tmp_path / "tiny-ollama-q8_0").mkdir()
    folder = {"target": "ollama:q8_0", "passed": True, "files": [str(tmp_path / "tiny-ollama-q8_0")]}
    publish(tmp_path, [*PASSED, folder], PRIVATE)
    assert hub.calls[0] == ("create", "a/b", True)
    assert hub.calls[1] == ("upload", "a/b", [*DOCUMENTS, "tiny-q8_0.gguf", "tiny-ollama-q8_0/*"])


def test_other_files_of_the_folder_are_not_uploaded(tmp_path):
    from huggingface_hub.utils import filter_repo_objects

    (tmp_path / "made").mkdir()
    rows = [*PASSED, {"target": "vllm", "passed": True, "files": [str(tmp_path / "made")]}]
    present = [
        "README.md",
        "tiny-q8_0.gguf",
        "made/config.json",
        "broken-tiny-q2_K.gguf",
        ".env",
        "benchmark/a/b.jsonl",
    ]
    assert list(filter_repo_objects(present, allow_patterns=upload_patterns(rows))) == present[:3]


def test_a_private_push_into_a_public_repository_is_refused(hub, tmp_path):
    hub.api.private = False
    with pytest.raises(ValueError, match="is public"):
        publish(tmp_path, PASSED, PRIVATE)
    assert [call[0] for call in hub.calls] == ["create"]


def test_what_failed_its_gate_is_never_pushed(hub, tmp_path):
    with pytest.raises(ValueError, match="q2_K missed the limits"):
        publish(tmp_path, [*PASSED, {"target": "q2_K", "passed": False}], PRIVATE)
    assert hub.calls == []
