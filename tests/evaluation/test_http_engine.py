"""Generation by a server: what is sent, what comes back, and what happens when the server fails."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from transformers import AutoTokenizer

from alignment.evaluation import evaluate
from alignment.evaluation.engines import http_engine
from alignment.evaluation.engines.http_engine import HttpEngine
from alignment.evaluation.engines.protocol import GenerationJob


@pytest.fixture
def server():
    """A server that answers each prompt with its length; `failures` are status codes to send first."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.answer(200, {"data": [{"id": name, "owned_by": running.owner} for name in running.models]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if running.failures:
                self.answer(running.failures.pop(), {"error": "not now"})
                return
            running.bodies.append(body | {"authorization": self.headers.get("Authorization")})
            choice = {"text": f"{len(body['prompt'])} tokens#rest", "finish_reason": "length"}
            if self.path == "/completion":
                self.answer(200, {"content": "", "tokens": [1, 2, 5, 3], "stop_type": "limit"})
                return
            self.answer(200, {"choices": [choice], "usage": {"completion_tokens": 3}})

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.models, running.owner, running.bodies, running.failures = ["tiny"], "someone", [], []
    running.address = f"http://127.0.0.1:{running.server_address[1]}"
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def jobs(count=5, **settings):
    return [GenerationJob(str(number), [7] * (number + 1), 16, seed=number, **settings) for number in range(count)]


def test_prompts_go_out_as_token_ids_and_texts_are_cut_at_stop_strings(server, tokenizer):
    engine = HttpEngine(server.address, tokenizer, token="sesame", stop_ids=(5,))
    completions = {
        job.key: completion for job, completion in engine.generate(jobs(stop=("#",), temperature=0.5, top_p=0.9))
    }
    assert {key: completion.text for key, completion in completions.items()} == {
        str(number): f"{number + 1} tokens" for number in range(5)
    }
    assert {completion.finish for completion in completions.values()} == {"stop"}
    body = max(server.bodies, key=lambda body: len(body["prompt"]))
    assert body["prompt"] == [7] * 5 and body["seed"] == 4 and body["max_tokens"] == 16
    assert (body["temperature"], body["top_p"], body["stop"]) == (0.5, 0.9, ["#"])
    assert body["authorization"] == "Bearer sesame" and "stop_token_ids" not in body


def test_stop_ids_are_sent_to_vllm_and_refused_for_other_servers(server, tokenizer):
    with pytest.raises(ValueError, match=r"http \(http://127.*does not support stop_ids"):
        list(HttpEngine(server.address, tokenizer).generate(jobs(stop_ids=(9,))))
    server.owner = "vllm"
    list(HttpEngine(server.address, tokenizer, stop_ids=(5,)).generate(jobs(1, stop_ids=(9,))))
    assert server.bodies[0]["stop_token_ids"] == [5, 9]


def test_sampling_defaults_of_vllm_and_llama_cpp_are_overridden(server, tokenizer):
    server.owner = "vllm"
    list(HttpEngine(server.address, tokenizer).generate(jobs(1)))
    body = server.bodies[-1]
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    server.owner = "llamacpp"
    ((_, completion),) = HttpEngine(server.address, tokenizer, stop_ids=(5,)).generate(jobs(1))
    body = server.bodies[-1]
    assert body["samplers"] == ["penalties", "temperature", "top_k", "top_p", "min_p"]
    assert (body["top_k"], body["min_p"], body["repeat_penalty"], body["return_tokens"]) == (0, 0.0, 1.0, True)
    assert (completion.text, completion.tokens, completion.finish) == (tokenizer.decode([1, 2]), 2, "stop")
    server.owner = "someone"
    list(HttpEngine(server.address, tokenizer).generate(jobs(1)))
    assert not {"top_k", "samplers", "repetition_penalty"} & set(server.bodies[-1])


def test_a_request_is_sent_again_after_a_temporary_failure(server, tokenizer, monkeypatch):
    monkeypatch.setattr(http_engine.time, "sleep", lambda seconds: None)
    server.failures += [503, 429, 500]
    assert len(list(HttpEngine(server.address, tokenizer).generate(jobs()))) == 5


@pytest.mark.parametrize(("failures", "expected"), [([400], "status 400: .*not now"), ([503] * 99, "status 503")])
def test_a_request_that_fails_for_good_is_reported_with_the_address(server, tokenizer, monkeypatch, failures, expected):
    monkeypatch.setattr(http_engine.time, "sleep", lambda seconds: None)
    engine = HttpEngine(server.address, tokenizer)
    server.failures += failures
    with pytest.raises(ValueError, match=rf"/v1/completions gave no answer: {expected}"):
        list(engine.generate(jobs(1)))


def test_a_server_that_is_not_there_or_has_another_model_is_reported_at_once(server, tokenizer, monkeypatch):
    monkeypatch.setattr(http_engine.time, "sleep", lambda seconds: None)
    server.models += ["other"]
    with pytest.raises(ValueError, match=r"serves these models: other, tiny\. Name one of these models, not None"):
        HttpEngine(server.address, tokenizer)
    assert HttpEngine(server.address, tokenizer, model="other").model == "other"
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:1/v1/models gave no answer: ConnectError"):
        HttpEngine("http://127.0.0.1:1", tokenizer)


def test_an_evaluation_runs_on_a_server(server, tokenizer, tiny_checkpoint, tmp_path, write_rows):
    rows = [{"id": f"t{n}", "prefix": f"x = {n}\ny = ", "suffix": "\n", "middle": "1"} for n in range(4)]
    entry = {"name": "own", "benchmark": "completion", "data": str(write_rows(rows)), "max_new_tokens": 8}
    server.owner = "vllm"
    figures = evaluate(tiny_checkpoint, [entry], tmp_path / "out", engine=HttpEngine(server.address, tokenizer))
    assert {figure["n"] for figure in figures} == {4} and len(server.bodies) == 4
