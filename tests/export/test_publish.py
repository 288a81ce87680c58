"""Nothing is sent unless asked, nothing broken ever, nothing public by accident."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from alignment.export.export_settings import Push, read_settings
from alignment.export.publish import _patterns, publish

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
def test_a_push_that_is_not_fully_said_is_an_error(push):
    with pytest.raises(ValueError, match="push"):
        read_settings(Push, "push", push)


def test_a_private_push_makes_a_private_repository_and_sends_what_the_rows_made(hub, tmp_path):
    (tmp_path / "tiny-ollama-q8_0").mkdir()
    folder = {"target": "ollama:q8_0", "passed": True, "files": [str(tmp_path / "tiny-ollama-q8_0")]}
    publish(tmp_path, [*PASSED, folder], PRIVATE)
    assert hub.calls[0] == ("create", "a/b", True)
    assert hub.calls[1] == ("upload", "a/b", ["README.md", "tiny-q8_0.gguf", "tiny-ollama-q8_0/*"])


def test_what_else_lies_in_the_folder_stays_here(tmp_path):
    from huggingface_hub.utils import filter_repo_objects

    (tmp_path / "made").mkdir()
    rows = [*PASSED, {"target": "vllm", "passed": True, "files": [str(tmp_path / "made")]}]
    lying = ["README.md", "tiny-q8_0.gguf", "made/config.json", "broken-tiny-q2_K.gguf", ".env", "benchmark/a/b.jsonl"]
    assert list(filter_repo_objects(lying, allow_patterns=_patterns(rows))) == lying[:3]


def test_a_private_push_into_a_public_repository_is_refused(hub, tmp_path):
    hub.api.private = False
    with pytest.raises(ValueError, match="is public"):
        publish(tmp_path, PASSED, PRIVATE)
    assert [call[0] for call in hub.calls] == ["create"]


def test_what_failed_its_gate_is_never_pushed(hub, tmp_path):
    with pytest.raises(ValueError, match="q2_K failed the gate"):
        publish(tmp_path, [*PASSED, {"target": "q2_K", "passed": False}], PRIVATE)
    assert hub.calls == []
