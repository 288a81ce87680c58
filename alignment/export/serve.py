"""Serve a GGUF file by llama.cpp's own server, out of the wheel: OpenAI-compatible chat, completion and FIM.

    python -m alignment.export.serve MODEL.gguf [--port 8080] [--context 4096]

Chat is at /v1/chat/completions, fill-in-the-middle at /infill. It listens on this machine only, and ends with its
standard input or on Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys


def main() -> None:
    """Start the server, print its address, wait."""
    parser = argparse.ArgumentParser(description="Serve a GGUF file by llama.cpp's server.")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--context", type=int, default=4096, help="tokens of prompt and answer together")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 takes all")
    arguments = parser.parse_args()
    try:
        import xllamacpp
    except ImportError:
        sys.exit("error: the server needs llama.cpp: pip install 'code-alignment[gguf]'")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = arguments.port
    parameters.n_ctx = arguments.context
    parameters.n_parallel = 1
    parameters.use_jinja = True
    if arguments.threads:
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = arguments.threads
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
