"""Run llama.cpp's own converter, the reference for our converter, in a separate process."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from alignment.cache import cache_root

# The source distribution holds llama.cpp's converter, the `gguf` package it uses, and test vectors of tokenizers.
RELEASE = "llama-cpp-python==0.3.36"
WANTED = ("/vendor/llama.cpp/convert_hf_to_gguf.py", "/vendor/llama.cpp/convert_lora_to_gguf.py")
WANTED_FOLDERS = ("conversion/", "gguf-py/gguf/", "models/ggml-vocab-qwen2.gguf")

# The converter recognizes pre-tokenizers by a hash of the tokens of one text, which differs for every tiny vocabulary.
# It imports sentencepiece even for Qwen2 models, which have no sentencepiece file.
CONVERT = """
import sys, types
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
from conversion import base
sys.modules.setdefault("sentencepiece", types.SimpleNamespace(SentencePieceProcessor=None))
if sys.argv[2] == "tiny":
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
import convert_hf_to_gguf
_, _, _, model, out, *kinds = sys.argv
for kind in kinds:
    sys.argv = ["convert_hf_to_gguf.py", model, "--outtype", kind, "--outfile", f"{out}-{kind}.gguf"]
    convert_hf_to_gguf.main()
"""

WRAP = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
figures = {"wall": time.perf_counter() - started, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024}
print(json.dumps(figures))
sys.exit(code)
"""


def reference_source() -> Path:
    """Return the folder with llama.cpp's converter. Raise a ValueError if it is missing and can't be downloaded."""
    if source := os.environ.get("LLAMA_CPP_SOURCE"):
        folder = Path(source)
    else:
        folder = cache_root() / f"llama.cpp-of-{RELEASE.replace('==', '-')}"
        if not folder.is_dir():
            _fetch(folder)
    if not (folder / "convert_hf_to_gguf.py").is_file():
        raise ValueError(f"{folder} is not a source tree of llama.cpp")
    return folder


def _fetch(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        command += ["--no-binary", "llama-cpp-python", RELEASE]
        done = subprocess.run(command, capture_output=True, text=True)
        archives = list(Path(scratch).glob("*.tar.gz"))
        if done.returncode != 0 or not archives:
            raise ValueError(
                f"llama.cpp's converter could not be downloaded ({(done.stderr.splitlines() or ['no reason'])[-1]}): "
                "set LLAMA_CPP_SOURCE to a source tree of llama.cpp"
            )
        with tarfile.open(archives[0]) as archive:
            members = [member for member in archive if _is_wanted(member.name)]
            archive.extractall(scratch, members, filter="data")
        shutil.move(next(Path(scratch).glob("*/vendor/llama.cpp")), folder)


def _is_wanted(name: str) -> bool:
    inside = name.partition("/vendor/llama.cpp/")[2]
    return name.endswith(WANTED) or inside.startswith(WANTED_FOLDERS)


def convert(source: Path, model: Path, out: Path, *kinds: str, tiny: bool = True) -> dict[str, float]:
    """Run llama.cpp's converter, which writes `out`-KIND.gguf. Return the result of `measured`."""
    python = os.environ.get("LLAMA_CPP_PYTHON") or sys.executable
    arguments = [str(source), "tiny" if tiny else "real", str(model), str(out), *kinds]
    return measured([python, "-c", CONVERT, *arguments])


def measured(command: list[str]) -> dict[str, float]:
    """Run a command. Return its `wall` and `cpu` seconds, and its `peak` memory in MB."""
    wrapped = [sys.executable, "-c", WRAP, *command]
    done = subprocess.run(wrapped, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
