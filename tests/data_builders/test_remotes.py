"""A remote that needs a password is cloned with the user's own git credentials, which are stored in no file."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from corpus_helpers import MakeRepository, code, commit, git, run_builder

from alignment.rows import reading as row_files
from data_builders.repositories import remote_git

USER, PASSWORD = "ada", "engine-No1"


class Handler(BaseHTTPRequestHandler):
    """`git http-backend` behind basic authentication."""

    folder: Path

    def answer(self) -> None:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="firm"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.folder), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_USER": USER,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def remote(repository: MakeRepository, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = repository({"a.py": code("alpha")})
    commit(folder, "Add another module to this project", {"b.py": code("beta")})
    git(folder, "update-ref", "refs/pull/1/head", "HEAD")
    handler = type("Here", (Handler,), {"folder": folder.parent})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield f"http://127.0.0.1:{server.server_port}/{folder.name}/.git"
    server.shutdown()
    thread.join()
    server.server_close()


def askpass(folder: Path) -> dict[str, str]:
    script = folder / "askpass"
    script.write_text(f"#!/bin/sh\ncase \"$1\" in User*) echo {USER};; *) echo '{PASSWORD}';; esac\n")
    script.chmod(0o700)
    return {"GIT_ASKPASS": str(script)}


def helper(folder: Path) -> dict[str, str]:
    config = folder / "gitconfig"
    config.write_text(f'[credential]\n\thelper = "!f() {{ echo username={USER}; echo password={PASSWORD}; }}; f"\n')
    return {"GIT_CONFIG_GLOBAL": str(config)}


def header(_: Path) -> dict[str, str]:
    value = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {value}"}  # fmt: skip


@pytest.mark.parametrize("access", [askpass, helper, header])
def test_the_users_credentials_clone_a_remote_and_are_stored_in_no_file(
    access: object, remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(access)
    own = tmp_path / "own"
    own.mkdir()
    for name, value in ({"GIT_CONFIG_GLOBAL": os.devnull} | access(own)).items():
        monkeypatch.setenv(name, value)
    run_builder("corpus", tmp_path / "out", sources=[remote], clone_folder=tmp_path / "clones")
    assert {row["path"] for row in row_files.read(tmp_path / "out")} == {"a.py", "b.py"}
    written = [path for top in ("out", "clones") for path in (tmp_path / top).rglob("*") if path.is_file()]
    secrets = [PASSWORD.encode(), base64.b64encode(f"{USER}:{PASSWORD}".encode())]
    assert not [path for path in written if any(secret in path.read_bytes() for secret in secrets)]


def test_a_remote_without_access_is_an_error_without_a_prompt(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.delenv("GIT_ASKPASS", raising=False)
    monkeypatch.delenv("SSH_ASKPASS", raising=False)
    with pytest.raises(ValueError, match="could not clone http://127"):
        run_builder("corpus", tmp_path / "out", sources=[remote])


def test_branches_and_tags_are_cloned_and_refs_of_pull_requests_are_not(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in askpass(tmp_path).items():
        monkeypatch.setenv(name, value)
    clone = remote_git.clone(remote, tmp_path / "clones")
    assert git(clone, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
