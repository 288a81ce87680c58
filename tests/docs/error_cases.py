"""Mistakes that users make, as files and command lines: what `docs/troubleshooting.md` explains."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

CHATS = (
    json.dumps({"messages": [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "a + b"}]}) + "\n"
)
MODEL = "model: {path: Qwen/Qwen2.5-Coder-1.5B}\n"
SFT = "{name: sft, kind: sft, data: [{data: chats.jsonl}]}"


@dataclass(frozen=True)
class ErrorCase:
    """One mistake: files of a folder, and the command that meets them."""

    command: tuple[str, ...] = ("check", "--fast", "recipe.yaml")
    stages: str = f"[{SFT}]"
    """The recipe's `stages:`."""
    more: str = ""
    """Further lines of the recipe."""
    files: dict[str, str] = field(default_factory=dict)


def stage(kind: str, **settings: str) -> str:
    """One stage in YAML's flow style; `data` is a file of conversations unless it is given."""
    values = {"data": "[{data: chats.jsonl}]"} | settings if kind not in ("build", "export") else settings
    lines = ", ".join(f"{key}: {value}" for key, value in values.items())
    return f"[{{name: {kind}, kind: {kind}, {lines}}}]"


CASES: dict[str, ErrorCase] = {
    "unknown setting": ErrorCase(stages=stage("sft", train="{learning_rat: 1e-5}")),
    "unknown kind of stage": ErrorCase(stages=stage("sfft")),
    "wrong type": ErrorCase(stages=stage("sft", train="{max_length: long}")),
    "unknown setting with --set": ErrorCase(("check", "--fast", "recipe.yaml", "--set", "sede=1")),
    "rows are missing": ErrorCase(stages=stage("sft", data="[{data: chat.jsonl}]")),
    "rows of a later stage": ErrorCase(
        stages="[{name: pretrain, kind: pretrain, data: [{data: corpus}]}, {name: corpus, kind: build, builder: synthetic}]"
    ),
    "rows of another kind": ErrorCase(stages=stage("dpo")),
    "rows of another trainer": ErrorCase(
        stages=stage("sft", data="[{data: alpaca.jsonl}]"),
        files={"alpaca.jsonl": json.dumps({"instruction": "Add.", "output": "a + b"}) + "\n"},
    ),
    "damaged rows": ErrorCase(("show", "bad.jsonl"), files={"bad.jsonl": CHATS + "{'messages': []}\n"}),
    "no launch file": ErrorCase(more="launch: gpus.yaml\n"),
    "run without a launch file": ErrorCase(("run", "recipe.yaml")),
    "no checkpoint": ErrorCase(more="", files={"base/README.md": "a model card alone"}),
    "too long": ErrorCase(stages=stage("sft", train="{max_length: 65536}")),
    "unknown builder": ErrorCase(stages=stage("build", builder="corpsu")),
    "unknown repository": ErrorCase(stages=stage("build", builder="corpus", settings="{sources: [nowhere]}")),
    "benchmark without a split": ErrorCase(
        stages=stage("build", builder="private_benchmark", settings="{sources: [.]}")
    ),
    "unknown benchmark": ErrorCase(more="evaluate: [{name: he, benchmark: humanevl}]\n"),
    "samples without a temperature": ErrorCase(more="evaluate: [{name: he, benchmark: humaneval, n: 5}]\n"),
    "gate without its benchmark": ErrorCase(stages=stage("sft", gate="{metric: fim.pass@1, max_drop: 2}")),
    "unknown export format": ErrorCase(stages=stage("export", formats="[q4_k_x]")),
    "quantization without calibration": ErrorCase(stages=stage("export", formats="[gptq-int4]")),
    "not a GGUF file": ErrorCase(("import", "model.gguf", "out"), files={"model.gguf": "<html>404</html>"}),
}
