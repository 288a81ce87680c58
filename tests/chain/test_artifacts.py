"""Artifacts: atomic files, digests of content, links."""

import json

import pytest

from alignment import files
from alignment.chain import artifacts
from alignment.files import write_json
from alignment.fingerprints import fingerprint, package_versions
from alignment.provenance import artifact_file


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})

    def full(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["x.json"]


def test_nan_is_not_written_to_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not (tmp_path / "x.json").exists()


def test_an_artifact_is_done_when_its_file_exists_and_a_damaged_file_is_an_error(tmp_path):
    assert artifact_file.read(tmp_path) is None
    write_json(tmp_path / artifact_file.ARTIFACT, {"kind": "sft"})
    assert artifact_file.read(tmp_path) == {"kind": "sft"}
    for damaged in ("{", "", "{}", "[]", "null", "\0\0"):
        (tmp_path / artifact_file.ARTIFACT).write_text(damaged)
        with pytest.raises(ValueError, match="delete the folder"):
            artifact_file.read(tmp_path)


def test_the_digest_of_a_folder_depends_on_names_and_bytes_but_not_on_hidden_files(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("1")

    def digest():
        return artifacts.Digests(tmp_path / "cache.json").of(folder)

    first = digest()
    (folder / ".hidden").write_text("x")
    assert digest() == first
    (folder / "a").rename(folder / "b")
    renamed = digest()
    (folder / "b").write_text("22")
    assert len({first, renamed, digest()}) == 3


def test_digests_are_cached_until_the_file_changes(tmp_path):
    file, cache = tmp_path / "a", tmp_path / "cache.json"
    file.write_text("1")
    digests = artifacts.Digests(cache)
    first = digests.of(file)
    digests.save()
    assert artifacts.Digests(cache).known[str(file)][2] == first
    file.write_text("22")
    assert artifacts.Digests(cache).of(file) != first


def test_a_damaged_or_read_only_digest_cache_is_no_error(tmp_path):
    (tmp_path / "a").write_text("1")
    cache = tmp_path / "cache.json"
    cache.write_text("{")
    expected = artifacts.Digests(cache).of(tmp_path / "a")
    blocked = artifacts.Digests(tmp_path / "a" / "cache.json")
    assert blocked.of(tmp_path / "a") == expected
    blocked.save()


def test_a_link_is_replaced_and_relative(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
        artifacts.link(tmp_path, "sft", tmp_path / "artifacts" / name)
    assert (tmp_path / "sft").resolve().name == "two"
    assert not (tmp_path / "sft").readlink().is_absolute()


def test_package_versions_include_torch_and_trl():
    assert {"torch", "trl"} <= set(package_versions())


def test_outside_of_a_checkout_there_is_no_commit(tmp_path):
    assert artifacts.git_commit(tmp_path) is None
