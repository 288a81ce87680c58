"""Check an export stage for missing packages, limits of unknown formats, and contradictory or unused settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignment.export.engine_environment import is_ready
from alignment.export.export_settings import Comparison, LevelLimits, Quantize
from alignment.export.export_targets import Target, missing_packages, parse_targets
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.schema import ExportStage, Recipe
from alignment.wording import did_you_mean


def engines_needed(stage: ExportStage) -> list[str]:
    """Return the quantization engines that an export stage needs. Each engine has a separate virtual environment."""
    calibrated = any(target.is_calibrated for target in parse_targets(stage.formats))
    return [(stage.quantize or Quantize()).engine] if calibrated else []


def missing_engines(recipe: Recipe) -> list[str]:
    """Return the engines of a recipe's export stages whose environments are not installed yet."""
    engines = {engine for stage in recipe.stages if isinstance(stage, ExportStage) for engine in engines_needed(stage)}
    return [engine for engine in sorted(engines) if not is_ready(engine)]


def check_stage(stage: ExportStage) -> Iterator[Mistake]:
    """Yield the mistakes in the settings of an export stage. Places are relative to the stage."""
    valid: list[str] = []
    for index, name in enumerate(stage.formats):
        try:
            parse_targets([*valid, name])
        except ValueError as error:
            yield ("formats", index), str(error)
        else:
            valid.append(name)
    targets = parse_targets(valid) if valid else []
    if message := missing_packages(targets):
        yield ("formats",), message
    yield from _check_limits(stage, targets)
    yield from _check_unused(stage, targets)


def limit_names(target: Target) -> set[str]:
    """Return the keys under which `thresholds` and `max_perplexity_change` may give limits for a target."""
    return {target.text, target.gate, f"gguf:{target.gate}"}


def comparison(stage: ExportStage) -> Comparison:
    """Return the stage's comparison settings with all limits in `thresholds`, under the keys that the export uses."""
    limits: dict[str, LevelLimits] = {}
    for target in parse_targets(stage.formats):
        for name in limit_names(target):
            if name in stage.compare.thresholds:
                limits[target.gate] = stage.compare.thresholds[name]
            if name in stage.max_perplexity_change:
                change = {"max_perplexity_increase": stage.max_perplexity_change[name]}
                limits[target.gate] = limits.get(target.gate, LevelLimits()).model_copy(update=change)
    return stage.compare.model_copy(update={"thresholds": limits})


def _check_limits(stage: ExportStage, targets: Sequence[Target]) -> Iterator[Mistake]:
    formats = ", ".join(stage.formats)
    gates = {name: target.gate for target in targets for name in limit_names(target)}
    threshold_names: dict[str, str] = {}  # gate -> the name that `thresholds` uses for it
    for name, limits in stage.compare.thresholds.items():
        place: Place = ("compare", "thresholds", name)
        if name not in gates:
            yield place, f"{name!r} is not among this stage's formats ({formats}).{did_you_mean(name, gates)}"
            continue
        if gates[name] in threshold_names:
            yield place, f"{threshold_names[gates[name]]!r} is the same format: give its thresholds once"
        threshold_names[gates[name]] = name
        if limits.max_pass_at_1_drop is not None and stage.benchmark is None:
            yield (*place, "max_pass_at_1_drop"), "nothing measures pass@1: set `benchmark`"
    for name in stage.max_perplexity_change:
        place = ("max_perplexity_change", name)
        if name not in gates:
            yield place, f"{name!r} is not among this stage's formats ({formats}).{did_you_mean(name, gates)}"
            continue
        other = threshold_names.get(gates[name])
        if other is not None and stage.compare.thresholds[other].max_perplexity_increase is not None:
            yield place, f"compare.thresholds.{other}.max_perplexity_increase sets the same limit: remove one of them"


def _check_unused(stage: ExportStage, targets: Sequence[Target]) -> Iterator[Mistake]:
    calibrated = [target for target in targets if target.is_calibrated]
    quantized = [target for target in targets if target.level is not None and not target.level.is_float]
    if stage.imatrix and stage.imatrix_file is not None:
        yield ("imatrix_file",), "`imatrix: true` computes a matrix instead: remove one of them"
    if (stage.imatrix or stage.imatrix_file is not None) and not quantized:
        key = "imatrix" if stage.imatrix else "imatrix_file"
        yield (key,), "is used only by quantized GGUF levels, such as q4_K_M: remove it"
    if calibrated and stage.calibration is None:
        yield ("formats",), f"{calibrated[0].text} needs rows to calibrate on: set `calibration`"
    if stage.imatrix and stage.calibration is None:
        yield ("imatrix",), "an importance matrix needs rows: set `calibration`"
    if stage.calibration is not None and not calibrated and not stage.imatrix:
        yield ("calibration",), "is used only by GPTQ, AWQ and `imatrix: true`: remove it"
    if stage.quantize is not None:
        if not calibrated:
            yield ("quantize",), "is used only by GPTQ and AWQ: remove it"
        elif "act_order" in stage.quantize.model_fields_set and all(target.kind == "awq" for target in calibrated):
            yield ("quantize", "act_order"), "is used only by GPTQ: remove it"
        elif message := stage.quantize.contradiction():
            yield ("quantize", "act_order"), message
    if stage.split_bytes is not None:
        if not any(target.is_gguf for target in targets):
            yield ("split_bytes",), "is used only by GGUF formats: remove it"
        for target in targets:
            if target.kind == "ollama":
                yield ("split_bytes",), f"Ollama reads a single GGUF file: remove this, or the format {target.text}"
