"""Run models that write or judge rows during a build: an OpenAI-compatible endpoint, or a local checkpoint.

Data is sent over the network only if the settings name a URL. Model output is untrusted, so generated code runs only in
the sandbox.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self

from pydantic import Field, model_validator

from alignment.models.source import EngineName
from alignment.progress import Progress, results
from alignment.settings import Positive, Reference, Settings

if TYPE_CHECKING:
    import httpx

    from alignment.evaluation.engines.protocol import Engine

Messages = list[dict[str, str]]
RETRIES = 4
"""Maximum number of attempts per request, including the first."""
RETRIED_STATUSES = (408, 429, 500, 502, 503, 504)
"""HTTP statuses after which a request is sent again: timeouts, rate limits and server errors."""
REPLY_BYTES = 16 << 20
"""Maximum size of a reply in bytes. A longer reply is cut, and then fails to parse as JSON."""
ERROR_BYTES = 500
"""Number of bytes of an error reply to quote in the error message."""


class TextModel(Settings):
    """Settings of a model that writes or judges rows. Give either `url` (an endpoint) or `path` (a checkpoint)."""

    url: str | None = None
    """URL of an OpenAI-compatible endpoint, including the version, for example `http://localhost:8000/v1`."""
    model: str | None = None
    """Name of the model at the endpoint."""
    key_variable: str | None = None
    """Name of the environment variable that holds the endpoint's key. Never put the key itself here."""
    path: Reference | None = None
    """Folder of a checkpoint, a GGUF file, or the model of an earlier stage: `sft/model`."""
    engine: EngineName = "auto"
    """The engine that runs the model of `path`: `transformers`, `vllm`, or `llamacpp` for a GGUF file. `auto` is llamacpp
    for a GGUF file, vLLM if it is installed and there is a GPU, and transformers otherwise."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Sampling temperature of a writer. A judge always decodes greedily."""
    max_new_tokens: Positive = 1024
    """Maximum length of an answer in tokens. Longer answers are not used."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Time limit of one request to the endpoint."""
    parallel: Positive = 8
    """Maximum number of simultaneous requests to the endpoint."""

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("a model needs either `url` (an endpoint) or `path` (a checkpoint)")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, not {self.url!r}")
        if self.url is not None and not self.model:
            raise ValueError("an endpoint needs `model`, the name of the model at the endpoint")
        if self.url is None and (self.model or self.key_variable):
            raise ValueError("`model` and `key_variable` are only for an endpoint (`url`): remove them to use `path`")
        if self.url is not None and self.engine != "auto":
            raise ValueError("`engine` is only for a local model (`path`): remove it to use the endpoint `url`")
        if self.key_variable is not None and not os.environ.get(self.key_variable):
            raise ValueError(f"the environment variable {self.key_variable}, named by `key_variable`, is not set")
        return self


class Author(Protocol):
    """A model that answers conversations."""

    def answers(self, prompts: Sequence[Messages], n: int, *, temperature: float, seed: int) -> list[list[str]]:
        """Return up to `n` answers per conversation. Answers that were cut off at `max_new_tokens` are left out."""
        ...


def open_model(settings: TextModel) -> Author:
    """Return the endpoint or checkpoint that the settings name. The first call of `answers` loads a checkpoint."""
    return Endpoint(settings) if settings.url is not None else Checkpoint(settings)


class Endpoint:
    """A model on an OpenAI-compatible server, called by its chat completions interface over HTTP."""

    def __init__(self, settings: TextModel) -> None:
        assert settings.url is not None
        self.settings = settings
        self.address = f"{settings.url.rstrip('/')}/chat/completions"

    def answers(self, prompts: Sequence[Messages], n: int, *, temperature: float, seed: int) -> list[list[str]]:
        """Return the answers of the endpoint, see `Author.answers`.

        Raises:
            ValueError: the endpoint cannot be reached, refuses the request, or replies in an unknown format.
        """
        import httpx

        bodies = [
            {"model": self.settings.model, "messages": prompt, "temperature": temperature, "seed": seed + sample,
             "max_tokens": self.settings.max_new_tokens}
            for prompt in prompts for sample in range(n)
        ]  # fmt: skip
        with (
            # The number of connections needs no limit of its own: each of the `parallel` threads uses one connection.
            httpx.Client(
                headers=self._headers(),
                timeout=self.settings.timeout_seconds,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            ) as client,
            ThreadPoolExecutor(max(1, self.settings.parallel), thread_name_prefix="endpoint") as pool,
        ):
            requests = [pool.submit(self._answer, client, body) for body in bodies]
            texts = results(requests, f"answers of {self.settings.model}", "answers")
        return [[text for text in texts[first : first + n] if text is not None] for first in range(0, len(texts), n)]

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.settings.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[self.settings.key_variable]}"
        return headers

    def _answer(self, client: httpx.Client, body: dict[str, Any]) -> str | None:
        """Send one request and return the answer, or None if the answer was cut off. Retry after transient errors."""
        import httpx

        for attempt in range(RETRIES):
            is_last = attempt == RETRIES - 1
            try:
                with client.stream("POST", self.address, content=json.dumps(body).encode()) as reply:
                    if reply.is_success:
                        return self._text(_read(reply, REPLY_BYTES))
                    if is_last or reply.status_code not in RETRIED_STATUSES:
                        message = _read(reply, ERROR_BYTES).decode("utf-8", "replace").strip()
                        raise ValueError(f"{self.address} refused a request with status {reply.status_code}: {message}")
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                if is_last:
                    raise ValueError(f"{self.address} can't be reached: {error}") from None
            time.sleep(0.5 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _text(self, reply: bytes) -> str | None:
        """Return the text of a completion, or None if the completion was cut off."""
        try:
            choice = json.loads(reply)["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise ValueError(
                f"{self.settings.url} does not reply in the format of OpenAI's chat completions: {reply[:200]!r}"
            ) from None
        return text if isinstance(text, str) and choice.get("finish_reason") != "length" else None


def _read(reply: httpx.Response, limit: int) -> bytes:
    """Return at most `limit` bytes of the body of a reply."""
    content = bytearray()
    for chunk in reply.iter_bytes():
        content += chunk
        if len(content) >= limit:
            break
    return bytes(content[:limit])


class Checkpoint:
    """A local model, which the first call of `answers` loads into the evaluation engine."""

    def __init__(self, settings: TextModel) -> None:
        self.settings = settings
        self._engine: Engine | None = None

    def answers(self, prompts: Sequence[Messages], n: int, *, temperature: float, seed: int) -> list[list[str]]:
        """Return the answers of the local model, see `Author.answers`.

        Raises:
            ValueError: the folder holds no checkpoint that can be loaded.
        """
        from alignment.evaluation.engines.protocol import GenerationJob
        from alignment.models import formats
        from alignment.models.model_family import family_of

        engine = self._load()
        family = family_of(engine.tokenizer)
        jobs = []
        for index, prompt in enumerate(prompts):
            # Special tokens in the content would end the message.
            safe = [
                {**message, "content": formats.escape_special_text(message["content"], family)} for message in prompt
            ]
            text = formats.chat(safe, add_generation_prompt=True, family=family)
            ids = engine.tokenizer.encode(text, add_special_tokens=False)
            for sample in range(n):
                draw = (seed * 1_000_003 + index * 1009 + sample) & (2**63 - 1)
                jobs.append(GenerationJob(key=f"{index}:{sample}", ids=ids, max_new_tokens=self.settings.max_new_tokens,
                                temperature=temperature, top_p=1.0, seed=draw))  # fmt: skip
        finished: list[dict[int, str]] = [{} for _ in prompts]
        progress = Progress(f"answers of {self.settings.path}", len(jobs), "answers", amount_unit="tokens")
        for job, completion in engine.generate(jobs):
            progress.advance(1, completion.tokens)
            index, sample = map(int, job.key.split(":"))
            if completion.finish == "stop":
                finished[index][sample] = completion.text
        progress.finish()
        return [[texts[sample] for sample in sorted(texts)] for texts in finished]

    def _load(self) -> Engine:
        from alignment.evaluation.engines.selection import open_engine

        if self._engine is None:
            assert self.settings.path is not None
            path = self.settings.path.path()
            try:
                self._engine = open_engine(str(path), self.settings.engine)
            except (OSError, ValueError, KeyError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ValueError(f"{path} holds no checkpoint that can be loaded: {reason}") from None
        return self._engine
