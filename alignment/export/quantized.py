"""GPTQ and AWQ through gptqmodel, in a fresh process and, where need be, in an environment of its own.

    python -m alignment.export.quantized JOB.json

The engine is taken from the running environment where it is installed. Else an environment of its own is made on
demand in the user's cache, with access to the running one's packages, so that no package of the training stack
changes: installed beside it, gptqmodel 7.7.0 would replace torch by 2.14.1 or newer. Only the gate says whether the
engine works with an older one.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.export.checkpoint import Checkpoint
from alignment.export.process import run_job, serve_job
from alignment.export.targets import Target

ENGINE = "gptqmodel==7.7.0"
# What the engine needs besides the training stack (its requirements.txt); installed without their own needs.
_ENGINE_NEEDS = ("device-smi", "pypcre", "tokenicer", "logbar", "threadpoolctl", "torchao>=0.18", "defuser")

# A new environment sees the packages of the running one behind its own, so that torch is not there twice.
_INHERIT = """
import pathlib, sys, sysconfig
lines = [f"import site; site.addsitedir({path!r})" for path in sys.argv[1:]]
pathlib.Path(sysconfig.get_paths()["purelib"], "inherited.pth").write_text("\\n".join(lines))
"""


@dataclass(frozen=True)
class QuantizeSettings:
    """How GPTQ and AWQ quantize."""

    group_size: int = 128
    """Weights that share a scale; -1 takes one scale per row."""
    act_order: bool = False
    """GPTQ only: quantize columns in the order of their activations; a little better, slower in some runtimes."""
    sequence_length: int = 512
    """Tokens of one calibration sample."""
    device: str = "auto"
    """Where to quantize: cpu (small models), cuda, or auto for cuda where there is one."""
    environment: str = ""
    """Folder of the engine's own environment; empty for one in the user's cache."""


def check_settings(settings: dict[str, Any] | None) -> dict[str, Any]:
    """Settings with their defaults; ValueError names a key that does not exist."""
    known = [entry.name for entry in dataclasses.fields(QuantizeSettings)]
    unknown = [key for key in settings or {} if key not in known]
    if unknown:
        raise ValueError(f"quantize has no setting {unknown[0]!r}; there are {', '.join(known)}")
    made = QuantizeSettings(**(settings or {}))
    if made.group_size != -1 and made.group_size not in (16, 32, 64, 128, 256, 512, 1024):
        raise ValueError(f"quantize: group_size is -1 or a power of two from 16 to 1024, not {made.group_size}")
    return dataclasses.asdict(made)


def make(
    checkpoint: Checkpoint,
    target: Target,
    out: Path,
    texts: list[str],
    tokens: int,
    settings: dict[str, Any],
) -> str:
    """Quantize `checkpoint` into the folder `out`, calibrated on `texts`; returns the Python that can load it.

    ValueError says why the engine could not: it is not installed and can't be, a layer does not divide into groups,
    or what the engine itself reports.
    """
    group = settings["group_size"]
    columns = sorted({tensor.shape[1] for name, tensor in checkpoint.tensors.items() if "_proj.weight" in name})
    odd = [number for number in columns if group > 0 and number % group]
    if odd:
        raise ValueError(f"rows of {odd[0]} weights do not divide into groups of {group}: set quantize.group_size")
    python = engine_python(settings["environment"])
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    job = settings | {
        "model": str(checkpoint.folder),
        "method": target.kind,
        "bits": target.bits,
        "texts": texts,
        "tokens": tokens,
        "out": str(partial),
        "device": settings["device"],
    }
    try:
        run_job("alignment.export.quantized", job, python)
    except RuntimeError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(f"{target.text}: {error}") from error
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return python


def engine_python(environment: str = "") -> str:
    """An interpreter that has the engine; its environment is made here where there is none yet."""
    if importlib.util.find_spec("gptqmodel") is not None:
        return sys.executable
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = Path(environment) if environment else cache / "code-alignment" / ENGINE.replace("==", "-")
    python = folder / "bin" / "python"
    if (folder / "complete").is_file():
        return str(python)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-c", _INHERIT, *(path for path in sys.path if path.endswith("site-packages"))],
        [str(python), "-m", "pip", "install", "--no-deps", ENGINE, *_ENGINE_NEEDS],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            raise ValueError(
                f"GPTQ and AWQ need {ENGINE}, and an environment for it could not be made in {folder}: {lines[-1]}. "
                f"Install it yourself: pip install {ENGINE}"
            )
    (folder / "complete").write_text(ENGINE, encoding="utf-8")
    return str(python)


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """Run the engine; called in its own process and environment."""
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    samples, total = [], 0
    for text in job["texts"]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        for start in range(0, len(ids), job["sequence_length"]):
            piece = ids[start : start + job["sequence_length"]]
            if len(piece) >= 16 and total < job["tokens"]:
                samples.append({"input_ids": piece, "attention_mask": [1] * len(piece)})
                total += len(piece)
    if not samples:
        raise ValueError("the calibration rows hold no text of 16 tokens or more")
    if job["method"] == "awq":
        config = QuantizeConfig(bits=job["bits"], group_size=job["group_size"], method="awq", format="gemm", sym=False)
    else:
        config = QuantizeConfig(bits=job["bits"], group_size=job["group_size"], desc_act=job["act_order"])
    device = job["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = GPTQModel.load(job["model"], config, device=device)
    model.quantize(samples, batch_size=1)
    model.save(job["out"])
    tokenizer.save_pretrained(job["out"])
    return {"samples": len(samples), "tokens": total}


if __name__ == "__main__":
    serve_job(quantize)
