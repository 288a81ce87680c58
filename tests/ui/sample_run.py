"""A folder of results like that of a recipe, written by hand: no training is needed to test what reads it."""

import json
from pathlib import Path

STEPS = [
    ("corpus", "build", None, None),
    ("evaluate-base", "evaluate", "base", "base"),
    ("sft", "sft", "base", None),
    ("evaluate-sft", "evaluate", "sft", "sft"),
    ("rl", "grpo", "sft", None),
    ("export", "export", "rl", None),
]
HOSTILE = '<img src=x onerror="window.stolen = 1"><script>window.stolen = 1</script>'


def folder_of(run: Path, name: str) -> Path:
    return run / "artifacts" / f"{name}-0123456789ab"


def write_lines(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def metrics(first: int, last: int, most: int = 100):
    """Lines of metrics.jsonl: 100 tokens in half a second per step."""
    return [
        {"step": n, "max_steps": most, "seconds": n / 2, "loss": 2 - n / most, "num_tokens": 100 * n, "learning_rate": 1e-4}
        for n in range(first, last + 1)
    ]  # fmt: skip


def rollouts(count: int, hostile: str = ""):
    return [
        {
            "step": n // 64, "task": f"task-{n % 50}{hostile}", "reward": [0.0, 1.0, 0.5, None][n % 4],
            "verdict": ["wrong_answer", "passed", "passed", "error"][n % 4], "detail": f"detail {n}", "tokens": n % 90,
            "prompt": [{"role": "user", "content": f"Add {n}.{hostile}"}],
            "turns": [{"role": "assistant", "content": f"x + {n}{hostile}"}],
        }
        for n in range(count)
    ]  # fmt: skip


def finish(run: Path, name: str, kind: str, model=None, **content) -> None:
    folder = folder_of(run, name)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    artifact = {
        "stage": name, "kind": kind, "model": model, "inputs": {}, "seed": 1, "seconds": 30.0,
        "started": "2026-12-01T00:00:00+00:00", **content,
    }  # fmt: skip
    (folder / "artifact.json").write_text(json.dumps(artifact))


def evaluation(run: Path, name: str, model: str, passed: list[int], hostile: str = "") -> None:
    """A finished evaluation with one benchmark."""
    folder = folder_of(run, name)
    figure = {"benchmark": "fim", "metric": "pass@1", "value": 100 * sum(passed) / len(passed), "n": len(passed)}
    finish(run, name, "evaluate", model, figures=[{**figure, "low": 5.0, "high": 95.0, "seed": 1}])
    keys = [{"benchmark": "fim", "task_id": f"t{n}{hostile}", "sample": 0} for n in range(len(passed))]
    write_lines(folder / "completions.jsonl", [{**key, "completion": f"by {model}{hostile}", "finish": "stop", "tokens": 3} for key in keys])  # fmt: skip
    write_lines(
        folder / "verdicts.jsonl",
        [{**key, "status": "passed" if ok else "failed", "reason": "", "scores": {"pass": float(ok)}} for key, ok in zip(keys, passed, strict=True)],
    )  # fmt: skip


def write_run(run: Path, *, state: str = "failed", message: str = "", hostile: str = "", count: int = 200) -> Path:
    """Write a run in which `rl` was begun and is not done."""
    steps = [
        {"name": name, "kind": kind, "folder": folder_of(run, name).name, "model": model, "rung": rung, "inputs": [], "settings": {"kind": kind}}
        for name, kind, model, rung in STEPS
    ]  # fmt: skip
    run.mkdir(parents=True)
    record = {"name": f"shop{hostile}", "seed": 1, "state": state, "message": message + hostile, "steps": steps}
    (run / "run.json").write_text(json.dumps({**record, "process": 2**22 + 1, "host": "elsewhere", "started": "2026-12-01T00:00:00+00:00"}))  # fmt: skip
    summary = {
        "title": "Code corpus", "rows": 365, "languages": {"python": 336, "yaml": 29}, "sources": [f"shop{hostile} 2281a204"],
        "removed": {"too_short": 28, "near_duplicate": 1}, "redacted": {"EMAIL": 7}, "settings": {"deduplicate": True},
    }  # fmt: skip
    finish(run, "corpus", "build", summary=summary)
    removed = {"repository": "shop", "path": f"a.py{hostile}", "reason": "too_short", "bytes": 3, "detail": ""}
    write_lines(folder_of(run, "corpus") / "removed.jsonl", [removed])
    evaluation(run, "evaluate-base", "base", [0, 0, 1, 1], hostile)
    finish(run, "sft", "sft", "base", metrics={"train_loss": 0.5, "steps": 100})
    write_lines(folder_of(run, "sft") / "metrics.jsonl", metrics(1, 100))
    evaluation(run, "evaluate-sft", "sft", [1, 1, 1, 0], hostile)
    rl = folder_of(run, "rl")
    write_lines(rl / "metrics.jsonl", metrics(1, 3))
    write_lines(rl / "rollouts" / "rank-0.jsonl", rollouts(count, hostile))
    (rl / "logs").mkdir()
    (rl / "logs" / "rank0.log").write_text(f"loading\r 50%\r100%\n\x1b[31mstep 1{hostile}\x1b[0m\nstep 2\n")
    return run
