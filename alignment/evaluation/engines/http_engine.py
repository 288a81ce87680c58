"""Generate with an OpenAI-compatible server: vLLM's, llama.cpp's, or any other server that has `/v1/completions`.

Prompts are sent as token ids, so that the server sees exactly the same tokens as the other engines. The tokenizer comes
from the checkpoint folder (or hub name) that the evaluation names. It must be the tokenizer of the served model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx

from alignment.evaluation.engines.decoding import cut_at_stop, split_by_length
from alignment.evaluation.engines.protocol import Completion, GenerationJob, SamplingField, refuse_unsupported

CONCURRENT_REQUESTS = 16
RETRIES = 6
"""Number of attempts for one request.

The engine waits 0.5, 1, 2, ... seconds between attempts, or as the server says.
"""
TIMEOUT_SECONDS = 600.0
_TEMPORARY = (408, 429, 500, 502, 503, 504)
"""HTTP status codes after which a request is sent again."""
_FIELDS: frozenset[SamplingField] = frozenset(("temperature", "top_p", "seed", "stop"))


class HttpEngine:
    """An engine that generates with a server. If a request fails, completions that arrived before are kept."""

    name = "http"

    def __init__(
        self,
        server: str,
        tokenizer: Any,
        *,
        model: str | None = None,
        token: str | None = None,
        stop_ids: tuple[int, ...] = (),
        max_length: int = 2**31,
        batch_size: int | None = None,
    ) -> None:
        """Connect to the server and find the model that it serves.

        Args:
            server: address without path, for example `http://127.0.0.1:8000`.
            tokenizer: the tokenizer of the served model.
            model: name of the served model. Can be omitted if the server serves one model only.
            token: bearer token for the server.
            stop_ids: token ids that end every completion, besides the stop tokens that the server uses for its model.
                They are sent to vLLM only.
            max_length: largest number of tokens of a prompt and its completion together.
            batch_size: number of requests at the same time; 16 by default.

        Raises:
            ValueError: the server does not answer, does not serve the model, or serves several models and `model` is
                None.
        """
        self.server = server.rstrip("/")
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.max_length = max_length
        self.batch_size = batch_size
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(timeout=TIMEOUT_SECONDS, headers=headers, trust_env=False)
        self.model, is_vllm = self._served_model(model)
        # `stop_token_ids` is an extension of vLLM; other servers ignore it without an error.
        self.takes_stop_ids = is_vllm
        self.supported_fields: frozenset[SamplingField] = _FIELDS | {"stop_ids"} if is_vllm else _FIELDS

    def _served_model(self, wanted: str | None) -> tuple[str, bool]:
        """Return the model's name, and whether the server is vLLM."""
        answer = self._send("GET", "/v1/models", None)
        models = {entry["id"]: entry for entry in answer.get("data", [])}
        if wanted is None and len(models) == 1:
            wanted = next(iter(models))
        if wanted is None or wanted not in models:
            names = ", ".join(sorted(models)) or "none"
            raise ValueError(f"{self.server} serves these models: {names}. Name one of these models, not {wanted!r}")
        return wanted, models[wanted].get("owned_by") == "vllm"

    def generate(self, jobs: Sequence[GenerationJob]) -> Iterator[tuple[GenerationJob, Completion]]:
        """Yield completions as they arrive. Raises ValueError when all attempts of a request have failed."""
        refuse_unsupported(jobs, f"{self.name} ({self.server})", self.supported_fields)
        fitting, too_long = split_by_length([job.tokenized(self.tokenizer) for job in jobs], self.max_length)
        yield from too_long
        with ThreadPoolExecutor(self.batch_size or CONCURRENT_REQUESTS) as pool:
            futures = {pool.submit(self._complete, job): job for job in fitting}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _complete(self, job: GenerationJob) -> Completion:
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": job.ids,
            "max_tokens": min(job.max_new_tokens, self.max_length - len(job.ids)),
            "temperature": job.temperature,
            "top_p": job.top_p,
            "seed": job.seed % 2**31,
        }
        if job.stop:
            body["stop"] = list(job.stop)
        if self.takes_stop_ids:
            body["stop_token_ids"] = sorted({*self.stop_ids, *job.stop_ids})
        answer = self._send("POST", "/v1/completions", body)
        choice = answer["choices"][0]
        text, was_cut = cut_at_stop(choice["text"], job.stop)
        tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
        stopped = was_cut or choice.get("finish_reason") == "stop"
        return Completion(text, tokens, "stop" if stopped else "length")

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Send a request; retry after temporary errors. Raises ValueError with the last error if all attempts fail."""
        problem = ""
        for attempt in range(RETRIES):
            pause = 0.5 * 2**attempt
            try:
                answer = self.client.request(method, self.server + path, json=body)
                if answer.status_code == 200:
                    value: dict[str, Any] = answer.json()
                    return value
                problem = f"status {answer.status_code}: {answer.text[:300]}"
                if answer.status_code not in _TEMPORARY:
                    break
                pause = float(answer.headers.get("Retry-After") or pause)
            except (httpx.HTTPError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
            if attempt < RETRIES - 1:
                time.sleep(min(pause, 30.0))
        raise ValueError(
            f"{self.server}{path} gave no answer: {problem}. Completions that arrived before are kept: run the same "
            "command again when the server works"
        )
