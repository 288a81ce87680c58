"""Rows of other trainers: the forms that are read teach the answer only, all others are refused with file and row."""

import base64
import json
import re
from collections import Counter
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk

from alignment.models.formats import IGNORED
from alignment.recipe.stage_request import StageRequest
from alignment.stages import dpo, grpo
from alignment.tokenization.prepare import write_training_rows
from alignment.tokenization.segments import TokenizationRules

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "train"


def prepared(kind, path, tokenizer, out):
    """Prepare the rows of a file for a stage. Return (ids, whether each is learned) for each side of the first row."""
    out.mkdir(exist_ok=True)
    if kind in ("dpo", "grpo"):
        stage = {"name": kind, "kind": kind, "data": [{"data": str(path)}]}
        prepare = dpo.prepare_pairs if kind == "dpo" else grpo.prepare_tasks
        prepare(StageRequest.for_stage(stage, out), tokenizer, out)
        row = load_from_disk(str(out / "train"))[0]
        if kind == "grpo":
            return {}
        return {
            side: (row["prompt_ids"] + row[f"{side}_ids"], [0] * len(row["prompt_ids"]) + row[f"{side}_mask"])
            for side in ("chosen", "rejected")
        }
    rules = TokenizationRules(4096, "error", 0.0, 0.0, "lines", None)
    write_training_rows([SimpleNamespace(data=str(path), share=None, rows=None, format=None)], tokenizer, rules, 0, out)
    row = load_from_disk(str(out / "train"))[0]
    return {kind: (row["input_ids"], [label != IGNORED for label in row["labels"]])}


def texts_of(ids, mask, tokenizer):
    """The whole text, and the texts of the runs that are learned, without the ends of turns and documents."""
    runs = [
        [token for token, _ in run]
        for learned, run in groupby(zip(ids, mask, strict=True), lambda pair: pair[1])
        if learned
    ]
    learned = [re.sub(r"(<\|im_end\|>|<\|endoftext\|>)?\s*$", "", tokenizer.decode(run)) for run in runs]
    return tokenizer.decode(ids), [text for text in learned if text]


def faults(right, kind, path, tokenizer, out):
    """Return the differences from the right result. The list is empty if there are none."""
    try:
        sides = prepared(kind, path, tokenizer, out)
    except Exception as error:
        patterns = right.get("refused")
        if patterns is None:
            return [f"refused: {error}"]
        return [f"{pattern} is not in: {error}" for pattern in patterns if not re.search(pattern, str(error))]
    if "sides" not in right:
        return ["not refused"]
    wrong = []
    for side, expected in right["sides"].items():
        text, learned = texts_of(
            *sides["chosen" if side == "chosen" else "rejected" if side == "rejected" else kind], tokenizer
        )
        if "learned" in expected and [part.strip() for part in learned] != [
            part.strip() for part in expected["learned"]
        ]:
            wrong.append(f"{side} learns {learned}")
        wrong += [
            f"{side} learns {part!r}" for part in expected.get("not_learned", []) if any(part in run for run in learned)
        ]
        wrong += [
            f"{side} sees {part!r} {text.count(part)} times"
            for part in expected.get("seen_once", [])
            if text.count(part) != 1
        ]
        wrong += [f"{side} does not see {part!r}" for part in expected.get("seen", []) if part not in text]
        wrong += [f"{side} sees {part!r}" for part in expected.get("not_seen", []) if part in text]
    return wrong


TOOLS = {"tool-calls-content-null", "tools-column", "sft-tool-calls"}
"""Rows with tools are read; tests/stages/test_tool_conversations.py has what they teach."""


@pytest.mark.parametrize("name", ["dpo", "sft"])
def test_every_known_case_gives_its_right_result(name, tiny_tokenizer, tmp_path):
    path = CASES / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip("the file of cases is not here")
    wrong = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        case = json.loads(line)
        if case["input"]["id"] in TOOLS:
            continue
        rows = tmp_path / "rows.jsonl"
        rows.write_text(json.dumps(case["input"]["row"]) + "\n")
        if found := faults(case["right"], case["input"]["stage"], rows, tiny_tokenizer, tmp_path / str(number)):
            wrong[case["input"]["id"]] = found
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


COUNTED = {"dpo-same-up-to-nfc", "dpo-answers-mixed"}
"""Pairs that are equal are dropped and counted."""
UNREAD = {"file-json-array-suffix"}
"""A JSON array in a .json file is read."""


def test_every_known_bad_row_is_refused_with_its_number(tiny_tokenizer, tmp_path):
    path = CASES / "rows.jsonl"
    if not path.is_file():
        pytest.skip("the file of cases is not here")
    wrong, seen = {}, Counter()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        case = json.loads(line)
        name, kind, right = case["input"]["id"], case["input"]["stage"], case["right"]
        if name in COUNTED | UNREAD | TOOLS or kind not in ("dpo", "sft", "pretrain", "grpo"):
            continue
        seen[right["check"]] += 1
        rows = tmp_path / (case["input"].get("file") or "rows.jsonl")
        content = case["input"].get("text", "").encode() or base64.b64decode(case["input"].get("base64", ""))
        if case["input"].get("parquet"):
            pq.write_table(pa.Table.from_pylist([json.loads(line) for line in content.splitlines()]), rows)
        else:
            rows.write_bytes(content)
        if right["check"] == "refuse":
            found = faults({"refused": right["names"]}, kind, rows, tiny_tokenizer, tmp_path / str(number))
        else:
            found = faults({"sides": {}}, kind, rows, tiny_tokenizer, tmp_path / str(number))
        if found:
            wrong[name] = found
    assert not wrong, f"{seen} " + "\n".join(f"{name}: {found}" for name, found in wrong.items())
