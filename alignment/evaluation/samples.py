"""Reading completions that were generated elsewhere, in the formats of the common harnesses.

=====================  ==============================================================================================
human-eval, EvalPlus   JSONL of `task_id` with `completion` or `solution`, gzipped or not, one row per sample
EvalPlus               folders `HumanEval_0/0.py`; results with `eval: {task_id: [{solution}]}`
MultiPL-E              files or rows of `name, language, prompt, tests, completions`; results with `program`
Qwen2.5-Coder          `{name: [[0, {code}]]}` per language; `pred_LANG_output.jsonl` with `generation`
this toolkit           its own `completions.jsonl`
=====================  ==============================================================================================
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment.evaluation import catalogue
from alignment.rows.reading import read_rows

Form = Literal["completion", "program", "tested", "function", "raw"]
MULTIPL_E = "multipl-e-"
PYTHON_IDS = r"(?i)(HumanEval|MBPP)[/_]\d+"
FORMATS = (
    "supported formats: HumanEval and EvalPlus (`task_id` with `completion` or `solution`), MultiPL-E, and the "
    "completions.jsonl of this toolkit"
)


@dataclass(frozen=True)
class Sample:
    """One completion of one task."""

    benchmark: str
    """Empty if only the task id tells the benchmark."""
    task_id: str
    text: str
    form: Form = "completion"
    """`completion`: continues the prompt. `program`: a complete program. `tested`: a complete program of MultiPL-E's own
    harness. `function`: complete except for MultiPL-E's tests. `raw`: a model's answer, which the benchmark assembles."""
    mode: Literal["base", "chat"] | None = None
    """The prompts that a `raw` sample answers, if known."""


def read_samples(path: Path, benchmark: str | None = None) -> list[Sample]:
    """Return all samples of a file or folder, in order.

    Args:
        path: a file, or a folder of files.
        benchmark: the benchmark of the samples; by default what the files or ids tell.

    Raises:
        ValueError: a file or row has no supported format; the message names both.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    samples = list(_folder_samples(path, benchmark) if path.is_dir() else _file_samples(path, benchmark))
    if not samples:
        raise ValueError(f"{path} has no completions")
    return samples


def _folder_samples(folder: Path, benchmark: str | None) -> Iterator[Sample]:
    programs = sorted(folder.glob("*/*.py"), key=lambda file: (file.parent.name, _number(file.stem), file.stem))
    programs = [file for file in programs if re.fullmatch(r"(HumanEval|Mbpp)_\d+", file.parent.name)]
    if programs:
        for file in programs:
            yield Sample(benchmark or "", file.parent.name.replace("_", "/"), _read_text(file), "program")
        return
    files = [file for ending in ("*.json", "*.json.gz", "*.jsonl", "*.jsonl.gz") for file in folder.glob(ending)]
    names = {file.name for file in files}
    files = sorted(file for file in files if not _repeats_another(file.name, names))
    if not files:
        raise ValueError(f"{folder} has no completions: no .json, .jsonl or folders such as HumanEval_0 with .py files")
    for file in files:
        yield from _file_samples(file, benchmark)


def _number(stem: str) -> int:
    """Return the number of a file, for sorting; names that are no number come last."""
    return int(stem) if stem.isdigit() else 1 << 30


def _repeats_another(name: str, names: set[str]) -> bool:
    """Whether a file repeats samples of another: harnesses write results and raw answers next to the completions."""
    for ending in ("_eval_results.json", ".eval_results.json", ".raw.jsonl"):
        if name.endswith(ending) and f"{name.removesuffix(ending)}.jsonl" in names:
            return True
    for zipped in ("", ".gz"):
        if name.endswith(f".results.json{zipped}"):
            stem = name.removesuffix(f".results.json{zipped}")
            return f"{stem}.json" in names or f"{stem}.json.gz" in names
    return False


def _file_samples(path: Path, benchmark: str | None) -> Iterator[Sample]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".json"):
        content = _read_json(path)
        if isinstance(content, list) and all(isinstance(row, dict) for row in content):
            for number, row in enumerate(content, 1):
                yield from _row_samples(path, f"{path}, entry {number}", row, benchmark)
        else:
            yield from _document_samples(path, content, benchmark)
        return
    if not name.endswith((".jsonl", ".parquet")):
        raise ValueError(f"{path}: completions must be .jsonl, .json (gzipped or not) or .parquet, or a folder of them")
    for number, row in enumerate(read_rows(path), 1):
        yield from _row_samples(path, f"{path}, row {number}", row, benchmark)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _read_text(path: Path) -> str:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _row_samples(path: Path, where: str, row: dict[str, Any], benchmark: str | None) -> Iterator[Sample]:
    """Samples of one row; `where` names it in errors."""
    if "completions" in row or "program" in row or "results" in row:
        yield from _multipl_e_samples(path, where, row, benchmark)
        return
    if row.get("task_id") is None:
        raise ValueError(f"{where}: no `task_id`; {FORMATS}")
    task_id = str(row["task_id"])
    form: Form
    if row.get("benchmark") and "completion" in row:
        texts, form, name = _texts(where, row, "completion"), "raw", benchmark or str(row["benchmark"])
    elif row.get("solution") is not None:
        texts, form, name = _texts(where, row, "solution"), "program", benchmark or ""
    elif row.get("completion") is not None:
        texts, form, name = _texts(where, row, "completion"), "completion", benchmark or ""
    elif row.get("generation") is not None and task_id.startswith(("HumanEval_", "mbpp_")):
        texts, form, name = _texts(where, row, "generation"), "function", benchmark or _language_benchmark(path)
    else:
        raise ValueError(f"{where}: neither `completion` nor `solution` for {task_id}; {FORMATS}")
    mode = row["mode"] if row.get("mode") in ("base", "chat") else None
    for text in texts:
        yield Sample(name, task_id, text, form, mode)


def _texts(where: str, row: dict[str, Any], key: str) -> Sequence[str]:
    """Return the texts of a column that holds one text, or a list of them for several samples."""
    texts = row[key] if isinstance(row[key], list) else [row[key]]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{where}: `{key}` must be text or a list of texts, not {type(text).__name__}")
    return texts


def _document_samples(path: Path, content: Any, benchmark: str | None) -> Iterator[Sample]:
    """Samples of a JSON file that is one document for many tasks."""
    if isinstance(content, dict) and isinstance(content.get("eval"), dict):
        for task_id, samples in content["eval"].items():
            for sample in samples if isinstance(samples, list) else [samples]:
                if not isinstance(sample, dict) or not isinstance(sample.get("solution"), str):
                    raise ValueError(
                        f"{path}: {task_id} has a verdict but no `solution`: this version of EvalPlus stores its "
                        "programs elsewhere; give the .jsonl or the folder that it graded"
                    )
                yield Sample(benchmark or "", task_id, sample["solution"], "program")
    elif isinstance(content, dict) and ("completions" in content or "program" in content or "results" in content):
        yield from _multipl_e_samples(path, str(path), content, benchmark)
    elif isinstance(content, dict) and "task_id" in content:
        yield from _row_samples(path, str(path), content, benchmark)
    elif isinstance(content, dict) and content and all(isinstance(value, list) for value in content.values()):
        python = all(re.fullmatch(PYTHON_IDS, task_id) for task_id in content)
        name = benchmark or ("" if python else _language_benchmark(path))
        for task_id, samples in content.items():
            for sample in samples:
                value = sample[1] if isinstance(sample, list) and len(sample) == 2 else sample
                if isinstance(value, str) and re.fullmatch(PYTHON_IDS, task_id):
                    yield Sample(benchmark or "", task_id, value)
                    continue
                if not isinstance(value, dict) or not isinstance(value.get("code"), str):
                    raise ValueError(f"{path}: {task_id} has no `code`; {FORMATS}")
                yield Sample(name, task_id, value["code"], "program")
    else:
        raise ValueError(f"{path}: unknown format of completions; {FORMATS}")


def _multipl_e_samples(path: Path, where: str, content: dict[str, Any], benchmark: str | None) -> Iterator[Sample]:
    """Samples of one problem of MultiPL-E's harness: completions for between prompt and tests, or programs that ran."""
    if not isinstance(content.get("name"), str):
        raise ValueError(f"{where}: a MultiPL-E problem needs its `name`")
    name = benchmark or (MULTIPL_E + str(content["language"]) if content.get("language") else _language_benchmark(path))
    if name not in catalogue.BENCHMARKS:
        raise ValueError(f"{where}: MultiPL-E in {name.removeprefix(MULTIPL_E)!r} is not supported")
    if isinstance(content.get("completions"), list):
        for key in ("prompt", "tests"):
            if not isinstance(content.get(key), str):
                raise ValueError(f"{where}: a MultiPL-E problem with completions needs its `{key}`")
        for text in _texts(where, content, "completions"):
            yield Sample(name, content["name"], f"{content['prompt']}{text}\n{content['tests']}", "tested")
        return
    results = content["results"] if isinstance(content.get("results"), list) else [content]
    for result in results:
        if not isinstance(result, dict) or not isinstance(result.get("program"), str):
            raise ValueError(f"{where}: results without their `program`: give the files with `completions`")
        yield Sample(name, content["name"], result["program"], "tested")


def _language_benchmark(path: Path) -> str:
    """The MultiPL-E benchmark by a language's short name in the name of the file or its folder.

    For example `java.json`, `pred_sh_output.jsonl`, `humaneval-cs-details.json`,
    `humaneval-lua-model-0.2-reworded/HumanEval_0.json.gz`.
    """
    for text in (path.name, path.parent.name):
        words = [word for word in re.split(r"[^A-Za-z0-9]+", text) if MULTIPL_E + word in catalogue.BENCHMARKS]
        if words:
            return MULTIPL_E + words[0]
    raise ValueError(f"{path}: the language is unknown: name the benchmark, as in --benchmark multipl-e-java")


def benchmarks_of(sample: Sample, benchmark: str | None) -> tuple[str, ...]:
    """Return the benchmarks that grade a sample; for HumanEval and MBPP by id, those with the extended tests too.

    Args:
        sample: the sample.
        benchmark: the benchmark that the user named, if any.

    Raises:
        ValueError: the task id belongs to no known benchmark.
    """
    if benchmark or sample.benchmark:
        return (benchmark or sample.benchmark,)
    family = re.fullmatch(PYTHON_IDS, sample.task_id)
    if family:
        return (family[1].lower(), family[1].lower() + "+")
    raise ValueError(f"the benchmark of task {sample.task_id!r} is unknown: name it with --benchmark")
