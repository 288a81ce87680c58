"""The models of the chat: one process each, started on demand and ended when it is not used."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from alignment import processes
from alignment.processes import World
from alignment.settings import Settings

MOST_MODELS = 2
"""Number of models in memory at the same time: two can be compared."""
IDLE_SECONDS = 600.0
"""A model that was not asked for this long is unloaded."""


class ChatMessage(Settings):
    """One turn of a dialogue."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=400_000)]


class ChatRequest(Settings):
    """What the page asks a model."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=400)]
    mode: Literal["chat", "continue"] = "chat"
    """`continue`: the last message is text that the model continues, without a chat template."""
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 512
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    seed: int = 0


class _Worker:
    """A process with a model."""

    def __init__(self, model: Path) -> None:
        environment = processes.child_environment(os.environ, World(0, 1, None), alone=True, port_offset=0)
        environment["ALIGN_PARENT"] = str(os.getpid())
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(processes.ROOT), environment.get("PYTHONPATH")]))
        self.lock = threading.Lock()
        """Held while the model answers."""
        self.used = time.monotonic()
        self.ready = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "alignment.ui.chat_worker", str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )

    def ask(self, request: ChatRequest) -> dict[str, Any]:
        """Send a request, and return the answer.

        Raises:
            ValueError: the process has ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        with self.lock:
            if not self.ready:
                self._read()
                self.ready = True
            with contextlib.suppress(BrokenPipeError):  # the process has ended, which the next line explains
                self.process.stdin.write(request.model_dump_json().encode() + b"\n")
                self.process.stdin.flush()
            answer = self._read()
            self.used = time.monotonic()
            return answer

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {self.process.returncode}"
            raise ValueError(f"the process of the model has ended: {reason}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class ChatModels:
    """The models that are in memory."""

    def __init__(self) -> None:
        self._workers: dict[Path, _Worker] = {}
        self._lock = threading.Lock()

    def reply(self, model: Path, request: ChatRequest) -> dict[str, Any]:
        """Return the answer of the model in a folder. Loads the model if it is not in memory.

        Raises:
            ValueError: the model cannot be loaded.
        """
        worker = self._worker(model)
        try:
            return worker.ask(request)
        except ValueError:
            with self._lock:
                if self._workers.get(model) is worker:
                    del self._workers[model]
            worker.close()
            raise

    def _worker(self, model: Path) -> _Worker:
        with self._lock:
            worker = self._workers.get(model)
            if worker is None or worker.process.poll() is not None:
                self._make_room()
                worker = self._workers[model] = _Worker(model)
            worker.used = time.monotonic()
            return worker

    def _make_room(self) -> None:
        """End the models that were used least recently until there is room for another one.

        Raises:
            ValueError: all models are answering.
        """
        while len(self._workers) >= MOST_MODELS:
            idle = [(worker.used, model) for model, worker in self._workers.items() if not worker.lock.locked()]
            if not idle:
                raise ValueError(f"{MOST_MODELS} models are answering: wait for them")
            self._workers.pop(min(idle)[1]).close()

    def unload_idle(self, seconds: float = IDLE_SECONDS) -> None:
        """End the models that were not used for this many seconds."""
        with self._lock:
            for model, worker in list(self._workers.items()):
                if not worker.lock.locked() and time.monotonic() - worker.used >= seconds:
                    self._workers.pop(model).close()

    def loaded(self) -> list[Path]:
        """Return the folders of the models that are in memory."""
        with self._lock:
            return list(self._workers)

    def close(self) -> None:
        """End all models."""
        with self._lock:
            for worker in self._workers.values():
                worker.close()
            self._workers.clear()
