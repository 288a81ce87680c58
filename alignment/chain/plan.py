"""From a recipe to a list of steps, each with the fingerprint of everything that could change its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment import recipe as recipes
from alignment.chain.artifacts import VERSIONS, Digests, read
from alignment.extensions import ExtensionReference
from alignment.fingerprints import fingerprint, package_versions
from alignment.recipe import AnyStage, EvaluateStage, Recipe, Reference, wiring
from alignment.recipe.yaml_source import replace_at

# In no fingerprint: what a stage is called, what is measured after it, how fast it runs.
_UNHASHED: dict[str, Any] = {"name": True, "gate": True, "evaluate": True, "model": True}
# What a stage's rows become token ids by, and where they are kept for the next run (see `alignment.tokenization.prepare`).
PREPARED = "prepared"
_PREPARES = ("kind", "data", "seed", "fim", "overlong", "max_prompt_length")
_PREPARES_IN_TRAIN = ("max_length", "packing", "packing_strategy")
_PREPARED_WITH = ("transformers", "trl", "datasets", "code-alignment")


@dataclass(frozen=True)
class Step:
    """One stage, or one evaluation that the recipe's `evaluate:` puts after a stage."""

    name: str
    stage: AnyStage
    seed: int
    model: str | None
    """The step whose model this one reads, `base`, or None."""
    rung: str | None
    """For an evaluation: whose rung of the ladder it measures."""
    fingerprint: str
    inputs: dict[str, str]
    """Fingerprints of the steps it reads, by name."""
    folder: Path
    request: dict[str, Any] = field(repr=False)
    """All that the stage's process needs to know."""

    @property
    def kind(self) -> str:
        return self.stage.kind

    @property
    def trains(self) -> bool:
        return self.kind in recipes.MODEL_KINDS

    def artifact(self) -> dict[str, Any] | None:
        return read(self.folder)


def plan(recipe: Recipe) -> list[Step]:
    """All steps in order. Reads files to fingerprint them; the cache of digests makes that cheap."""
    digests = Digests(recipe.folder / ".digests.json")
    done: dict[str, Step] = {}
    for name, stage, model, rung in _order(recipe):
        done[name] = _step(recipe, name, stage, model, rung, done, digests)
    digests.save()
    return list(done.values())


def _order(recipe: Recipe) -> list[tuple[str, AnyStage, str | None, str | None]]:
    """(name, stage, model, rung), with evaluations inserted: one of the base first, one after each training stage."""
    order: list[tuple[str, AnyStage, str | None, str | None]] = []
    based = False
    for index, stage in enumerate(recipe.stages):
        model = wiring.model_of(recipe, index)
        if stage.kind in recipes.MODEL_KINDS and recipe.evaluate and not based:
            order.append(_evaluation(recipe, wiring.BASE, None))
            based = True
        rung = model if stage.kind == "evaluate" else None
        order.append((stage.name, stage, model, rung))
        if isinstance(stage, recipes.TrainingStage) and recipe.evaluate and stage.evaluate:
            order.append(_evaluation(recipe, stage.name, stage.seed))
    return order


def _evaluation(recipe: Recipe, model: str, seed: int | None) -> tuple[str, AnyStage, str, str]:
    name = f"evaluate-{model}"
    stage = EvaluateStage(name=name[:64], kind="evaluate", model=model, benchmarks=recipe.evaluate, seed=seed)
    return name, stage, model, model


def _targets(recipe: Recipe, resolve: Callable[[Reference], tuple[str, Any]]) -> tuple[dict[str, Any], list[Any]]:
    """What training rows are held against: for the stage's request, and for its fingerprint."""
    benchmarks, contents = [], []
    allowed: dict[str, str] = {}
    for benchmark in wiring.benchmarks(recipe):
        if benchmark.allow_overlap is not None:
            allowed[benchmark.name] = benchmark.allow_overlap
            continue
        path, content = resolve(benchmark.data) if benchmark.data is not None else (None, None)
        measured: Any = benchmark.benchmark
        code, measured = resolve(measured) if isinstance(measured, ExtensionReference) else (measured, measured)
        entry = {"name": benchmark.name, "benchmark": code, "data": path}
        if [measured, content] not in contents:
            benchmarks.append(entry)
            contents.append([measured, content])
    paths = []
    for reference in recipe.decontaminate:
        path, content = resolve(reference)
        paths.append(path)
        contents.append(content)
    sandbox = recipe.sandbox.model_dump(mode="json")
    return {"benchmarks": benchmarks, "paths": paths, "allowed": allowed, "sandbox": sandbox}, contents


def _preparation(stage: recipes.TrainingStage, marked: dict[str, Any], read: Any) -> str:
    """The fingerprint of all that tokenizing and packing depend on: the same rows, prepared the same way, once.

    Every model of a chain has the tokenizer of its base, so nothing of earlier training counts.
    """
    settings = {key: marked[key] for key in _PREPARES if key in marked}
    train = {key: stage.train[key] for key in _PREPARES_IN_TRAIN if key in stage.train}
    versions = {package: version for package, version in package_versions().items() if package in _PREPARED_WITH}
    return fingerprint([VERSIONS[marked["kind"]], settings, train, read, versions])


def _step(
    recipe: Recipe,
    name: str,
    stage: AnyStage,
    model: str | None,
    rung: str | None,
    done: dict[str, Step],
    digests: Digests,
) -> Step:
    seed = recipe.seed if stage.seed is None else stage.seed
    inputs: dict[str, str] = {}
    contents: dict[str, Any] = {}

    from alignment.recipe.builders import SourceReference

    def resolve(reference: Reference) -> tuple[str, Any]:
        """Where a reference leads, and what stands for its content in the fingerprint."""
        if isinstance(reference, ExtensionReference):
            extension = reference.extension()
            return reference.resolved(), [extension.name, extension.digest()]
        if isinstance(reference, SourceReference):
            return reference.location(), None  # the builder's own `inputs` say which commits
        origin = reference.stage(list(done))
        if origin is not None:
            inputs[origin] = done[origin].fingerprint
            return str(done[origin].folder / reference.inside()), [done[origin].fingerprint, reference.inside()]
        if wiring.is_hub_name(reference):
            return str(reference), ["hub", str(reference)]
        return str(reference.path()), digests.of(reference.path())

    settings = marked = stage.model_dump(mode="json")
    for location, reference in wiring.references(stage):
        path, content = resolve(reference)
        settings = replace_at(settings, location, path)
        marked = replace_at(marked, location, content)
    source: dict[str, Any] | None = None
    if model == wiring.BASE:
        source = recipe.model.model_dump(mode="json")
        contents["base"] = {**source, "attn_implementation": None}
        del contents["base"]["use_kernels"]
        for (_, key), reference in wiring.base_references(recipe):
            source[str(key)], contents["base"][key] = resolve(reference)
    elif model is not None:
        inputs[model] = done[model].fingerprint
        source = {
            "path": str(done[model].folder / "model"),
            "dtype": recipe.model.dtype,
            "attn_implementation": recipe.model.attn_implementation,
            "use_kernels": recipe.model.use_kernels,
        }
    hashed = {key: value for key, value in marked.items() if key not in _UNHASHED}
    for benchmark in hashed.get("benchmarks", []):
        benchmark.pop("allow_overlap")  # a matter of training, not of measuring
    targets: dict[str, Any] = {}
    if isinstance(stage, recipes.TrainingStage):
        targets, contents["decontaminate"] = _targets(recipe, resolve)
        if not contents["decontaminate"]:
            del contents["decontaminate"]
    hashed |= {"seed": seed, "model": inputs.get(model or "", model)}
    if isinstance(stage, recipes.BuildStage):
        from alignment.recipe.builders import inputs as builder_inputs

        contents["builder"] = builder_inputs(stage.model_copy(update={"settings": settings["settings"]}))
    if isinstance(stage, recipes.GrpoStage | EvaluateStage | recipes.BuildStage):
        hashed["sandbox"] = recipe.sandbox.model_dump(exclude={"address", "workers", "allow_weaker"})
    # Inputs count by what they are, not by what their stages are called.
    read_from = sorted(inputs.values())
    mark = fingerprint({"version": VERSIONS[stage.kind], "settings": hashed, "contents": contents, "inputs": read_from})
    folder = recipe.folder / "artifacts" / f"{name}-{mark[:12]}"
    prepared = ""
    if isinstance(stage, recipes.TrainingStage):
        tokenizer = [recipe.model.revision, *(resolve(reference)[1] for _, reference in wiring.base_references(recipe))]
        key = _preparation(stage, {**marked, "seed": seed}, [tokenizer, contents.get("decontaminate")])
        prepared = str(recipe.folder / PREPARED / f"{name}-{key[:12]}")
    request = {
        "name": name,
        "stage": settings,
        "seed": seed,
        "out": str(folder),
        "model": source,
        "model_stage": model,
        "sandbox": recipe.sandbox.model_dump(mode="json"),
        "tracking": recipe.tracking.model_dump(mode="json"),
        "recipe": recipe.name,
        "fingerprint": mark,
        "decontaminate": targets,
        "prepared": prepared,
    }
    return Step(name, stage, seed, model, rung, mark, inputs, folder, request)
