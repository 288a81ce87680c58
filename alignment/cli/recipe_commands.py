"""The commands for recipes: `align run`, `check`, `plan`, `report` and `schema`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignment.cli.shared_options import add_command, add_json, add_recipe

if TYPE_CHECKING:
    from alignment.chain.plan import Step
    from alignment.cli.shared_options import Commands
    from alignment.planning.presentation import Rental
    from alignment.recipe import Recipe
    from alignment.stages.accepted_settings import ConfigTrial


def add(commands: Commands) -> None:
    """Add the parsers of the commands for recipes."""
    run = add_command(commands, "run", "Run the steps of a recipe that are not done yet.")
    add_recipe(run)
    run.add_argument("--until", metavar="STEP", help="stop after this step")
    run.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    run.set_defaults(handler=_run)
    check = add_command(commands, "check", "Check a recipe: report all mistakes at once, with file and line.")
    add_recipe(check)
    check.add_argument(
        "--fast",
        action="store_true",
        help="read only the first 200 rows of each file, do not try the sandbox and interpreters, and do not build TRL's and PEFT's config objects, which takes seconds "
        "after a change of `train:` or `peft:`",
    )
    add_json(check)
    check.set_defaults(handler=_check)
    plan = add_command(commands, "plan", "Show the steps of a recipe, which of them would run, and what they need.")
    add_recipe(plan)
    add_json(plan)
    plan.add_argument(
        "--device-memory", type=float, metavar="GIB", help="memory of one device (default: of this machine's devices)"
    )
    plan.add_argument(
        "--time",
        action="store_true",
        help="measure how fast this machine trains and generates with the model's shape (about 20 s, once), for the hours "
        "of each step",
    )
    plan.add_argument(
        "--hardware",
        metavar="HARDWARE",
        help="plan for 8xH100, 1x24GB or cpu instead of this machine; hours need a card's name",
    )
    plan.add_argument(
        "--price", type=float, metavar="PRICE", help="price of one device for one hour, for the cost of each step"
    )
    plan.set_defaults(handler=_plan)
    report = add_command(commands, "report", "Write the report of a recipe again, from its artifacts.")
    add_recipe(report)
    report.set_defaults(handler=_report)
    add_command(commands, "schema", "Print the recipe's JSON schema, for editors.").set_defaults(handler=_schema)


def _load(arguments: argparse.Namespace) -> Recipe:
    from alignment.recipe import load

    return load(arguments.recipe, arguments.overrides)


def _run(arguments: argparse.Namespace) -> int:
    from alignment.chain.conductor import ChainStopped, run
    from alignment.chain.plan import plan
    from alignment.launch.accelerate_launcher import explain, stopped_code
    from alignment.processes import StopRequested, World, die_with_parent
    from alignment.recipe import RecipeError, locate
    from alignment.recipe.environment_checks import check_environment
    from alignment.tokenization.row_checks import check_before_run

    recipe = _load(arguments)
    if arguments.launched:
        # torch's agent starts this process in its own session, so a killed launcher would leave it running.
        # By SIGTERM, so that training saves a checkpoint if the launcher is ended by a signal that it does not pass on.
        die_with_parent(last_signal=signal.SIGTERM)
    elif not all(step.artifact() for step in plan(recipe)):
        if mistakes := [*check_before_run(recipe), *check_environment(recipe)]:
            raise RecipeError(locate(arguments.recipe, arguments.overrides, mistakes))
        return _become_launcher(recipe, arguments)
    try:
        steps = run(recipe, until=arguments.until)
    except ChainStopped as stop:
        explain(f"stopped: {stop}")
        return 1
    except StopRequested:
        if World.from_environment(os.environ).rank == 0:
            explain("stopped by a signal. Run the same command again to resume.")
        return stopped_code()
    if World.from_environment(os.environ).rank == 0:
        _print_summary(recipe, steps)
    return 0


def _print_summary(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Print the table of metrics after each stage, write the report, and print the report's path."""
    from alignment.chain import ladder
    from alignment.report import page

    for line in ladder.table([step for step in steps if step.rung]):
        print(line)
    print(f"report: {page.write(recipe, steps)}")


def _become_launcher(recipe: Recipe, arguments: argparse.Namespace) -> int:
    """Replace this process by `accelerate launch`, with the launch file that the recipe names."""
    from alignment.installation import shipped

    if recipe.launch is None:
        raise ValueError(
            "the recipe names no `launch:` file: set `launch:` to a file in accelerate_configs/, or start recipes/run.py "
            "with accelerate launch"
        )
    target = shipped() / "recipes" / "run.py"
    options = [item for override in arguments.overrides for item in ("--set", override)]
    options += ["--until", arguments.until] if arguments.until else []
    launcher = ["-m", "alignment.launch.accelerate_launcher", "--config_file", str(recipe.launch.path())]
    command = [sys.executable, *launcher, str(target), str(arguments.recipe), *options]
    os.execv(sys.executable, command)


def _check(arguments: argparse.Namespace) -> int:
    if arguments.fast:
        return _check_with(arguments, None)
    from alignment.stages.accepted_settings import ConfigTrial

    with ConfigTrial() as trial:  # before anything else: its imports take longer than all other checks
        return _check_with(arguments, trial)


def _check_with(arguments: argparse.Namespace, trial: ConfigTrial | None) -> int:
    """Check the recipe and its rows, and on `trial` its settings. Without a trial, skip what takes seconds."""
    from alignment.recipe import RecipeError, TrainingStage, locate
    from alignment.recipe.environment_checks import check_environment
    from alignment.recipe.export_checks import missing_engines
    from alignment.recipe.fim_checks import torn_documents
    from alignment.tokenization.row_checks import FAST_ROWS, check_rows

    recipe = _load(arguments)
    if trial is not None:
        trial.submit([stage for stage in recipe.stages if isinstance(stage, TrainingStage)])
    mistakes, notes = check_rows(recipe, FAST_ROWS if arguments.fast else None)
    if trial is not None:
        mistakes += check_environment(recipe)
        places = {stage.name: index for index, stage in enumerate(recipe.stages)}
        mistakes += [(("stages", places[item.stage], *item.place), item.message) for item in trial.refusals()]
    if mistakes:
        raise RecipeError(locate(arguments.recipe, arguments.overrides, mistakes))
    warnings = [*torn_documents(recipe), *notes]
    if arguments.fast:
        warnings.append(
            f"--fast: the first {FAST_ROWS} rows of each file were read; sandbox, interpreters and config objects were not tried"
        )
    if arguments.json:
        print(json.dumps({"ok": True, "name": recipe.name, "problems": [], "warnings": warnings}, indent=2))
        return 0
    print(f"{arguments.recipe}: no mistakes found; {len(recipe.stages)} stages")
    for warning in warnings:
        print(f"warning: {warning}")
    for engine in missing_engines(recipe):
        command = f"python -m alignment.export.engine_environment {engine}"
        print(f"the run will first install an environment for {engine}; to install it now: {command}")
    return 0


def step_rows(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Return, for each step, the values that `--json` prints."""
    artifacts = [step.artifact() for step in steps]
    return [
        {
            "step": step.name,
            "kind": step.kind,
            "state": "done" if artifact else "begun" if step.folder.exists() else "to do",
            "model": step.model,
            "fingerprint": step.fingerprint,
            "folder": str(step.folder),
            "seconds": (artifact or {}).get("seconds"),
            "peak_memory_mb": (artifact or {}).get("peak_memory_mb"),
        }
        for step, artifact in zip(steps, artifacts, strict=True)
    ]


def _plan(arguments: argparse.Namespace) -> int:
    from alignment.chain.plan import plan
    from alignment.planning import presentation

    recipe = _load(arguments)
    rows = step_rows(plan(recipe))
    rental = _rental(arguments.hardware) if arguments.hardware is not None else None
    if arguments.time:
        _measure_speed(recipe, rental)
    needs = presentation.recipe_needs(recipe, arguments.device_memory, rental=rental, price=arguments.price)
    if arguments.json:
        document = {"name": recipe.name, "folder": str(recipe.folder), "steps": rows, **needs}
        print(json.dumps(document, indent=2))
        return 0
    for row in rows:
        print(f"{row['state']:6}  {row['step']:28} {row['kind']:9} {row['fingerprint'][:12]}")
    print("\n".join(["", *presentation.describe(needs)]))
    return 0


def _rental(text: str) -> Rental:
    """Parse `--hardware`."""
    from alignment.drafting import hardware
    from alignment.planning.cards import CARDS
    from alignment.planning.presentation import Rental
    from alignment.planning.speeds import TRAINING_UTILISATION, CardSpeed

    parsed = hardware.parse(text)
    if parsed.card_gb is None:
        return Rental(1, "cpu", None, None)
    speed = None
    if parsed.card is not None:
        card = CARDS[parsed.card]
        source = f"{parsed.card}: {card.teraflops:g} TFLOP/s, of which {TRAINING_UTILISATION:.0%} are reached"
        speed = CardSpeed(card, source)
    return Rental(parsed.devices, "cuda", parsed.card_gb * 1e9 / 2**30, speed)


def _measure_speed(recipe: Recipe, rental: Rental | None) -> None:
    """Measure what has not been measured on this machine yet."""
    from alignment.planning import resources, speeds
    from alignment.recipe import TrainingStage, launch_file

    if rental is not None and rental.device != "cpu":
        raise ValueError("--time measures this machine: remove it, or remove --hardware")
    layout = launch_file.layout_of(recipe.launch.path() if recipe.launch else None)
    device = rental.device if rental is not None else layout.device
    if device == "cuda" and not resources.card_bytes():
        raise ValueError(
            "--time: the recipe trains on GPUs, and this machine has none: name them, as in --hardware 8xH100, or "
            "--hardware cpu"
        )
    shape = resources.shape_of(recipe.model)
    if shape is None or not shape.vocab_size:
        raise ValueError("--time: the shape of the model is not known yet: download the model, or build the tokenizer")
    layout = replace(layout, device=device)
    stages = [stage for stage in recipe.stages if isinstance(stage, TrainingStage)]
    known = speeds.read_measured(device)
    batches = [resources.micro_batch_of(stage, recipe.model, layout) for stage in stages]
    missing = speeds.unmeasured(known, shape, batches)
    decode = speeds.decode_key(shape) not in known.decoding
    if missing or decode:
        from alignment.stages import speed_probe

        speed_probe.measure(shape, missing, device, decode=decode)


def _report(arguments: argparse.Namespace) -> int:
    from alignment.chain.plan import plan
    from alignment.report import page

    recipe = _load(arguments)
    print(page.write(recipe, plan(recipe)))
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from alignment.recipe import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0
