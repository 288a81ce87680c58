"""Downloads of public benchmarks, from a server on the loopback interface."""

import gzip
import hashlib
import http.server
import json
import threading

import pytest

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_files import PublicFile, cache_folder, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest

CONTENT = b"".join(json.dumps({"id": number}).encode() + b"\n" for number in range(2000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An HTTP server of a few files with support for ranges: `requests` lists them, `cut` ends the next response
    early.
    """
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")

    class Handler(http.server.BaseHTTPRequestHandler):
        cut: int | None = None
        ranges = True

        def do_GET(self):
            kind = type(self)
            kind.requests.append((self.path, self.headers.get("Range")))
            if self.path not in kind.files:
                self.send_error(404)
                return
            data, begin = kind.files[self.path], 0
            if self.headers.get("Range") and kind.ranges:
                begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if begin >= len(data):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            end = len(data) if kind.cut is None else begin + kind.cut
            kind.cut = None
            self.wfile.write(data[begin:end])

        def log_message(self, *_):
            pass

    Handler.files = {"/rows.jsonl": CONTENT, "/rows.jsonl.gz": gzip.compress(CONTENT), "/broken.jsonl.gz": b"no gzip"}
    Handler.requests = []
    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=instance.serve_forever, daemon=True)
    thread.start()
    Handler.address = f"http://127.0.0.1:{instance.server_port}"
    yield Handler
    instance.shutdown()
    instance.server_close()
    thread.join()


def public_file(server, name="rows.jsonl", file="rows.jsonl", **more):
    return PublicFile(file=file, url=f"{server.address}/{name}", **more)


def test_a_file_is_downloaded_once_and_its_content_checked(server):
    path = locate(BenchmarkRequest("x"), public_file(server, sha256=SHA256))
    assert path == cache_folder() / "rows.jsonl" and path.read_bytes() == CONTENT
    assert locate(BenchmarkRequest("x"), public_file(server, sha256=SHA256)) == path
    assert server.requests == [("/rows.jsonl", None)]


@pytest.mark.parametrize("file", ["rows.jsonl.gz", "rows.jsonl"])
def test_the_checksum_is_that_of_the_unpacked_content(server, file):
    path = locate(BenchmarkRequest("x"), public_file(server, "rows.jsonl.gz", file, sha256=SHA256))
    data = path.read_bytes()
    assert (gzip.decompress(data) if file.endswith(".gz") else data) == CONTENT


def test_an_interrupted_download_resumes(server):
    server.cut = 1000
    with pytest.raises(ValueError, match="broke after 1000 of"):
        locate(BenchmarkRequest("x"), public_file(server))
    assert not (cache_folder() / "rows.jsonl").exists()
    assert locate(BenchmarkRequest("x"), public_file(server, sha256=SHA256)).read_bytes() == CONTENT
    assert server.requests[-1] == ("/rows.jsonl", "bytes=1000-")


def test_a_server_without_ranges_sends_all_again(server):
    server.cut, server.ranges = 1000, False
    with pytest.raises(ValueError, match="the next start resumes"):
        locate(BenchmarkRequest("x"), public_file(server))
    assert locate(BenchmarkRequest("x"), public_file(server, sha256=SHA256)).read_bytes() == CONTENT


def test_a_partial_download_of_another_file_is_discarded(server):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "rows.jsonl.partial").write_bytes(CONTENT + b"more")
    assert locate(BenchmarkRequest("x"), public_file(server, sha256=SHA256)).read_bytes() == CONTENT


def test_content_with_another_checksum_is_refused(server):
    with pytest.raises(ValueError, match=f"not {'0' * 64}: remove the file"):
        locate(BenchmarkRequest("x"), public_file(server, sha256="0" * 64))


@pytest.mark.parametrize(("name", "message"), [("missing.jsonl", "404"), ("broken.jsonl.gz", "download failed")])
def test_a_failed_download_says_how_to_get_the_file(server, name, message):
    with pytest.raises(ValueError, match=f"{message}.*get rows.jsonl from http"):
        locate(BenchmarkRequest("x"), public_file(server, name))


def test_nothing_is_requested_offline(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE"):
        locate(BenchmarkRequest("x"), public_file(server))
    assert server.requests == []


def test_a_file_that_a_person_must_get_is_not_downloaded(server):
    with pytest.raises(ValueError, match=r"get rows\.jsonl from"):
        locate(BenchmarkRequest("x"), public_file(server, by_hand=True))
    assert server.requests == []


def test_ranks_that_start_at_once_download_once(server):
    paths = []
    ranks = [
        threading.Thread(target=lambda: paths.append(locate(BenchmarkRequest("x"), public_file(server))))
        for _ in range(4)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert len(paths) == 4 and len(server.requests) == 1


WITHOUT_PUBLIC_ROWS = (
    "tasks",
    "tools",
    "repair",
    "fim",
    "fim-body",
    "editor",
    "completion",
    "editing",
    "regression",
    "multipl-e-r",
)


@pytest.mark.parametrize("name", [name for name in catalogue.BENCHMARKS if name not in WITHOUT_PUBLIC_ROWS])
def test_every_public_benchmark_says_where_to_get_missing_rows(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    if name.startswith("needle"):
        assert catalogue.load(BenchmarkRequest(name, limit=1)).problems
        return
    with pytest.raises(ValueError, match=r"(?s)get .* from https://.*data"):
        catalogue.load(BenchmarkRequest(name))


def test_programs_in_the_sandbox_do_not_see_the_cache(grader):
    """The cache holds the expected values of EvalPlus, which programs must not read."""
    folder = cache_folder() / "expected"
    folder.mkdir(parents=True, exist_ok=True)
    program = f"import os\ndef f():\n    return [os.path.exists(p) for p in ({str(folder)!r}, {str(folder.parent.parent)!r})]\n"
    (answer,) = grader.outputs(program, "f", [([], {})])
    assert answer["value"] == [False, False]
