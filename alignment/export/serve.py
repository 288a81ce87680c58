"""Serve a GGUF file with llama.cpp's server from the wheel `xllamacpp`: OpenAI-compatible chat, completions and FIM.

    python -m alignment.export.serve MODEL.gguf [--port 8080] [--context 4096]

The path of chat is /v1/chat/completions, the path of fill-in-the-middle is /infill. The server listens on 127.0.0.1
only. It ends when its standard input closes, or on Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys


def main() -> None:
    """Start the server, print its address, and wait for the end of standard input."""
    parser = argparse.ArgumentParser(description="Serve a GGUF file with llama.cpp's server.")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--port", type=int, default=8080, help="0 chooses a free port")
    parser.add_argument("--context", type=int, default=4096, help="tokens of prompt and completion together")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 uses all")
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
