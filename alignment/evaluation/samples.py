"""Completions made elsewhere, in every form that the common harnesses write, as one list of samples.

=====================  ==============================================================================================
human-eval, EvalPlus   JSONL of `task_id` with `completion` or `solution`, gzipped or not, one row a sample
EvalPlus               folders `HumanEval_0/0.py`; results with `eval: {task_id: [{solution}]}`
MultiPL-E              files or rows of `name, language, prompt, tests, completions`; results with `program`
Qwen2.5-Coder's        `{name: [[0, {code}]]}` per language; `pred_LANG_output.jsonl` with `generation`
this toolkit's         its own `completions.jsonl`
=====================  ==============================================================================================
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_rows import read_rows

logger = logging.getLogger(__name__)

Form = Literal["completion", "program", "tested", "function", "raw"]
MULTIPL_E = "multipl-e-"
PYTHON_IDS = r"(?i)(HumanEval|MBPP)[/_]\d+"
KNOWN = "HumanEval and EvalPlus (`task_id` with `completion` or `solution`), MultiPL-E, or this toolkit's own"


@dataclass(frozen=True)
class Sample:
    """One completion of one task."""

    benchmark: str
    """Empty where only the id tells."""
    task_id: str
    text: str
    form: Form = "completion"
    """`completion` comes behind the prompt, `program` is whole, `tested` is whole and of MultiPL-E's own harness,
    `function` lacks MultiPL-E's tests only, and `raw` is what a model said, for the benchmark to assemble."""
    mode: Literal["base", "chat"] | None = None
    """How the model was asked, where a `raw` sample says it."""


def read_samples(path: Path, benchmark: str | None = None) -> list[Sample]:
    """All samples of a file or a folder, in order. ValueError names the file and row that can't be understood."""
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    samples = list(_of_folder(path, benchmark) if path.is_dir() else _of_file(path, benchmark))
    if not samples:
        raise ValueError(f"{path} holds no completions")
    return samples


def _of_folder(folder: Path, benchmark: str | None) -> Iterator[Sample]:
    programs = sorted(folder.glob("*/*.py"), key=lambda file: (file.parent.name, _number(file.stem), file.stem))
    programs = [file for file in programs if re.fullmatch(r"(HumanEval|Mbpp)_\d+", file.parent.name)]
    if programs:
        for file in programs:
            yield Sample(benchmark or "", file.parent.name.replace("_", "/"), _text(file), "program")
        return
    files = [file for ending in ("*.json", "*.json.gz", "*.jsonl", "*.jsonl.gz") for file in folder.glob(ending)]
    names = {file.name for file in files}
    files = sorted(file for file in files if not _copy_of_another(file.name, names))
    if not files:
        raise ValueError(f"{folder} has no completions: no .json, .jsonl or folders such as HumanEval_0 with .py files")
    for file in files:
        yield from _of_file(file, benchmark)


def _number(stem: str) -> int:
    return int(stem) if stem.isdigit() else 1 << 30


def _copy_of_another(name: str, names: set[str]) -> bool:
    """Harnesses lay results and unprocessed answers beside the completions: the same samples once more."""
    for ending in ("_eval_results.json", ".eval_results.json", ".raw.jsonl"):
        if name.endswith(ending) and f"{name.removesuffix(ending)}.jsonl" in names:
            return True
    for zipped in ("", ".gz"):
        if name.endswith(f".results.json{zipped}"):
            stem = name.removesuffix(f".results.json{zipped}")
            return f"{stem}.json" in names or f"{stem}.json.gz" in names
    return False


def _of_file(path: Path, benchmark: str | None) -> Iterator[Sample]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".json"):
        content = _document(path)
        if isinstance(content, list) and all(isinstance(row, dict) for row in content):
            for number, row in enumerate(content, 1):
                yield from _of_row(path, f"{path}, entry {number}", row, benchmark)
        else:
            yield from _of_document(path, content, benchmark)
        return
    if not name.endswith((".jsonl", ".parquet")):
        raise ValueError(f"{path}: completions come as .jsonl, .json (gzipped or not), .parquet, or a folder of them")
    for number, row in enumerate(read_rows(path), 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: a row is a JSON object, this is {type(row).__name__}")
        yield from _of_row(path, f"{path}, row {number}", row, benchmark)


def _document(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


def _text(path: Path) -> str:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error


def _of_row(path: Path, where: str, row: dict[str, Any], benchmark: str | None) -> Iterator[Sample]:
    if "completions" in row or "program" in row or "results" in row:
        yield from _multipl_e(path, where, row, benchmark)
        return
    if row.get("task_id") is None:
        raise ValueError(f"{where}: no `task_id`; known forms are {KNOWN}")
    task_id = str(row["task_id"])
    form: Form
    if row.get("benchmark") and "completion" in row:
        texts, form, name = _texts(where, row, "completion"), "raw", benchmark or str(row["benchmark"])
    elif row.get("solution") is not None:
        texts, form, name = _texts(where, row, "solution"), "program", benchmark or ""
    elif row.get("completion") is not None:
        texts, form, name = _texts(where, row, "completion"), "completion", benchmark or ""
    elif row.get("generation") is not None and task_id.startswith(("HumanEval_", "mbpp_")):
        texts, form, name = _texts(where, row, "generation"), "function", benchmark or _language_of(path)
    else:
        raise ValueError(f"{where}: neither `completion` nor `solution` for {task_id}; known forms are {KNOWN}")
    mode = row["mode"] if row.get("mode") in ("base", "chat") else None
    for text in texts:
        yield Sample(name, task_id, text, form, mode)


def _texts(where: str, row: dict[str, Any], key: str) -> Sequence[str]:
    """One text, or a list of them for several samples."""
    texts = row[key] if isinstance(row[key], list) else [row[key]]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{where}: `{key}` must be text or a list of texts, not {type(text).__name__}")
    return texts


def _of_document(path: Path, content: Any, benchmark: str | None) -> Iterator[Sample]:
    if isinstance(content, dict) and isinstance(content.get("eval"), dict):
        for task_id, samples in content["eval"].items():
            for sample in samples if isinstance(samples, list) else [samples]:
                if not isinstance(sample, dict) or not isinstance(sample.get("solution"), str):
                    raise ValueError(
                        f"{path}: {task_id} has a verdict but no `solution`: this version of EvalPlus keeps its programs "
                        "elsewhere; give the .jsonl or the folder that it graded"
                    )
                yield Sample(benchmark or "", task_id, sample["solution"], "program")
    elif isinstance(content, dict) and ("completions" in content or "program" in content or "results" in content):
        yield from _multipl_e(path, str(path), content, benchmark)
    elif isinstance(content, dict) and "task_id" in content:
        yield from _of_row(path, str(path), content, benchmark)
    elif isinstance(content, dict) and content and all(isinstance(value, list) for value in content.values()):
        python = all(re.fullmatch(PYTHON_IDS, task_id) for task_id in content)
        name = benchmark or ("" if python else _language_of(path))
        for task_id, samples in content.items():
            for sample in samples:
                found = sample[1] if isinstance(sample, list) and len(sample) == 2 else sample
                if isinstance(found, str) and re.fullmatch(PYTHON_IDS, task_id):
                    yield Sample(benchmark or "", task_id, found)
                    continue
                if not isinstance(found, dict) or not isinstance(found.get("code"), str):
                    raise ValueError(f"{path}: {task_id} has no `code`; known forms are {KNOWN}")
                yield Sample(name, task_id, found["code"], "program")
    else:
        raise ValueError(f"{path}: no form of completions that is known here: {KNOWN}")


def _multipl_e(path: Path, where: str, content: dict[str, Any], benchmark: str | None) -> Iterator[Sample]:
    """One problem of MultiPL-E's own harness: completions to put between prompt and tests, or programs that ran."""
    if not isinstance(content.get("name"), str):
        raise ValueError(f"{where}: a MultiPL-E problem needs its `name`")
    name = benchmark or (MULTIPL_E + str(content["language"]) if content.get("language") else _language_of(path))
    if name not in catalogue.BENCHMARKS:
        raise ValueError(f"{where}: MultiPL-E in {name.removeprefix(MULTIPL_E)!r} is not graded here")
    if isinstance(content.get("completions"), list):
        for key in ("prompt", "tests"):
            if not isinstance(content.get(key), str):
                raise ValueError(f"{where}: a MultiPL-E problem needs its `{key}` to put completions into")
        for text in _texts(where, content, "completions"):
            yield Sample(name, content["name"], f"{content['prompt']}{text}\n{content['tests']}", "tested")
        return
    results = content["results"] if isinstance(content.get("results"), list) else [content]
    for result in results:
        if not isinstance(result, dict) or not isinstance(result.get("program"), str):
            raise ValueError(f"{where}: results without their `program`: give the files with `completions`")
        yield Sample(name, content["name"], result["program"], "tested")


def _language_of(path: Path) -> str:
    """The benchmark by a language's short name in the file's name or its folder's: `java.json`, `pred_sh_output.jsonl`,
    `humaneval-cs-details.json`, `humaneval-lua-model-0.2-reworded/HumanEval_0.json.gz`."""
    for text in (path.name, path.parent.name):
        found = [word for word in re.split(r"[^A-Za-z0-9]+", text) if MULTIPL_E + word in catalogue.BENCHMARKS]
        if found:
            return MULTIPL_E + found[0]
    raise ValueError(f"{path}: which language is this? Name the benchmark, as in --benchmark multipl-e-java")


def benchmarks_of(sample: Sample, given: str | None) -> tuple[str, ...]:
    """What a sample can be graded with: HumanEval and MBPP completions with the extended tests as well."""
    if given or sample.benchmark:
        return (given or sample.benchmark,)
    family = re.fullmatch(PYTHON_IDS, sample.task_id)
    if family:
        return (family[1].lower(), family[1].lower() + "+")
    raise ValueError(f"which benchmark has the task {sample.task_id!r}? Name it with --benchmark")
