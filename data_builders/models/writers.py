"""Models that write or judge while data is built: an OpenAI-compatible endpoint, or a local checkpoint.

Nothing is sent anywhere unless settings name a URL. What a model writes is data that nobody trusts: code in it runs in the
sandbox or not at all.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Protocol, Self

from pydantic import Field, model_validator

from alignment.settings import Positive, Reference, Settings

Messages = list[dict[str, str]]
RETRIES = 4
REPLY_BYTES = 16 << 20


class TextModel(Settings):
    """A model that writes or judges: give `url` (an endpoint) or `path` (a checkpoint)."""

    url: str | None = None
    """An OpenAI-compatible endpoint up to its version, for example `http://localhost:8000/v1`."""
    model: str | None = None
    """The name under which the endpoint serves the model."""
    key_variable: str | None = None
    """Name of the environment variable that holds the endpoint's key; never the key itself."""
    path: Reference | None = None
    """Folder of a checkpoint, or the model of an earlier stage: `sft/model`."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Sampling temperature of a writer; a judge is always greedy."""
    max_new_tokens: Positive = 1024
    """Length of an answer; one that does not end by itself is not used."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Time limit of one request to the endpoint."""
    parallel: Positive = 8
    """Requests to the endpoint at the same time."""

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("a model needs either `url` (an endpoint) or `path` (a checkpoint)")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, not {self.url!r}")
        if self.url is not None and not self.model:
            raise ValueError("an endpoint needs `model`, the name under which it serves the model")
        if self.url is None and (self.model or self.key_variable):
            raise ValueError("`model` and `key_variable` belong to an endpoint: leave them out with `path`")
        if self.key_variable is not None and not os.environ.get(self.key_variable):
            raise ValueError(f"the environment variable {self.key_variable}, named by `key_variable`, is not set")
        return self


class Author(Protocol):
    """Something that answers conversations."""

    def answers(self, prompts: Sequence[Messages], n: int, *, temperature: float, seed: int) -> list[list[str]]:
        """`n` answers to each conversation; fewer where one was cut off or not given."""
        ...


def open_model(settings: TextModel) -> Author:
    """The author that the settings name."""
    return Endpoint(settings) if settings.url is not None else Checkpoint(settings)


class Endpoint:
    """Chat completions over HTTP."""

    def __init__(self, settings: TextModel) -> None:
        self.settings = settings

    def answers(self, prompts: Sequence[Messages], n: int, *, temperature: float, seed: int) -> list[list[str]]:
        """ValueError where the endpoint can't be reached or refuses, with what it said."""
        asked = [
            {"model": self.settings.model, "messages": prompt, "temperature": temperature, "seed": seed + place,
             "max_tokens": self.settings.max_new_tokens}
            for prompt in prompts for place in range(n)
        ]  # fmt: skip
        with ThreadPoolExecutor(max(1, self.settings.parallel), thread_name_prefix="endpoint") as pool:
            texts = list(pool.map(self._ask, asked))
        return [[text for text in texts[at : at + n] if text is not None] for at in range(0, len(texts), n)]

    def _ask(self, body: dict[str, Any]) -> str | None:
        assert self.settings.url is not None
        headers = {"Content-Type": "application/json"}
        if self.settings.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[self.settings.key_variable]}"
        address = f"{self.settings.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        for attempt in range(RETRIES):
            try:
                with urllib.request.urlopen(request, timeout=self.settings.timeout_seconds) as reply:
                    return self._text(reply.read(REPLY_BYTES))
            except urllib.error.HTTPError as error:
                said = error.read(500).decode("utf-8", "replace").strip()
                if attempt == RETRIES - 1 or error.code not in (408, 429, 500, 502, 503, 504):
                    raise ValueError(f"{address} refused with {error.code}: {said}") from None
            except (OSError, http.client.HTTPException) as error:
                if attempt == RETRIES - 1:
                    raise ValueError(f"{address} can't be reached: {error}") from None
            time.sleep(0.5 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _text(self, reply: bytes) -> str | None:
        try:
            choice = json.loads(reply)["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise ValueError(
                f"{self.settings.url} answers in no form of OpenAI's chat completions: {reply[:200]!r}"
            ) from None
        return text if isinstance(text, str) and choice.get("finish_reason") != "length" else None


class Checkpoint:
    """A model on this machine."""

    def __init__(self, settings: TextModel) -> None:
        self.settings = settings
        self._engine: Any = None

    def answers(self, prompts: Sequence[Messages], n: int, *, temperature: float, seed: int) -> list[list[str]]:
        from alignment.evaluation.engines.protocol import GenerationJob
        from alignment.evaluation.engines.selection import open_engine
        from alignment.models import formats

        if self._engine is None:
            assert self.settings.path is not None
            path = self.settings.path.path()
            try:
                self._engine = open_engine(str(path))
            except (OSError, ValueError, KeyError) as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ValueError(f"{path} is no checkpoint that can be loaded: {first}") from None
        jobs = []
        for index, prompt in enumerate(prompts):
            safe = [{**message, "content": formats.escape_special_text(message["content"])} for message in prompt]
            text = formats.chat(safe, add_generation_prompt=True)
            ids = self._engine.tokenizer.encode(text, add_special_tokens=False)
            for sample in range(n):
                draw = (seed * 1_000_003 + index * 1009 + sample) & (2**63 - 1)
                jobs.append(GenerationJob(key=f"{index}:{sample}", ids=ids, max_new_tokens=self.settings.max_new_tokens,
                                temperature=temperature, top_p=1.0, seed=draw))  # fmt: skip
        found: list[dict[int, str]] = [{} for _ in prompts]
        for job, completion in self._engine.generate(jobs):
            index, sample = map(int, job.key.split(":"))
            if completion.finish == "stop":
                found[index][sample] = completion.text
        return [[texts[sample] for sample in sorted(texts)] for texts in found]
