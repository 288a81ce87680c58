"""`align status` of a chain that runs elsewhere, and `align doctor RECIPE`."""

import importlib.util
import json
import os
import time

import pytest

from alignment.chain.plan import plan
from alignment.chain.run_record import recorded_run
from alignment.cli import main
from alignment.planning import readiness, resources
from alignment.recipe import load


@pytest.fixture
def recipe(write, small):
    return load(write(recipe=small))


@pytest.fixture
def recipe_file(write, small) -> str:
    return str(write(recipe=small))


def begin(step, *, age: float = 0.0) -> None:
    """Write what a running training step leaves, with a heartbeat that is `age` seconds old."""
    (step.folder / "logs").mkdir(parents=True)
    (step.folder / "heartbeat").write_text("1")
    os.utime(step.folder / "heartbeat", (time.time() - age, time.time() - age))
    log = {"step": 5, "max_steps": 20, "loss": 1.25}
    (step.folder / "metrics.jsonl").write_text(json.dumps(log) + "\n")


def states(capsys, place) -> dict[str, dict]:
    assert main(["status", str(place), "--json"]) == 0
    return {row["step"]: row for row in json.loads(capsys.readouterr().out)["steps"]}


def test_a_chain_that_runs_elsewhere_is_shown_by_recipe_and_by_folder(recipe, recipe_file, capsys):
    steps = {step.name: step for step in plan(recipe)}
    with recorded_run(recipe, list(steps.values()), until=None):
        begin(steps["sft"])
        for place in (recipe_file, recipe.folder):
            rows = states(capsys, place)
            assert (rows["sft"]["state"], rows["data"]["state"]) == ("running", "to do")
            assert rows["sft"]["progress"]["step"] == 5 and rows["sft"]["progress"]["steps"] == 20
        assert main(["status", recipe_file]) == 0
        assert "step 5 of 20: loss 1.25" in capsys.readouterr().out


def test_status_writes_nothing_into_the_folder_of_a_run(recipe, capsys):
    steps = plan(recipe)
    begin(steps[1])
    before = {path: path.stat().st_mtime_ns for path in recipe.folder.rglob("*")}
    states(capsys, recipe.folder)
    assert {path: path.stat().st_mtime_ns for path in recipe.folder.rglob("*")} == before


def test_a_step_whose_process_was_killed_is_stopped(recipe, recipe_file, capsys):
    begin(next(step for step in plan(recipe) if step.name == "sft"), age=3600)
    assert states(capsys, recipe_file)["sft"]["state"] == "stopped"


def test_a_folder_without_results_is_explained(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 1
    assert "holds no results of a recipe" in capsys.readouterr().err


def needs(recipe) -> dict[str, readiness.Requirement]:
    return {need.what: need for need in readiness.requirements(recipe)}


def test_the_doctor_says_what_a_recipe_for_gpus_lacks_on_a_machine_without_one(write, small, monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "card_bytes", list)
    (tmp_path / "gpu.yaml").write_text("num_processes: 8\nnum_machines: 2\n")
    found = needs(load(write(recipe=small + f"launch: {tmp_path / 'gpu.yaml'}\n")))
    assert found["devices"].state == "missing" and "starts 4 processes" in found["devices"].detail
    monkeypatch.setattr(resources, "card_bytes", lambda: [80e9] * 4)
    assert needs(load(write(recipe=small + f"launch: {tmp_path / 'gpu.yaml'}\n")))["devices"].state == "ok"


def test_the_doctor_names_the_package_to_install(write, small, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "vllm" else real(name, *more))
    recipe = load(
        write(
            recipe=small.replace("num_generations: 4, max_steps: 3", "num_generations: 4, max_steps: 3, use_vllm: true")
        )
    )
    need = needs(recipe)["package vllm"]
    assert need.state == "missing" and "pip install 'code-alignment[vllm]'" in need.detail


def test_the_doctor_finds_a_grading_service_that_does_not_answer(write, small, monkeypatch):
    monkeypatch.setattr(readiness, "_SERVICE_PATIENCE", 0.1)
    need = needs(load(write(recipe=small.replace("sandbox: {", "sandbox: {address: 'http://127.0.0.1:9', "))))[
        "grading service"
    ]
    assert need.state == "missing" and "does not answer" in need.detail


def test_memory_that_does_not_fit_is_missing(recipe, monkeypatch):
    monkeypatch.setattr(resources, "device_bytes", lambda layout: 1e6)
    need = needs(recipe)["memory of sft"]
    assert need.state == "missing" and "does not fit" in need.detail


def test_the_exit_code_says_whether_the_recipe_can_run(recipe_file, monkeypatch, capsys):
    ok = [readiness.Requirement("disk", "ok", "much")]
    monkeypatch.setattr(readiness, "requirements", lambda recipe: ok)
    assert main(["doctor", recipe_file]) == 0 and "can run here" in capsys.readouterr().out
    ok.append(readiness.Requirement("git", "missing", "install git"))
    assert main(["doctor", "--json", recipe_file]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] is False and document["needs"][1] == {
        "what": "git",
        "state": "missing",
        "detail": "install git",
    }
    assert main(["doctor", "none.yaml"]) == 1
