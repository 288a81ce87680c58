"""Importance matrices: how strongly each column of each weight matrix is driven by the recipe's own data.

For every linear layer the mean of its squared inputs is collected over calibration tokens, from the Hugging Face
model in full precision. The file has the form of llama.cpp's `llama-imatrix`, so its own tools read it too. Like
there, the embedding and the output head have no entry.

    python -m alignment.export.imatrix JOB.json
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from alignment.export.fresh_process import serve_job
from alignment.export.gguf_file import gguf_name


def collect(job: dict[str, Any]) -> dict[str, Any]:
    """Run the job's texts through its model and write the importance matrix to `job["out"]`; counts come back."""
    import torch

    from alignment.export.measure import windows_of
    from alignment.export.runtime_engines import Transformers

    engine = Transformers(job["model"], job["dtype"], job["device"], job["threads"])
    windows, used = windows_of(engine, [text for text, _ in job["texts"]], job["context"], job["tokens"])
    sums: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            squares = inputs[0].detach().float().flatten(0, -2).square().sum(0, dtype=torch.float64)
            sums[name] = sums[name] + squares if name in sums else squares

        return hook

    for name, module in engine.model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(keep(gguf_name(f"{name}.weight")))
    for window in windows:
        engine.logits(window.tolist())
    values = {name: (total.cpu().numpy(), windows.size) for name, total in sums.items()}
    write_imatrix(Path(job["out"]), values, job["context"])
    rows = dict(Counter(form for _, form in job["texts"][:used]))
    return {"rows": rows, "samples": len(windows), "tokens": int(windows.size)}


def write_imatrix(file: Path, values: dict[str, tuple[np.ndarray, int]], context: int) -> None:
    """Write sums of squares with their token counts, keyed by GGUF tensor name."""
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
    """Mean squared inputs by GGUF tensor name, float32, from a file in llama.cpp's GGUF form."""
    from gguf import GGUFReader

    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no importance matrix {path}")
    try:
        tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in GGUFReader(path).tensors}
    except ValueError as error:
        raise ValueError(f"{path} is no importance matrix in GGUF form ({error})") from error
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


if __name__ == "__main__":
    serve_job(collect)
