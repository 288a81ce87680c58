"""Make and read importance matrices: the mean squared input of every column of every weight matrix.

The inputs of all linear layers are collected while the Hugging Face model runs on calibration data in full precision.
The file has the format of llama.cpp's `llama-imatrix`, so that llama.cpp's tools can read it. As in files of
`llama-imatrix`, the embedding and the output head have no entry.

    python -m alignment.export.imatrix JOB.json

JOB.json holds an `ImatrixJob`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment.export.export_row import CalibrationUse
from alignment.export.fresh_process import serve_job
from alignment.export.gguf_file import gguf_name
from alignment.export.measure import cut_windows
from alignment.export.runtimes import TransformersRuntime
from alignment.progress import track


@dataclass(frozen=True)
class ImatrixJob:
    """Model, calibration texts and output file of an importance matrix."""

    model: str
    """Folder of the model."""
    texts: list[tuple[str, str]]
    """Calibration texts as pairs (text, form). The form is `plain`, `chat`, `fim` or `repository`."""
    context: int
    """Number of tokens in one window."""
    tokens: int
    """Approximate number of tokens in total."""
    dtype: str
    device: str
    threads: int
    out: str
    """The file to write."""


def collect(job: ImatrixJob) -> CalibrationUse:
    """Run the model on the texts, write the importance matrix, and return how many rows and tokens were used."""
    import torch

    runtime = TransformersRuntime(job.model, job.dtype, job.device, job.threads)
    windows, used = cut_windows(runtime, [text for text, _ in job.texts], job.context, job.tokens)
    sums: dict[str, Any] = {}

    def add_to(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            squares = inputs[0].detach().float().flatten(0, -2).square().sum(0, dtype=torch.float64)
            sums[name] = sums[name] + squares if name in sums else squares

        return hook

    for name, module in runtime.model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(add_to(gguf_name(f"{name}.weight")))
    for window in track(windows, "importance matrix", "windows"):
        runtime.logits(window.tolist())
    values = {name: (total.cpu().numpy(), windows.size) for name, total in sums.items()}
    write_imatrix(Path(job.out), values, job.context)
    rows = dict(Counter(form for _, form in job.texts[:used]))
    return {"rows": rows, "samples": len(windows), "tokens": int(windows.size)}


def write_imatrix(file: Path, values: dict[str, tuple[np.ndarray, int]], context: int) -> None:
    """Write an importance matrix.

    Args:
        file: The file to write.
        values: GGUF name of a tensor -> (sum of the squared inputs of each column, number of summed tokens).
        context: Number of tokens in one window.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(file, "")
    writer.kv_data[0].clear()
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["calibration"])
    writer.add_uint32("imatrix.chunk_count", max((count for _, count in values.values()), default=0) // context)
    writer.add_uint32("imatrix.chunk_size", context)
    for name, (sums, count) in values.items():
        writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32)[None, :])
        writer.add_tensor(f"{name}.counts", np.array([[count]], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_imatrix(file: str | Path) -> dict[str, np.ndarray]:
    """Read an importance matrix: GGUF name of a tensor -> mean squared input of each column, in float32.

    Raises:
        ValueError: The file is not an importance matrix in llama.cpp's GGUF format, or holds NaN or infinity.
    """
    from gguf import GGUFReader

    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no importance matrix {path}")
    try:
        tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in GGUFReader(path).tensors}
    except ValueError as error:
        raise ValueError(f"{path} is not an importance matrix in GGUF form ({error})") from error
    means = {}
    for name, sums in tensors.items():
        if name.endswith(".in_sum2"):
            count = tensors[name.replace(".in_sum2", ".counts")].reshape(-1)[0]
            mean = sums.reshape(-1) / max(count, 1.0)
            if not np.isfinite(mean).all():
                raise ValueError(f"{path} holds NaN or infinity for {name}")
            means[name.removesuffix(".in_sum2")] = mean
    if not means:
        raise ValueError(f"{path} holds no importance matrix")
    return means


def run(job: dict[str, Any]) -> CalibrationUse:
    """Run a job in this process: the entry point for `serve_job`."""
    return collect(ImatrixJob(**job))


if __name__ == "__main__":
    serve_job(run)
