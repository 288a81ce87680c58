"""Generate with an OpenAI-compatible server: vLLM's, llama.cpp's, or any other server that has `/v1/completions`.

Each server has its own sampling defaults: vLLM follows the model's generation_config.json (top_k 20 and a repetition
penalty for Qwen2.5-Coder-Instruct), llama.cpp takes top_k 40 and min_p 0.05 and applies the temperature last. Requests
to vLLM and llama.cpp override these defaults, so that both sample as `GenerationJob` defines. Other servers get the
settings of OpenAI's API only.

Prompts are sent as token ids, so that the server sees exactly the tokens that the other engines see. The tokenizer
comes from the checkpoint folder (or hub name) that the evaluation names; it must be the tokenizer of the served model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal

import httpx

from alignment.evaluation.engines.decoding import cut_at_stop, split_by_length
from alignment.evaluation.engines.protocol import (
    ALL_SAMPLING_FIELDS,
    Completion,
    GenerationJob,
    SamplingField,
    refuse_unsupported,
)

CONCURRENT_REQUESTS = 16
RETRIES = 6
"""Largest number of attempts for one request.

The engine waits 0.5, 1, 2, ... seconds between attempts, or as the server says.
"""
TIMEOUT_SECONDS = 600.0
_TEMPORARY = (408, 429, 500, 502, 503, 504)
"""Status codes after which a request is sent again."""
_OPENAI_FIELDS: frozenset[SamplingField] = frozenset(("temperature", "top_p", "seed", "stop"))
ServerKind = Literal["vllm", "llamacpp", "other"]
_VLLM_FIELDS: frozenset[SamplingField] = ALL_SAMPLING_FIELDS - {"top_p with min_p"}
"""vLLM applies min_p before top_p, so that top_p counts other probabilities if both are set."""
_VLLM_SAMPLING = {"presence_penalty": 0.0, "frequency_penalty": 0.0}
_LLAMACPP_SAMPLING = {"samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"]}
"""The samplers that run, in this order. llama.cpp's default order applies the temperature last."""


class HttpEngine:
    """An engine that generates with a server. Completions that arrived before a request failed are kept."""

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
            stop_ids: token ids that end every completion. A server stops at the end tokens of its model by itself.
                Requests to vLLM contain these ids, and completions of llama.cpp are cut at these ids.
            max_length: largest number of tokens of prompt and completion together.
            batch_size: number of simultaneous requests; 16 by default.

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
        self.model, self.kind = self._served_model(model)
        self.supported_fields: frozenset[SamplingField] = {
            "vllm": _VLLM_FIELDS,
            "llamacpp": ALL_SAMPLING_FIELDS,
            "other": _OPENAI_FIELDS,
        }[self.kind]

    def _served_model(self, wanted: str | None) -> tuple[str, ServerKind]:
        """Return the name of the served model, and the name of the server software."""
        answer = self._send("GET", "/v1/models", None)
        models = {entry["id"]: entry for entry in answer.get("data", [])}
        if wanted is None and len(models) == 1:
            wanted = next(iter(models))
        if wanted is None or wanted not in models:
            names = ", ".join(sorted(models)) or "none"
            raise ValueError(f"{self.server} serves these models: {names}. Name one of these models, not {wanted!r}")
        owner = models[wanted].get("owned_by")
        kinds: dict[str, ServerKind] = {"vllm": "vllm", "llamacpp": "llamacpp"}
        return wanted, kinds.get(str(owner), "other")

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
        limit = min(job.max_new_tokens, self.max_length - len(job.ids))
        body: dict[str, Any] = {"prompt": job.ids, "temperature": job.temperature, "top_p": job.top_p}
        body["seed"] = job.seed % 2**31
        if job.stop:
            body["stop"] = list(job.stop)
        if self.kind == "llamacpp":
            body |= {"top_k": job.top_k, "min_p": job.min_p, "repeat_penalty": job.repetition_penalty}
            body["repeat_last_n"] = len(job.ids) + limit  # the penalty counts all tokens
            return self._complete_llamacpp(job, {**body, **_LLAMACPP_SAMPLING, "n_predict": limit})
        body |= {"model": self.model, "max_tokens": limit}
        if self.kind == "vllm":
            body |= {"top_k": job.top_k, "min_p": job.min_p, "repetition_penalty": job.repetition_penalty}
            body |= {**_VLLM_SAMPLING, "stop_token_ids": sorted({*self.stop_ids, *job.stop_ids})}
        answer = self._send("POST", "/v1/completions", body)
        choice = answer["choices"][0]
        text, was_cut = cut_at_stop(choice["text"], job.stop)
        tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
        stopped = was_cut or choice.get("finish_reason") == "stop"
        return Completion(text, tokens, "stop" if stopped else "length")

    def _complete_llamacpp(self, job: GenerationJob, body: dict[str, Any]) -> Completion:
        """Complete with llama.cpp's `/completion`. llama.cpp accepts no stop ids, so this method cuts the returned
        token ids at the first stop id.
        """
        answer = self._send("POST", "/completion", {**body, "return_tokens": True})
        tokens: list[int] = answer["tokens"]
        stop_ids = {*self.stop_ids, *job.stop_ids}
        end = next((number for number, token in enumerate(tokens) if token in stop_ids), len(tokens))
        text = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        text, was_cut = cut_at_stop(text, job.stop)
        stopped = was_cut or end < len(tokens) or answer.get("stop_type") in ("eos", "word")
        return Completion(text, end, "stop" if stopped else "length")

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Send a request; retry after temporary errors. Raise ValueError with the last error if all attempts fail."""
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
