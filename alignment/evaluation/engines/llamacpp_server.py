"""Serves a GGUF file with llama.cpp's server from the wheel `xllamacpp`: OpenAI-compatible chat, completions and FIM.

    python -m alignment.evaluation.engines.llamacpp_server MODEL.gguf [--port 8080] [--context 4096] [--slots 1]

Chat is at /v1/chat/completions, fill-in-the-middle at /infill. The server listens on 127.0.0.1 only and ends when its
standard input closes or on Ctrl-C.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

CONTEXT_STEP = 256
"""llama.cpp rounds the context of a slot up to a multiple of this number (`GGML_PAD` in llama-context.cpp)."""
INSTALL = "GGUF files are served by llama.cpp: pip install 'code-alignment[gguf]'"


def main() -> None:
    """Start the server, print its address, and wait for the end of standard input."""
    parser = argparse.ArgumentParser(description="Serve a GGUF file with llama.cpp's server.")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--port", type=int, default=8080, help="0 chooses a free port")
    parser.add_argument("--context", type=int, default=4096, help="tokens of prompt and completion together, per slot")
    parser.add_argument("--slots", type=int, default=1, help="requests that are computed at the same time")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 uses all")
    arguments = parser.parse_args()
    try:
        import xllamacpp
    except ImportError:
        sys.exit(f"error: {INSTALL}")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = arguments.port
    parameters.n_ctx = arguments.context * arguments.slots
    parameters.n_parallel = arguments.slots
    parameters.kv_unified = False
    parameters.use_jinja = True
    if arguments.threads:
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = arguments.threads
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


class LlamaCppServer:
    """A server process on a free port of this machine. It ends with `close`, or when this object is deleted."""

    def __init__(self, file: Path, *, context: int, slots: int, threads: int = 0) -> None:
        """Start the server and wait until the model is loaded.

        Args:
            file: a GGUF file.
            context: largest number of tokens of prompt and completion together, for each slot. It is rounded up to a
                multiple of `CONTEXT_STEP`.
            slots: number of requests that are computed at the same time.
            threads: number of CPU threads; 0 uses all.

        Raises:
            ValueError: the server ended before it printed its address. The message holds its last lines.
        """
        self.context = -(-context // CONTEXT_STEP) * CONTEXT_STEP
        self.slots = slots
        command = [sys.executable, "-m", "alignment.evaluation.engines.llamacpp_server", str(file), "--port", "0"]
        with tempfile.TemporaryFile("w+") as log:
            self._process = subprocess.Popen(
                [*command, "--context", str(self.context), "--slots", str(slots), "--threads", str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            assert self._process.stdout is not None
            address = next((line.strip() for line in self._process.stdout if line.startswith("http://")), None)
            if address is None:
                log.seek(0)
                last = " ".join(line.strip() for line in log.readlines()[-3:])
                raise ValueError(f"llama.cpp's server did not start with {file}: {last or 'it printed nothing'}")
        self.address: str = address
        self._finalizer = weakref.finalize(self, _stop, self._process)

    @property
    def process_id(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def close(self) -> None:
        """Stop the server."""
        self._finalizer()


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


if __name__ == "__main__":
    main()
