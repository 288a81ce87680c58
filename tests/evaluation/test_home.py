"""Downloads from a benchmark's home, against a server on the loopback interface."""

import gzip
import hashlib
import http.server
import json
import threading

import pytest

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_files import Home, cache_folder, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest

CONTENT = b"".join(json.dumps({"id": number}).encode() + b"\n" for number in range(2000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An HTTP server of a few files that knows ranges; `asked` has every request, `cut` ends the next answer early."""
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")

    class Handler(http.server.BaseHTTPRequestHandler):
        cut: int | None = None
        ranges = True

        def do_GET(self):
            kind = type(self)
            kind.asked.append((self.path, self.headers.get("Range")))
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
    Handler.asked = []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    Handler.address = f"http://127.0.0.1:{running.server_port}"
    yield Handler
    running.shutdown()
    running.server_close()
    thread.join()


def home(server, name="rows.jsonl", file="rows.jsonl", **more):
    return Home(file=file, url=f"{server.address}/{name}", **more)


def test_a_file_is_downloaded_once_and_its_content_checked(server):
    path = locate(BenchmarkRequest("x"), home(server, sha256=SHA256))
    assert path == cache_folder() / "rows.jsonl" and path.read_bytes() == CONTENT
    assert locate(BenchmarkRequest("x"), home(server, sha256=SHA256)) == path
    assert server.asked == [("/rows.jsonl", None)]


@pytest.mark.parametrize("file", ["rows.jsonl.gz", "rows.jsonl"])
def test_the_sum_is_of_the_unpacked_content(server, file):
    path = locate(BenchmarkRequest("x"), home(server, "rows.jsonl.gz", file, sha256=SHA256))
    data = path.read_bytes()
    assert (gzip.decompress(data) if file.endswith(".gz") else data) == CONTENT


def test_a_download_that_broke_goes_on_where_it_ended(server):
    server.cut = 1000
    with pytest.raises(ValueError, match="broke after 1000 of"):
        locate(BenchmarkRequest("x"), home(server))
    assert not (cache_folder() / "rows.jsonl").exists()
    assert locate(BenchmarkRequest("x"), home(server, sha256=SHA256)).read_bytes() == CONTENT
    assert server.asked[-1] == ("/rows.jsonl", "bytes=1000-")


def test_a_server_without_ranges_sends_all_again(server):
    server.cut, server.ranges = 1000, False
    with pytest.raises(ValueError, match="the next start goes on"):
        locate(BenchmarkRequest("x"), home(server))
    assert locate(BenchmarkRequest("x"), home(server, sha256=SHA256)).read_bytes() == CONTENT


def test_rest_of_another_file_is_thrown_away(server):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "rows.jsonl.partial").write_bytes(CONTENT + b"more")
    assert locate(BenchmarkRequest("x"), home(server, sha256=SHA256)).read_bytes() == CONTENT


def test_content_with_another_sum_is_refused_and_says_what_to_do(server):
    with pytest.raises(ValueError, match=f"not {'0' * 64}: remove it"):
        locate(BenchmarkRequest("x"), home(server, sha256="0" * 64))


@pytest.mark.parametrize(("name", "message"), [("missing.jsonl", "404"), ("broken.jsonl.gz", "download failed")])
def test_what_can_not_be_had_says_how_to_get_it(server, name, message):
    with pytest.raises(ValueError, match=f"{message}.*get rows.jsonl from http"):
        locate(BenchmarkRequest("x"), home(server, name))


def test_nothing_is_asked_of_the_network_when_offline(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE"):
        locate(BenchmarkRequest("x"), home(server))
    assert server.asked == []


def test_a_page_is_never_taken_for_rows(server):
    with pytest.raises(ValueError, match=r"get rows\.jsonl from"):
        locate(BenchmarkRequest("x"), home(server, by_hand=True))
    assert server.asked == []


def test_ranks_that_start_at_once_download_once(server):
    paths = []
    ranks = [
        threading.Thread(target=lambda: paths.append(locate(BenchmarkRequest("x"), home(server)))) for _ in range(4)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert len(paths) == 4 and len(server.asked) == 1


WITHOUT_A_HOME = ("tasks", "fim", "completion", "editing", "regression", "multipl-e-r")


@pytest.mark.parametrize("name", [name for name in catalogue.BENCHMARKS if name not in WITHOUT_A_HOME])
def test_every_benchmark_says_what_to_get_where_its_rows_are_absent(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    if name.startswith("needle"):
        assert catalogue.load(BenchmarkRequest(name, limit=1)).problems
        return
    with pytest.raises(ValueError, match=r"(?s)get .* from https://.*data"):
        catalogue.load(BenchmarkRequest(name))


def test_programs_in_the_sandbox_see_nothing_of_the_cache(grader):
    """Expected values of EvalPlus lie there."""
    folder = cache_folder() / "expected"
    folder.mkdir(parents=True, exist_ok=True)
    program = f"import os\ndef f():\n    return [os.path.exists(p) for p in ({str(folder)!r}, {str(folder.parent.parent)!r})]\n"
    (answer,) = grader.outputs(program, "f", [([], {})])
    assert answer["value"] == [False, False]
