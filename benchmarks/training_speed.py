"""Compare tokens per second of SFT and pretraining: this toolkit, plain TRL, LLaMA-Factory and a plain PyTorch loop.

    python -m benchmarks training-speed --llamafactory OTHER_VENV/bin/python      # the option adds LLaMA-Factory

All trainers (sides) use the same checkpoint, rows, batch size, length, optimizer and precision (float32), on the CPU
with one thread. Every run is a separate process, and the trainers take turns. Timing begins after the first step. It
counts CPU seconds, which other work on the machine disturbs least, and wall-clock seconds. Padding does not count as
tokens. LLaMA-Factory (0.9.5) needs older versions of transformers and TRL than this toolkit, and therefore a separate
environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

# This file imports only the standard library here, since LLaMA-Factory's interpreter runs it without the toolkit.

ROOT = Path(__file__).resolve().parents[1]
LENGTH, BATCH, RATE = 512, 8, 1e-3  # no row is longer, since the sides differ in how they shorten long rows
MODEL = {
    "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "vocab_size": 1024,
    "tie_word_embeddings": False,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "sft": {"packing": False},
    "sft, packed": {"packing": True},
    "pretrain": {"packing": True},
}
SIDES = ("ours", "trl", "by hand", "llamafactory")


class StepClock:
    """Count time and tokens from the end of the first optimizer step to the end of the last step."""

    def __init__(self) -> None:
        self.steps = self.tokens = 0
        self.start = self.cpu_start = 0.0
        self.figures: dict[str, float] = {}

    def step(self) -> None:
        """Record the end of an optimizer step. Must be called after every step."""
        if self.steps == 0:
            self.start, self.cpu_start, self.tokens = time.monotonic(), time.process_time(), 0
        self.steps += 1
        self.figures = {
            "seconds": time.monotonic() - self.start,
            "cpu": time.process_time() - self.cpu_start,
            "tokens": self.tokens,
        }

    def callback(self) -> Any:
        """Return a callback for transformers' Trainer, and patch Trainer to count the tokens of each batch."""
        from transformers import Trainer, TrainerCallback

        clock, original_step = self, Trainer.training_step

        def training_step(trainer: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            clock.tokens += real_tokens(inputs)
            return original_step(trainer, model, inputs, *rest, **more)

        class ClockCallback(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.step()

        Trainer.training_step = training_step  # type: ignore[method-assign, assignment]
        return ClockCallback()


def real_tokens(inputs: Any) -> int:
    """Count the tokens of a batch without padding, from its attention mask, or from its positions and labels.

    Shapes: `input_ids`, `labels` and `position_ids` are [rows, tokens]. The mask is [rows, tokens] or
    [rows, 1, tokens, tokens].
    """
    mask = inputs.get("attention_mask")
    if mask is not None and mask.dim() == 2:
        return int((mask > 0).sum())
    if mask is not None:  # four dimensions: padding attends to nothing, or only to itself
        return int((inputs["input_ids"] != 0).sum())
    # In packed rows, padding looks like a last sample without labels.
    positions, labels = inputs["position_ids"], inputs["labels"]
    last = positions.shape[1] - 1 - (positions == 0).flip(-1).int().argmax(-1)
    tokens = 0
    for row, start in enumerate(last.tolist()):
        padded = bool((labels[row, start:] < 0).all())
        tokens += start if padded else positions.shape[1]
    return tokens


def prepare(folder: Path, rows: int) -> None:
    """Write conversations and documents of many lengths, a tokenizer, and a checkpoint with random weights."""
    from alignment.models import loading
    from alignment.models.source import ModelSource, RandomInit
    from data_builders.synthetic.tokenizer import train_tokenizer

    texts = [
        f"def f{n}(x):\n" + "".join(f"    x = x * {k} + {n % 97}\n" for k in range(n * 7 % 29)) for n in range(rows)
    ]
    train_tokenizer(texts, MODEL["vocab_size"], folder / "tokenizer")
    chats = [
        [{"role": "user", "content": f"Write f{n}."}, {"role": "assistant", "content": text}]
        for n, text in enumerate(texts)
    ]
    for name, key, values in (("chats", "messages", chats), ("documents", "text", texts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({key: value}) + "\n" for value in values))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    info = {
        "chats": {
            "file_name": "chats.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags,
        },
        "documents": {"file_name": "documents.jsonl", "columns": {"prompt": "text"}},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    tokenizer = loading.load_tokenizer(ModelSource(path=str(folder / "tokenizer")))
    loading.write_random(
        ModelSource(init=RandomInit.model_validate(MODEL), dtype="float32"), tokenizer, 0, folder / "base"
    )


def rows_file(folder: Path, case: str) -> Path:
    """Return the file with the rows of a case, which `prepare` wrote."""
    return folder / ("chats.jsonl" if case.startswith("sft") else "documents.jsonl")


def trainer_settings(out: Path, steps: int) -> dict[str, Any]:
    """Return the settings of transformers' TrainingArguments that all trainers share."""
    return {
        "output_dir": str(out), "max_steps": steps, "per_device_train_batch_size": BATCH, "learning_rate": RATE, "seed": 0,
        "save_strategy": "no", "logging_steps": 10, "report_to": [], "disable_tqdm": True, "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False,
    }  # fmt: skip


def ours(folder: Path, out: Path, case: str, steps: int, clock: StepClock) -> None:
    """Train with a stage of this toolkit."""
    from alignment.stages import training
    from benchmarks.stage_requests import request_for

    kind = case.split(",")[0]
    settings = trainer_settings(out, steps)
    for key in ("output_dir", "seed", "report_to", "disable_tqdm", "use_cpu"):
        del settings[key]
    stage = {
        "name": kind, "kind": kind, "data": [{"data": str(rows_file(folder, case))}], "fim": {"rate": 0.0},
        "train": {**settings, **CASES[case], "max_length": LENGTH},
    }  # fmt: skip
    request = request_for(stage, {"path": str(folder / "base"), "dtype": "float32"}, out)
    callback, recorder = clock.callback(), training.Recorder

    class ClockedRecorder(recorder):  # type: ignore[misc, valid-type]
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            super().on_step_end(*arguments, **more)
            callback.on_step_end()

    training.Recorder = ClockedRecorder  # type: ignore[misc]
    importlib.import_module(f"alignment.stages.{kind}").run(request)


def trl(folder: Path, out: Path, case: str, steps: int, clock: StepClock) -> None:
    """Train with TRL's trainer, used as in its documentation."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    more: dict[str, Any] = (
        {"assistant_only_loss": True} if case.startswith("sft") else {"packing_strategy": "bfd_split"}
    )
    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "base", dtype="float32"),
        args=SFTConfig(**trainer_settings(out, steps), **CASES[case], **more, max_length=LENGTH),
        train_dataset=load_dataset("json", data_files=str(rows_file(folder, case)), split="train", cache_dir=str(out)),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        callbacks=[clock.callback()],
    ).train()


def by_hand(folder: Path, out: Path, case: str, steps: int, clock: StepClock) -> None:
    """Train with a plain PyTorch loop.

    Without packing, a batch has padded rows of similar length. With packing, and for pretraining, rows are pieces of
    one long stream of tokens, and samples in a row attend to each other.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).train()
    rows = [json.loads(line) for line in rows_file(folder, case).read_text().splitlines()]
    texts = [
        tokenizer.apply_chat_template(row["messages"], tokenize=False)
        if case.startswith("sft")
        else row["text"] + "<|endoftext|>"
        for row in rows
    ]
    batches = hand_made_batches([tokenizer.encode(text)[:LENGTH] for text in texts], CASES[case]["packing"])
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for number in range(steps):
        batch = batches[number % len(batches)]
        width = max(map(len, batch))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
        clock.tokens += int(mask.sum())
        labels = padded.masked_fill(mask == 0, -100)
        model(input_ids=padded, attention_mask=None if mask.all() else mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        clock.step()


def hand_made_batches(ids: list[list[int]], packing: bool) -> list[list[list[int]]]:
    """Make batches of token ids, in a random order.

    With `packing`, rows are pieces of one stream of tokens. Without it, or if the pieces do not fill a batch, a batch
    has rows of similar length.
    """
    batches: list[list[list[int]]] = []
    if packing:
        random.Random(0).shuffle(ids)
        stream = [token for row in ids for token in row]
        ids = [stream[at : at + LENGTH] for at in range(0, len(stream) - LENGTH + 1, LENGTH)]
        batches = [ids[at : at + BATCH] for at in range(0, len(ids) - BATCH + 1, BATCH)]
    if not batches:
        ids.sort(key=len)
        batches = [ids[at : at + BATCH] for at in range(0, len(ids) - BATCH + 1, BATCH)]
    random.Random(0).shuffle(batches)
    return batches


def llamafactory(folder: Path, out: Path, case: str, steps: int, clock: StepClock) -> None:
    """Train with LLaMA-Factory. This function runs in LLaMA-Factory's environment, without this toolkit."""
    from llamafactory.train.tuner import run_exp

    chats = case.startswith("sft")
    settings = trainer_settings(out, steps)
    del settings["report_to"], settings["gradient_checkpointing"]
    run_exp(
        {
            **settings, "stage": "sft" if chats else "pt", "do_train": True, "finetuning_type": "full", "report_to": "none",
            "model_name_or_path": str(folder / "base"), "dataset_dir": str(folder), "dataset": "chats" if chats else "documents",
            "template": "qwen", "cutoff_len": LENGTH, "disable_gradient_checkpointing": True, "flash_attn": "sdpa",
            "preprocessing_num_workers": 1, "overwrite_cache": True,
            **({"packing": True, "neat_packing": True} if chats and CASES[case]["packing"] else {}),
        },
        callbacks=[clock.callback()],
    )  # fmt: skip


def run_side(side: str, case: str, folder: Path, steps: int) -> None:
    """Train with one trainer in this process, and print the measurements as the last line of stdout."""
    train = {"ours": ours, "trl": trl, "by hand": by_hand, "llamafactory": llamafactory}[side]
    clock = StepClock()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        train(folder, Path(out), case, steps, clock)
    print(json.dumps(clock.figures))


def measured(side: str, case: str, folder: Path, steps: int, python: str) -> dict[str, float]:
    """Run one trainer in a separate process.

    Returns:
        `tokens_per_cpu_second` and `tokens_per_second`.

    Raises:
        ValueError: the process failed. The message contains the end of its output.
    """
    command = [python, str(Path(__file__).resolve()), "--side", side, case, str(folder), "--steps", str(steps)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
    }
    environment["PYTHONPATH"] = "" if side == "llamafactory" else str(ROOT)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ValueError(f"{side}, {case}: {(done.stdout + done.stderr)[-2000:]}")
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "tokens_per_cpu_second": figures["tokens"] / figures["cpu"],
        "tokens_per_second": figures["tokens"] / figures["seconds"],
    }


def compare(case: str, folder: Path, rounds: int, steps: int, llamafactory_python: str | None) -> None:
    """Measure all trainers in turns on one case, and print one line for each trainer."""
    sides = [side for side in SIDES if side != "llamafactory" or llamafactory_python]
    rows: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            python = llamafactory_python if side == "llamafactory" and llamafactory_python else sys.executable
            rows[side].append(measured(side, case, folder, steps, python))
    for side in sides:
        rates = [row["tokens_per_cpu_second"] for row in rows[side]]
        ratios = sorted(row["tokens_per_cpu_second"] / rate for row, rate in zip(rows["ours"], rates, strict=True))
        wall = median(row["tokens_per_second"] for row in rows[side])
        print(
            f"{case:12} {side:13} {median(rates):8.0f} tokens per CPU second, {wall:8.0f} per second; "
            f"ours / {side} {median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]", flush=True,
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training-speed", description="Tokens per second beside other trainers."
    )
    parser.add_argument(
        "--llamafactory", metavar="PYTHON", help="interpreter of an environment with LLaMA-Factory (default: skipped)"
    )
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), help="cases (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every side (default: 3)")
    parser.add_argument("--steps", type=int, default=50, help="optimizer steps of a run (default: 50)")
    parser.add_argument(
        "--rows",
        type=int,
        default=400,
        help="rows of the data (default: 400, one epoch in 50 steps; otherwise the sides draw different rows)",
    )
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)  # a child process: side, case, folder
    options = parser.parse_args(arguments)
    if options.side:
        side, case, folder = options.side
        run_side(side, case, Path(folder), options.steps)
        return 0
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        prepare(Path(folder), options.rows)
        for case in options.only:
            compare(case, Path(folder), options.rounds, options.steps, options.llamafactory)
    return 0


if __name__ == "__main__":  # child processes run this file
    raise SystemExit(main())
