"""Generation from a GGUF file with llama.cpp: the exported model is measured as its users run it.

The server is started when the first prompts are known, so that its context is just long enough for them.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from alignment.evaluation.engines.decoding import end_token_ids, split_by_length
from alignment.evaluation.engines.http_engine import HttpEngine
from alignment.evaluation.engines.llamacpp_server import INSTALL, LlamaCppServer
from alignment.evaluation.engines.protocol import (
    ALL_SAMPLING_FIELDS,
    Completion,
    GenerationJob,
    SamplingField,
)
from alignment.models.gguf_import import write_config_and_tokenizer
from alignment.models.stored_config import stored_config

SLOTS = 16
"""Default number of requests that are computed at the same time."""


class LlamaCppEngine:
    """An engine for a GGUF file of a Qwen2 model. The tokenizer comes from the file's metadata."""

    name = "llamacpp"
    supported_fields: frozenset[SamplingField] = ALL_SAMPLING_FIELDS

    def __init__(
        self,
        file: str | Path,
        *,
        batch_size: int | None = None,
        tokenizer_folder: str | Path | None = None,
        threads: int = 0,
    ) -> None:
        """Read the metadata of the file. The first call of `generate` loads the weights.

        Args:
            file: the GGUF file.
            batch_size: number of requests that are computed at the same time; 16 by default.
            tokenizer_folder: folder whose tokenizer is used instead of the tokenizer in the file.
            threads: number of CPU threads; 0 uses all.

        Raises:
            ValueError: the file is not a GGUF file of a Qwen2 model, or llama.cpp is not installed.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise ValueError(INSTALL)
        self.file = Path(file)
        self.batch_size = batch_size
        self.threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="gguf-tokenizer-")
        self.description = Path(self._folder.name) / "model"
        """A folder with config.json, the tokenizer and generation_config.json, without weights."""
        write_config_and_tokenizer(self.file, self.description)
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder or self.description)
        self.stop_ids = end_token_ids(self.tokenizer, GenerationConfig.from_pretrained(self.description))
        config = stored_config(self.description)
        assert config is not None, "write_config_and_tokenizer has written config.json"
        self.max_length = int(config["max_position_embeddings"])
        self._server: LlamaCppServer | None = None

    def generate(self, jobs: Sequence[GenerationJob]) -> Iterator[tuple[GenerationJob, Completion]]:
        """Yield completions as they arrive."""
        fitting, too_long = split_by_length([job.tokenized(self.tokenizer) for job in jobs], self.max_length)
        yield from too_long
        if not fitting:
            return
        longest = max(min(len(job.ids) + job.max_new_tokens, self.max_length) for job in fitting)
        server = self._server_for(longest, min(self.batch_size or SLOTS, len(fitting)))
        client = HttpEngine(
            server.address,
            self.tokenizer,
            stop_ids=self.stop_ids,
            max_length=self.max_length,
            batch_size=server.slots,
        )
        yield from client.generate(fitting)

    def _server_for(self, context: int, slots: int) -> LlamaCppServer:
        """Return the running server if it has at least `slots` slots of at least `context` tokens.

        Otherwise start another server.
        """
        if self._server is not None and self._server.context >= context and self._server.slots >= slots:
            return self._server
        self.close()
        self._server = LlamaCppServer(self.file, context=context + 1, slots=slots, threads=self.threads)
        return self._server

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.close()
            self._server = None
