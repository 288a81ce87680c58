"""Real tokens a second of SFT and of pretraining: this toolkit, plain TRL, LLaMA-Factory and a loop written by hand.

    python benchmarks/training_speed.py --llamafactory OTHER_VENV/bin/python      # without it, that side is left out

The same checkpoint, rows, batch, length, optimizer and precision (float32), on the CPU with one thread; every run is a process
of its own, and the sides take turns. Timed is training after its first step, in seconds of CPU time, which other work on
the machine disturbs least, and in seconds of the clock. Only real tokens count, no padding. LLaMA-Factory (0.9.5) wants
older transformers and TRL than this toolkit, so it has an environment of its own, and versions differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LENGTH, BATCH, RATE = 512, 8, 1e-3  # no row is longer: the sides would cut or drop it, each in its way
MODEL = {
    "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "vocab_size": 1024,
}  # fmt: skip
CASES = {"sft": {"packing": False}, "sft, packed": {"packing": True}, "pretrain": {"packing": True}}
SIDES = ("ours", "trl", "by hand", "llamafactory")


class Clock:
    """Counts from the end of the first step to the end of the last."""

    def __init__(self) -> None:
        self.steps = self.tokens = 0
        self.begun = self.cpu = 0.0
        self.found: dict[str, Any] = {}

    def step(self) -> None:
        """After every optimizer step."""
        if self.steps == 0:
            self.begun, self.cpu, self.tokens = time.monotonic(), time.process_time(), 0
        self.steps += 1
        self.found = {
            "seconds": time.monotonic() - self.begun,
            "cpu": time.process_time() - self.cpu,
            "tokens": self.tokens,
        }

    def callback(self) -> Any:
        """The clock as a callback of transformers' Trainer, whose batches are counted before they are trained on."""
        from transformers import Trainer, TrainerCallback

        clock, trained = self, Trainer.training_step

        def training_step(trainer: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            clock.tokens += real_tokens(inputs)
            return trained(trainer, model, inputs, *rest, **more)

        class Callback(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.step()

        Trainer.training_step = training_step  # type: ignore[method-assign]
        return Callback()


def real_tokens(inputs: Any) -> int:
    """Tokens of a batch that are no padding: by its mask, or by positions that are not those of padding."""
    mask = inputs.get("attention_mask")
    if mask is not None and mask.dim() == 2:
        return int((mask > 0).sum())
    if mask is not None:  # [batch, 1, length, length]: padding sees nothing, or only itself
        return int((inputs["input_ids"] != 0).sum())
    # Rows of samples: padding is a last sample of which nothing is learned.
    positions, labels = inputs["position_ids"], inputs["labels"]
    last = positions.shape[1] - 1 - (positions == 0).flip(-1).int().argmax(-1)
    real = 0
    for row, start in enumerate(last.tolist()):
        unlearned = bool((labels[row, start:] < 0).all())
        real += start if unlearned else positions.shape[1]
    return real


def prepare(folder: Path, rows: int) -> None:
    """Conversations and documents of many lengths, a tokenizer, and a checkpoint with random weights."""
    from alignment.models import loading
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
    tokenizer = loading.load_tokenizer({"path": str(folder / "tokenizer")})
    loading.write_random({"init": MODEL, "dtype": "float32"}, tokenizer, 0, folder / "base")


def trainer_settings(out: Path, steps: int) -> dict[str, Any]:
    return {
        "output_dir": str(out), "max_steps": steps, "per_device_train_batch_size": BATCH, "learning_rate": RATE, "seed": 0,
        "save_strategy": "no", "logging_steps": 10, "report_to": [], "disable_tqdm": True, "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False,
    }  # fmt: skip


def ours(folder: Path, out: Path, case: str, steps: int, clock: Clock) -> None:
    import importlib

    from alignment.recipe.stage_request import Request
    from alignment.stages import training

    kind = case.split(",")[0]
    shared = trainer_settings(out, steps)
    train = {
        key: shared[key] for key in shared if key not in ("output_dir", "seed", "report_to", "disable_tqdm", "use_cpu")
    }
    stage = {
        "name": kind, "kind": kind, "data": [{"data": str(folder / ("chats.jsonl" if kind == "sft" else "documents.jsonl"))}],
        "train": {**train, **CASES[case], "max_length": LENGTH},
    }  # fmt: skip
    stage |= {"fim": {"rate": 0.0}}
    request = {
        "name": kind, "stage": stage, "seed": 0, "out": str(out), "model": {"path": str(folder / "base"), "dtype": "float32"},
        "model_stage": "base", "sandbox": {}, "tracking": {"wandb": "disabled"}, "recipe": "speed", "fingerprint": "0",
    }  # fmt: skip
    callback, recorder = clock.callback(), training.Recorder

    class Recorder(recorder):  # type: ignore[misc, valid-type]
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            super().on_step_end(*arguments, **more)
            callback.on_step_end()

    training.Recorder = Recorder  # type: ignore[misc]
    importlib.import_module(f"alignment.stages.{kind}").run(Request.of(request))


def trl(folder: Path, out: Path, case: str, steps: int, clock: Clock) -> None:
    """As TRL's documentation uses its trainer."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    chats = case.startswith("sft")
    file = folder / ("chats.jsonl" if chats else "documents.jsonl")
    more = {"assistant_only_loss": True} if chats else {"packing_strategy": "bfd_split"}
    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "base", dtype="float32"),
        args=SFTConfig(**trainer_settings(out, steps), **CASES[case], **more, max_length=LENGTH),
        train_dataset=load_dataset("json", data_files=str(file), split="train", cache_dir=str(out)),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        callbacks=[clock.callback()],
    ).train()


def by_hand(folder: Path, out: Path, case: str, steps: int, clock: Clock) -> None:
    """A plain PyTorch loop. SFT pads batches of neighbours in length; "packed", and pretraining, cut one long stream."""
    import random

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chats = case.startswith("sft")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).train()
    rows = [
        json.loads(line) for line in (folder / ("chats.jsonl" if chats else "documents.jsonl")).read_text().splitlines()
    ]
    texts = [
        tokenizer.apply_chat_template(row["messages"], tokenize=False) if chats else row["text"] + "<|endoftext|>"
        for row in rows
    ]
    ids = [tokenizer.encode(text)[:LENGTH] for text in texts]
    if CASES[case]["packing"]:
        random.Random(0).shuffle(ids)
        stream = [token for row in ids for token in row]
        ids = [stream[at : at + LENGTH] for at in range(0, len(stream) - LENGTH + 1, LENGTH)]
    batches = [ids[at : at + BATCH] for at in range(0, len(ids) - BATCH + 1, BATCH)] if CASES[case]["packing"] else []
    if not batches:
        ids.sort(key=len)
        batches = [ids[at : at + BATCH] for at in range(0, len(ids) - BATCH + 1, BATCH)]
    random.Random(0).shuffle(batches)
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


def llamafactory(folder: Path, out: Path, case: str, steps: int, clock: Clock) -> None:
    from llamafactory.train.tuner import run_exp

    chats = case.startswith("sft")
    settings = {
        key: value
        for key, value in trainer_settings(out, steps).items()
        if key not in ("report_to", "gradient_checkpointing")
    }
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


def one(side: str, case: str, folder: Path, steps: int) -> None:
    """A side's process: prints its figures as the last line."""
    run = {"ours": ours, "trl": trl, "by hand": by_hand, "llamafactory": llamafactory}[side]
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        run(folder, Path(out), case, steps, clock)
    print(json.dumps(clock.found))


def measured(side: str, case: str, folder: Path, steps: int, python: str) -> dict[str, float]:
    command = [python, str(Path(__file__).resolve()), "--one", side, case, str(folder), "--steps", str(steps)]
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
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "tokens_per_cpu_second": found["tokens"] / found["cpu"],
        "tokens_per_second": found["tokens"] / found["seconds"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--llamafactory", metavar="PYTHON", help="the interpreter of an environment that has LLaMA-Factory"
    )
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3, help="times that every side has its turn (default: 3)")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument(
        "--rows", type=int, default=400, help="400 are one epoch of 50 steps: other figures draw unequal rows"
    )
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        side, case, folder = arguments.one
        one(side, case, Path(folder), arguments.steps)
        return 0
    sys.path.insert(0, str(ROOT))
    sides = [side for side in SIDES if side != "llamafactory" or arguments.llamafactory]
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        prepare(folder, arguments.rows)
        for case in arguments.only:
            rows: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            for number in range(arguments.rounds):
                for side in sides if number % 2 == 0 else sides[::-1]:
                    python = arguments.llamafactory if side == "llamafactory" else sys.executable
                    rows[side].append(measured(side, case, folder, arguments.steps, python))
            for side in sides:
                own = [row["tokens_per_cpu_second"] for row in rows[side]]
                ratios = sorted(
                    mine["tokens_per_cpu_second"] / other for mine, other in zip(rows["ours"], own, strict=True)
                )
                wall = median(row["tokens_per_second"] for row in rows[side])
                print(
                    f"{case:12} {side:13} {median(own):8.0f} tokens a CPU second, {wall:8.0f} a second; "
                    f"ours is {median(ratios):.2f} of it [{ratios[0]:.2f}, {ratios[-1]:.2f}]", flush=True,
                )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
