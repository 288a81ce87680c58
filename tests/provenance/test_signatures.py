"""Signatures of model folders, made and verified without a network."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from alignment.cli import main

pytest.importorskip("model_signing", reason="the extra `provenance` is not installed")


def make_key(folder: Path, name: str) -> Path:
    key = folder / f"{name}.pem"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
    subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", key.with_suffix(".pub")], check=True)
    return key


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("key", "other"):
        make_key(folder, name)
    return folder


@pytest.fixture
def model(tmp_path: Path, keys: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    assert main(["sign", str(folder), "--key", str(keys / "key.pem")]) == 0
    return folder


def verify(model: Path, key: Path) -> int:
    return main(["verify", str(model), "--key", str(key)])


def test_an_unchanged_folder_matches(model, keys, capsys):
    assert verify(model, keys / "key.pub") == 0
    assert "2 files match the signature" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_changed_folder_does_not_match(model, keys, capsys, change):
    if change == "changed":
        (model / "model.safetensors").write_bytes(b"other weights")
    elif change == "added":
        (model / "added.py").write_text("import os")
    else:
        (model / "config.json").unlink()
    assert verify(model, keys / "key.pub") == 1
    assert "does not match the signature" in capsys.readouterr().err


def test_another_key_does_not_match(model, keys, capsys):
    assert verify(model, keys / "other.pub") == 1
    assert "does not match the signature" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sign", "nowhere", "--key", "key.pem"], "is no folder"),
        (["sign", ".", "--key", "key.pem"], "there is no file key.pem"),
        (["verify", ".", "--key", "key.pub"], "there is no file key.pub"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    assert main(arguments) == 1 and words in capsys.readouterr().err
