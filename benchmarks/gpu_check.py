"""One command on one GPU: speed, MFU and memory of every kind of training at the exact shapes, beside plain TRL and the plan.

    python benchmarks/gpu_check.py                          # 0.5B, 1.5B, 7B; SFT at 4k and 32k, DPO, GRPO, export
    python benchmarks/gpu_check.py --wheels wheels --json   # on a machine without network: what is missing comes as wheels
    python benchmarks/gpu_check.py --smoke                  # tiny shapes on the CPU: that the check itself works

A machine with torch, transformers, accelerate and peft needs these beside them, for its version of Python (here 3.12):

    pip download -d wheels --no-deps --only-binary=:all: --python-version 3.12 trl datasets pydantic pydantic-core \\
        typing-inspection annotated-types pyarrow pandas python-dateutil tzdata multiprocess dill xxhash psutil

Weights are random and the tokenizer is made on the spot, so nothing is downloaded. Every case is a process of its own, so
one that runs out of memory is a line in the table. Not covered: several GPUs, vLLM, the quality of anything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from stage_requests import stage_request  # noqa: E402

LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
# Dense bf16, without sparsity, from the vendors' data sheets; for others give --peak-tflops, or a matrix product is timed.
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "A10": 125, "B200": 2250}
SMOKE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One thing to measure: `kind` of stage at one size and length, of ours or of plain TRL."""

    size: str
    kind: str
    length: int
    lora: bool = False
    plain: bool = False
    batch: int = 1

    @property
    def name(self) -> str:
        parts = [
            self.size,
            self.kind,
            "lora" if self.lora else "full",
            str(self.length),
            "TRL" if self.plain else "ours",
        ]
        return " ".join(parts)


def cases(smoke: bool) -> list[Case]:
    """Everything that is measured; plain TRL runs beside ours where the work is the same."""
    if smoke:
        found = [
            Case("smoke", "sft", 256),
            Case("smoke", "sft", 256, lora=True),
            Case("smoke", "dpo", 256),
            Case("smoke", "grpo", 32),
        ]
    else:
        found = [
            Case(size, "sft", length, lora)
            for size in ("0.5b", "1.5b", "7b")
            for length in (4096, 32768)
            for lora in (False, True)
        ]
        found += [Case(size, "dpo", 2048, lora) for size, lora in (("0.5b", False), ("1.5b", False), ("7b", True))]
        found += [Case(size, "grpo", 512, lora) for size, lora in (("0.5b", False), ("1.5b", False), ("7b", True))]
    return [case for one in found for case in ([one, replace(one, plain=True)] if one.kind == "sft" else [one])]


def init_of(size: str) -> dict[str, Any]:
    """The `init` of a recipe for one of the exact shapes."""
    from alignment.models.shapes import MAX_POSITION_EMBEDDINGS, ROPE_THETA, SHAPES

    shape = SMOKE | {"tie_word_embeddings": True} if size == "smoke" else asdict(SHAPES[size])
    return {**shape, "max_position_embeddings": MAX_POSITION_EMBEDDINGS, "rope_theta": ROPE_THETA}


def settings(case: Case, steps: int) -> dict[str, Any]:
    """The stage's `train:`."""
    cuda = case.size != "smoke"
    found: dict[str, Any] = {
        "max_steps": steps, "save_strategy": "no", "logging_steps": 1, "learning_rate": 1e-5, "bf16": cuda,
        "per_device_train_batch_size": case.batch, "gradient_checkpointing": cuda and case.length > 4096,
    }  # fmt: skip
    if case.kind == "grpo":
        group = 4 if case.size == "smoke" else 16
        found |= {"num_generations": group, "max_completion_length": case.length, "per_device_train_batch_size": group}
        found |= {"gradient_checkpointing": cuda}
    else:
        found["max_length"] = case.length
    if case.kind == "dpo":
        found |= {"precompute_ref_log_probs": not case.lora, "gradient_checkpointing": cuda}
    return found


def dtype_of(case: Case) -> str:
    """All weights are trained in float32 under bf16 arithmetic; beside an adapter they are frozen in bf16."""
    return "bfloat16" if case.lora and case.size != "smoke" else "float32"


def planned(case: Case, card: float) -> tuple[Case, Any]:
    """The case with the largest batch that the plan lets fit (at most 64k tokens), and what is predicted for it."""
    from alignment.planning import memory
    from alignment.planning.resources import shape_of, work_of
    from alignment.recipe import BaseModelSettings
    from alignment.recipe.stage_request import _STAGE

    with tempfile.TemporaryDirectory() as folder:
        request = request_of(case, Path(folder), Path(folder), 2)
    stage = _STAGE.validate_python(request["stage"])
    model = BaseModelSettings(init=request["model"]["init"], tokenizer="x", dtype=request["model"]["dtype"])
    shape, layout = shape_of(model), memory.Layout(device="cpu" if case.size == "smoke" else "cuda")
    assert shape is not None
    work = replace(work_of(stage, model, layout), masked=case.kind in ("dpo", "grpo"))
    if case.kind == "grpo":
        return case, memory.predict(shape, replace(work, length=case.length + 100), layout)
    most = 4 if case.size == "smoke" else max(1, 65536 // case.length)
    best = min(most, memory.largest_batch(shape, work, layout, card * 0.92))
    return replace(case, batch=best), memory.predict(shape, replace(work, batch=max(best, 1)), layout)


def request_of(case: Case, tokenizer: Path, folder: Path, steps: int) -> dict[str, Any]:
    rows = max(64, case.batch * (steps + 1))
    return stage_request(
        case.kind, init_of(case.size), settings(case, steps), LORA if case.lora else None, tokenizer, folder,
        length=case.length, dtype=dtype_of(case), rows=rows,
    )  # fmt: skip


def flops_per_token(case: Case) -> float:
    """Model FLOPs of one trained token, recomputation not counted: 6 a weight (4 under a frozen one), and causal attention."""
    from alignment.models.shapes import Shape

    init = init_of(case.size)
    shape = Shape(**{key: init[key] for key in Shape.__dataclass_fields__ if key != "rms_norm_eps"}, rms_norm_eps=1e-6)
    embedding = shape.vocab_size * shape.hidden_size
    weights = shape.parameters - (0 if shape.tie_word_embeddings else embedding)  # looking a row up costs nothing
    return (4 if case.lora else 6) * weights + 6 * shape.num_hidden_layers * shape.hidden_size * case.length


def train_plain(request: dict[str, Any], out: Path) -> None:
    """The same rows and settings with TRL's SFTTrainer alone, in this process; leaves result.json like a stage."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from alignment.models import loading

    class Clock(TrainerCallback):
        first = begun = last = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.last = time.monotonic() - self.begun
            self.first = self.first or self.last

    stage, source = request["stage"], request["model"]
    tokenizer = AutoTokenizer.from_pretrained(source["tokenizer"])
    model = loading.random_model(source["init"], tokenizer, 0, getattr(torch, source["dtype"]))
    loading.set_stop_tokens(model, tokenizer, chat=True)
    model.config.use_cache = False
    cpu = {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}
    args = SFTConfig(str(out), report_to=[], disable_tqdm=True, **{**stage["train"], **cpu})
    clock = Clock()
    trainer = SFTTrainer(
        model=model, args=args, processing_class=tokenizer, callbacks=[clock],
        train_dataset=load_dataset("json", data_files=stage["data"][0]["data"], split="train", cache_dir=str(out)),
        peft_config=LoraConfig(**stage["peft"], task_type="CAUSAL_LM") if stage["peft"] else None,
    )  # fmt: skip
    trainer.train()
    seconds = time.monotonic() - clock.begun
    from alignment.stages.training import _peak_memory

    metrics = {
        "steps": trainer.state.global_step, "train_seconds": seconds, "seconds_to_first_step": clock.first,
        "seconds_after_first_step": clock.last - clock.first,
        "peak_memory_bytes": _peak_memory(), "train_loss": trainer.state.log_history[-1].get("train_loss"),
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps({"metrics": metrics}))


def run_case(case: Case, tokenizer: Path, steps: int, card: float, peak: float, limit: float) -> dict[str, Any]:
    """Measure one case in a fresh process; what went wrong is in `error`."""
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
        module = ["-m", "alignment.stages"] if not case.plain else [str(Path(__file__).resolve()), "--plain"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "ALIGN_PARENT": str(os.getpid())}
        if case.size == "smoke":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        started = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, *module], input=json.dumps(request), text=True, env=environment, timeout=limit,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {**row, "error": f"took more than {limit:.0f} s"}
        result = out / "result.json"
        if done.returncode or not result.is_file():
            lines = done.stdout.strip().splitlines() or ["(nothing printed)"]
            return {**row, "error": " | ".join(lines[-3:])[-400:]}
        found = json.loads(result.read_text())["metrics"]
        row["start_seconds"] = round(
            time.monotonic() - started - found["train_seconds"] + found["seconds_to_first_step"], 1
        )
    measured = found["peak_memory_bytes"] / 2**30
    row |= {
        "measured_gib": round(measured, 2),
        "ratio": round(row["predicted_gib"] / measured, 3),
        "loss": found.get("train_loss"),
    }
    later = found["seconds_after_first_step"]
    if case.kind != "grpo" and found["steps"] > 1 and later > 0:
        # Rows fill their length to a few tokens; an answer of DPO has its pair.
        tokens = (found["steps"] - 1) * case.batch * case.length * (2 if case.kind == "dpo" else 1)
        row["tokens_per_second"] = round(tokens / later)
        if peak:
            row["mfu_percent"] = round(100 * tokens / later * flops_per_token(case) / peak, 1)
    row["seconds_per_step"] = round(later / max(found["steps"] - 1, 1), 3)
    return row


def run_export(size: str, tokenizer: Path) -> dict[str, Any]:
    """GGUF of random weights, with the comparison that every export has."""
    row: dict[str, Any] = {"case": f"{size} export q8_0"}
    code = (
        "import sys, json, time; from pathlib import Path; from alignment import models; from transformers import AutoTokenizer\n"
        "from alignment.export import export\n"
        "init, tokenizer, out = json.loads(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[2]), Path(sys.argv[3])\n"
        "models.write_random({'init': init, 'dtype': 'bfloat16'}, tokenizer, 0, out / 'model'); begun = time.monotonic()\n"
        "rows = export(out / 'model', ['q8_0'], out / 'files')\n"
        "print(json.dumps({'seconds': round(time.monotonic() - begun, 1), 'passed': all(row['passed'] for row in rows)}))\n"
    )
    try:
        import gguf  # noqa: F401
        import xllamacpp  # noqa: F401
    except ImportError as error:
        return {**row, "skipped": f"{error.name} is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        command = [sys.executable, "-c", code, json.dumps(init_of(size)), str(tokenizer), folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {**row, "error": (done.stderr.strip().splitlines() or ["?"])[-1][-400:]}
    return {**row, **json.loads(done.stdout.strip().splitlines()[-1])}


def peak_flops(given: float | None) -> float:
    """bf16 FLOP/s of the card: as given, from its name, or as a large matrix product runs; 0 without a GPU."""
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
    begun = time.monotonic()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.monotonic() - begun)


def install(wheels: Path) -> None:
    """Unpack the wheels into a folder of their own, first on the path of this process and of all that it starts."""
    target = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    # What the machine's own driver and card need is never replaced, whatever was carried along.
    own = ("torch-", "triton-", "nvidia_", "cuda_", "transformers-", "accelerate-", "peft-")
    files = [str(file) for file in sorted(wheels.glob("*.whl")) if not file.name.startswith(own)]
    if not files:
        raise ValueError(f"{wheels} holds no wheel")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(target), *files]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise ValueError(f"pip could not install the wheels of {wheels} (it says why above)")
    sys.path.insert(0, str(target))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])


def describe(row: dict[str, Any]) -> str:
    """One line of the table."""
    if what := next((key for key in ("skipped", "error") if key in row), None):
        return f"{row['case']:28} {what}: {row[what]}"
    figures = [f"{key} {row[key]}" for key in row if key not in ("case", "loss") and row[key] is not None]
    return f"{row['case']:28} " + "  ".join(figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on the CPU, to test the check itself")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases whose name has all these words")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels for packages that are missing here")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of a case, the first not timed")
    parser.add_argument("--limit", type=float, default=900, help="seconds for one case")
    parser.add_argument("--peak-tflops", type=float, help="the card's dense bf16 rate, for MFU")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.wheels:
        try:
            install(arguments.wheels)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    if arguments.plain:
        request = json.load(sys.stdin)
        train_plain(request, Path(request["out"]))
        return 0
    import torch

    if not arguments.smoke and not torch.cuda.is_available():
        print("there is no GPU here: --smoke tests the check itself on the CPU", file=sys.stderr)
        return 1
    from data_builders.synthetic.tokenizer import train_tokenizer

    card = float("inf") if arguments.smoke else float(torch.cuda.mem_get_info()[1])
    peak = 0.0 if arguments.smoke else peak_flops(arguments.peak_tflops)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder)
        train_tokenizer(["def add(a, b):\n    return a + b\n"] * 3, 320, tokenizer)
        names = [case for case in cases(arguments.smoke) if all(word in case.name.split() for word in arguments.only)]
        jobs: list[Any] = [
            lambda case=case: run_case(case, tokenizer, arguments.steps, card, peak, arguments.limit) for case in names
        ]
        if not arguments.only or "export" in arguments.only:
            jobs.append(lambda: run_export("smoke" if arguments.smoke else "0.5b", tokenizer))
        for job in jobs:
            rows.append(job())
            print(describe(rows[-1]), file=sys.stderr if arguments.json else sys.stdout, flush=True)
    device = "cpu" if arguments.smoke else torch.cuda.get_device_name()
    if arguments.json:
        print(
            json.dumps(
                {"device": device, "peak_tflops": peak / 1e12, "torch": torch.__version__, "rows": rows}, indent=2
            )
        )
    return 1 if any("error" in row for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
