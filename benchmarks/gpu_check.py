"""Check one GPU with one command: speed, MFU and memory of each kind of training, compared with TRL and the prediction.

    python -m benchmarks gpu-check                          # 0.5B, 1.5B, 7B; SFT at 4k and 32k, DPO, GRPO, export
    python -m benchmarks gpu-check --wheels wheels --json   # machine without network: install missing packages from wheels
    python -m benchmarks gpu-check --smoke                  # tiny shapes on the CPU, to test the check itself

Run the command in the root of a checkout. If a machine has torch, transformers, accelerate and peft, it needs only
these packages in addition, for the machine's version of Python (here 3.12):

    pip download -d wheels --no-deps --only-binary=:all: --python-version 3.12 trl datasets platformdirs pydantic pydantic-core \\
        typing-inspection annotated-types pyarrow pandas python-dateutil tzdata multiprocess dill xxhash psutil

Weights are random and the command trains a tokenizer, so nothing is downloaded. Every case runs in a separate process.
If a case runs out of memory, its line in the table says so. Several GPUs, vLLM and model quality are not checked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_cases import Case, cases, flops_per_token, init_of, planned, request_of
from benchmarks.stage_requests import ROOT

if TYPE_CHECKING:
    from alignment.recipe.stage_request import StageRequest

# Functions import the toolkit when they are called, because `--wheels` must install packages first.

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "A10": 125, "B200": 2250}
"""bf16 TFLOP/s without sparsity, from the vendors' data sheets. For other GPUs a large matrix product is timed."""


def train_plain(request: StageRequest, out: Path) -> None:
    """Train with TRL's SFTTrainer on a request's rows and settings, in this process.

    Write result.json as a stage does.
    """
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from alignment.models import loading
    from alignment.recipe import SftStage
    from alignment.stages.training import peak_memory_bytes

    class StepTimes(TrainerCallback):
        first = start = last = 0.0  # seconds of the first and the last step after the start

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.last = time.monotonic() - self.start
            self.first = self.first or self.last

    stage, source = request.stage, request.model
    assert isinstance(stage, SftStage) and source is not None and source.init is not None
    tokenizer = AutoTokenizer.from_pretrained(source.tokenizer)
    model = loading.random_model(source.init, tokenizer, 0, getattr(torch, source.dtype))
    loading.set_stop_tokens(model, tokenizer, chat=True)
    model.config.use_cache = False
    cpu = {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}
    args = SFTConfig(str(out), report_to=[], disable_tqdm=True, **{**stage.train, **cpu})
    times = StepTimes()
    trainer = SFTTrainer(
        model=model, args=args, processing_class=tokenizer, callbacks=[times],
        train_dataset=load_dataset("json", data_files=str(stage.data[0].data), split="train", cache_dir=str(out)),
        peft_config=LoraConfig(**stage.peft, task_type="CAUSAL_LM") if stage.peft else None,
    )  # fmt: skip
    trainer.train()
    seconds = time.monotonic() - times.start
    metrics = {
        "steps": trainer.state.global_step, "train_seconds": seconds, "seconds_to_first_step": times.first,
        "seconds_after_first_step": times.last - times.first,
        "peak_memory_bytes": peak_memory_bytes(), "train_loss": trainer.state.log_history[-1].get("train_loss"),
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps({"metrics": metrics}))


def child_environment() -> dict[str, str]:
    """Return the environment for child processes: this process's environment, with the checkout on PYTHONPATH."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def run_case(case: Case, tokenizer: Path, steps: int, card: float, peak: float, limit: float) -> dict[str, Any]:
    """Measure one case in a separate process.

    Args:
        case: the case. This function chooses its batch.
        tokenizer: folder of the tokenizer.
        steps: number of optimizer steps. The first step is not timed.
        card: memory of the GPU in bytes.
        peak: FLOP/s of the GPU, or 0 to omit MFU.
        limit: seconds after which the case is stopped.

    Returns:
        The case's row in the table. `error` describes a failure; `skipped` says that the case does not fit into memory.
    """
    case, memory = planned(case, card)
    overhead = memory.parts.get("process", 0.0) if case.size != "smoke" else 0.0
    row: dict[str, Any] = {
        "case": case.name,
        "batch": case.batch,
        "predicted_gib": round((memory.total - overhead) / 2**30, 2),
    }
    if case.batch == 0:
        return {**row, "skipped": "does not fit by the plan"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        request = request_of(case, tokenizer, folder, steps)
        out = folder / "out"
        out.mkdir()
        module = ["benchmarks", "gpu-check", "--plain"] if case.plain else ["alignment.stages"]
        environment = child_environment()
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "ALIGN_PARENT": str(os.getpid())}
        if case.size == "smoke":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        start = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-m", *module], input=request.to_json(), text=True, env=environment, timeout=limit,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {**row, "error": f"took more than {limit:.0f} s"}
        result = out / "result.json"
        if done.returncode or not result.is_file():
            lines = done.stdout.strip().splitlines() or ["(nothing printed)"]
            return {**row, "error": " | ".join(lines[-3:])[-400:]}
        metrics = json.loads(result.read_text())["metrics"]
        before_training = time.monotonic() - start - metrics["train_seconds"]
        row["start_seconds"] = round(before_training + metrics["seconds_to_first_step"], 1)
    return row | _figures(case, metrics, row["predicted_gib"], peak)


def _figures(case: Case, metrics: dict[str, Any], predicted_gib: float, peak: float) -> dict[str, Any]:
    """Return memory, speed and MFU of a case that ran."""
    measured_gib = metrics["peak_memory_bytes"] / 2**30
    row = {
        "measured_gib": round(measured_gib, 2),
        "ratio": round(predicted_gib / measured_gib, 3),
        "loss": metrics.get("train_loss"),
    }
    seconds, steps = metrics["seconds_after_first_step"], metrics["steps"] - 1
    if case.kind != "grpo" and steps > 0 and seconds > 0:
        # Rows are within a few tokens of `length`; each row of DPO is a pair of answers.
        tokens = steps * case.batch * case.length * (2 if case.kind == "dpo" else 1)
        row["tokens_per_second"] = round(tokens / seconds)
        if peak:
            row["mfu_percent"] = round(100 * tokens / seconds * flops_per_token(case) / peak, 1)
    row["seconds_per_step"] = round(seconds / max(steps, 1), 3)
    return row


EXPORT_SCRIPT = """
import json, sys, time
from pathlib import Path
from transformers import AutoTokenizer
from alignment.export import export
from alignment.models import loading
from alignment.models.source import ModelSource, RandomInit
init, tokenizer, out = json.loads(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[2]), Path(sys.argv[3])
loading.write_random(ModelSource(init=RandomInit(**init)), tokenizer, 0, out / "model")
start = time.monotonic()
rows = export(out / "model", ["q8_0"], out / "files")
print(json.dumps({"seconds": round(time.monotonic() - start, 1), "passed": all(row["passed"] for row in rows)}))
"""


def run_export(size: str, tokenizer: Path) -> dict[str, Any]:
    """Export random weights to GGUF in a separate process, with the usual comparison with the original."""
    row: dict[str, Any] = {"case": f"{size} export q8_0"}
    try:
        import gguf  # noqa: F401
        import xllamacpp  # noqa: F401
    except ImportError as error:
        return {**row, "skipped": f"{error.name} is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", EXPORT_SCRIPT, json.dumps(init_of(size)), str(tokenizer), folder]
        done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
    if done.returncode:
        return {**row, "error": (done.stderr.strip().splitlines() or ["?"])[-1][-400:]}
    return {**row, **json.loads(done.stdout.strip().splitlines()[-1])}


def peak_flops(given: float | None) -> float:
    """Return the bf16 FLOP/s of the GPU, or 0 without a GPU.

    It is `given` (in TFLOP/s), or the data sheet's value, or the measured rate of a large matrix product.
    """
    import torch

    if given:
        return given * 1e12
    if not torch.cuda.is_available():
        return 0.0
    name = torch.cuda.get_device_name()
    if known := next((value for key, value in PEAK_TFLOPS.items() if key in name), None):
        return known * 1e12
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.monotonic()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.monotonic() - start)


def install(wheels: Path) -> None:
    """Install wheels into a temporary folder, and put that folder first in the path of this process and its children.

    Raises:
        ValueError: the folder has no wheels, or pip failed.
    """
    target = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    # Packages that must match the machine's driver are never replaced.
    kept = ("torch-", "triton-", "nvidia_", "cuda_", "transformers-", "accelerate-", "peft-")
    files = [str(file) for file in sorted(wheels.glob("*.whl")) if not file.name.startswith(kept)]
    if not files:
        raise ValueError(f"{wheels} has no wheels to install: fill it with `pip download` (see --help)")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(target), *files]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise ValueError(f"pip could not install the wheels of {wheels}; its output is above")
    sys.path.insert(0, str(target))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])


def describe(row: dict[str, Any]) -> str:
    """Format a row as one line of the table."""
    if failure := next((key for key in ("skipped", "error") if key in row), None):
        return f"{row['case']:28} {failure}: {row[failure]}"
    figures = [f"{key} {row[key]}" for key in row if key not in ("case", "loss") and row[key] is not None]
    return f"{row['case']:28} " + "  ".join(figures)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu-check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on the CPU, to test the check itself")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases whose name has all these words")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of packages that are missing on this machine")
    parser.add_argument(
        "--steps", type=int, default=6, help="optimizer steps of a case, the first not timed (default: 6)"
    )
    parser.add_argument("--limit", type=float, default=900, help="seconds for one case (default: 900)")
    parser.add_argument("--peak-tflops", type=float, help="the GPU's dense bf16 rate, for MFU (default: by its name)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)  # a child process: TRL's side of a case
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.wheels:
        try:
            install(options.wheels)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    if options.plain:
        from alignment.recipe.stage_request import StageRequest

        request = StageRequest.from_json(sys.stdin.read())
        train_plain(request, request.out)
        return 0
    import torch

    if not options.smoke and not torch.cuda.is_available():
        print("error: no GPU found; use --smoke to test the check itself on the CPU", file=sys.stderr)
        return 1
    from data_builders.synthetic.tokenizer import train_tokenizer

    card = float("inf") if options.smoke else float(torch.cuda.mem_get_info()[1])
    peak = 0.0 if options.smoke else peak_flops(options.peak_tflops)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder)
        train_tokenizer(["def add(a, b):\n    return a + b\n"] * 3, 320, tokenizer)
        chosen = [case for case in cases(options.smoke) if all(word in case.name.split() for word in options.only)]
        jobs: list[Callable[[], dict[str, Any]]] = [
            partial(run_case, case, tokenizer, options.steps, card, peak, options.limit) for case in chosen
        ]
        if not options.only or "export" in options.only:
            jobs.append(partial(run_export, "smoke" if options.smoke else "0.5b", tokenizer))
        for job in jobs:
            rows.append(job())
            print(describe(rows[-1]), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        device = "cpu" if options.smoke else torch.cuda.get_device_name()
        value = {"device": device, "peak_tflops": peak / 1e12, "torch": torch.__version__, "rows": rows}
        print(json.dumps(value, indent=2))
    return 1 if any("error" in row for row in rows) else 0
