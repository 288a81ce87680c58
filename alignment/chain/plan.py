"""Plans the steps of a recipe.

For each step, the plan contains the request for the step's process and a fingerprint of everything that can change the
result of the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.chain.artifacts import VERSIONS, Digests
from alignment.extensions import ExtensionReference
from alignment.fingerprints import fingerprint, package_versions
from alignment.models.source import ModelSource
from alignment.models.stored_config import is_gguf
from alignment.provenance import artifact_file
from alignment.provenance.artifact_file import Artifact
from alignment.recipe import (
    MODEL_KINDS,
    AnyStage,
    BuildStage,
    EvaluateStage,
    GrpoStage,
    MergeStage,
    PretrainStage,
    Recipe,
    SftStage,
    TrainingStage,
    builders,
    stage_graph,
)
from alignment.recipe.overlays import replace_at
from alignment.recipe.stage_graph import BASE, Read, StageGraph, StageNode
from alignment.recipe.stage_request import NO_TARGETS, BenchmarkRows, ScreenTargets, StageRequest, parse_stage
from data_builders.repositories.locations import Interpreter, Location

# Keys of a stage that are not part of its fingerprint: the name, the settings of evaluations after the stage, and the
# model, whose content is part of the fingerprint instead.
_UNHASHED = ("name", "gate", "evaluate", "model")
# The settings that determine the token ids of a stage. Token ids are kept for later runs (see
# `alignment.tokenization.prepare`).
PREPARED = "prepared"
_PREPARES = ("kind", "data", "seed", "fim", "overlong", "max_prompt_length", "environment", "rewards")
_PREPARES_IN_TRAIN = ("max_length", "packing", "packing_strategy")
# With context-level fill-in-the-middle every epoch has rows of its own.
_PREPARES_EPOCHS = ("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps")
_PREPARED_WITH = ("transformers", "trl", "datasets", "code-alignment")


@dataclass(frozen=True)
class Step:
    """One step of a chain: a stage of the recipe, or an evaluation that `evaluate:` inserts after a stage."""

    stage: AnyStage
    """The stage's settings as written in the recipe. In `request.stage`, by contrast, all paths are absolute."""
    request: StageRequest = field(repr=False)
    """The request that the process of the step receives."""
    rung: str | None
    """Name of the stage whose model an evaluation measures, or `base`. None if the step is no evaluation."""
    inputs: Mapping[str, str]
    """Earlier steps whose artifacts this step reads: name of the step -> its fingerprint."""

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def kind(self) -> str:
        return self.stage.kind

    @property
    def seed(self) -> int:
        return self.request.seed

    @property
    def model(self) -> str | None:
        """Name of the step whose model this step uses, `base` for the base model, or None if it uses no model."""
        return self.request.model_stage

    @property
    def fingerprint(self) -> str:
        return self.request.fingerprint

    @property
    def folder(self) -> Path:
        """The folder of the step's artifact."""
        return self.request.out

    @property
    def trains(self) -> bool:
        return self.kind in MODEL_KINDS

    @property
    def has_contract(self) -> bool:
        """Whether the saved model is checked after the step; see `alignment.models.contract`."""
        return self.trains or isinstance(self.stage, MergeStage)

    @property
    def base_model(self) -> ModelSource | None:
        """The recipe's base model, if the step reads it."""
        return self.request.model if self.model == BASE else self.request.merged.get(BASE)

    def artifact(self) -> Artifact | None:
        """Read the step's artifact.json. Return None if the step is not done."""
        return artifact_file.read(self.folder)


def plan(recipe: Recipe) -> list[Step]:
    """Return all steps of a recipe in order.

    The files to which stages refer are read to compute their digests. Digests of unchanged files come from a cache.
    """
    digests = Digests(recipe.folder / ".digests.json")
    graph = stage_graph.resolve(recipe)
    steps: dict[str, Step] = {}
    for node in graph.nodes:
        steps[node.name] = _StepBuilder(recipe, graph, node, steps, digests).build()
    digests.save()
    return list(steps.values())


@dataclass
class _StepBuilder:
    """Builds one step of the plan, from the steps that were built before it."""

    recipe: Recipe
    graph: StageGraph
    node: StageNode
    earlier: Mapping[str, Step]
    digests: Digests
    inputs: dict[str, str] = field(default_factory=dict)
    """Earlier steps to which references resolved so far point: name of the step -> its fingerprint."""
    files: dict[str, str] = field(default_factory=dict)
    """Files and folders outside of the chain that the step reads: path -> digest."""
    base: dict[str, Any] | None = None
    """The recipe's base model with its digest, if the step reads it."""

    def build(self) -> Step:
        recipe, node = self.recipe, self.node
        seed = recipe.seed if node.stage.seed is None else node.stage.seed
        settings, content = self.stage_settings()
        stage = parse_stage(settings)
        contents: dict[str, Any] = {}
        models: dict[str, ModelSource] = {}
        for name in dict.fromkeys((node.model, *node.merged)):
            if name == BASE:
                models[name], contents["base"] = self.base_model()
            elif name is not None:
                models[name] = self.trained_model(name)
        targets = NO_TARGETS
        if isinstance(stage, TrainingStage):
            targets, target_contents = self.screen_targets()
            if target_contents:
                contents["decontaminate"] = target_contents
        if isinstance(stage, BuildStage):
            contents["builder"] = builders.inputs(stage)
        mark = self.fingerprint(content, seed, contents)
        request = StageRequest(
            name=node.name,
            stage=stage,
            out=recipe.folder / "artifacts" / artifact_file.folder_name(node.name, mark),
            seed=seed,
            model=models.get(node.model or ""),
            model_stage=node.model,
            merged={name: models[name] for name in node.merged},
            sandbox=recipe.sandbox,
            tracking=recipe.tracking,
            recipe=recipe.name,
            fingerprint=mark,
            inputs=self.inputs,
            files=self.files,
            base_model=self.base,
            decontaminate=targets,
            prepared=self.prepared_folder(content, seed, contents.get("decontaminate")),
        )
        return Step(node.stage, request, node.rung, self.inputs)

    def resolve(self, read: Read) -> tuple[str, Any]:
        """Return the absolute path to which a reference points, and the value that represents its content in the
        fingerprint.
        """
        reference, origin = read.reference, read.origin
        if isinstance(reference, ExtensionReference):
            extension = reference.extension()
            return reference.resolved(), [extension.name, extension.digest()]
        if isinstance(reference, Interpreter):
            return reference.absolute(), reference.absolute()
        if isinstance(reference, Location):
            return reference.absolute(), None  # `builders.inputs` gives the commits
        if origin is not None:
            step = self.earlier[origin]
            self.inputs[origin] = step.fingerprint
            return str(step.folder / reference.inside()), [step.fingerprint, reference.inside()]
        if stage_graph.is_hub_name(reference):
            return str(reference), ["hub", str(reference)]
        return str(reference.path()), self.digests.of(reference.path())

    def resolve_file(self, read: Read) -> tuple[str, Any]:
        """Do the same as `resolve`, and record a file or folder outside of the chain in `files`."""
        path, digest = self.resolve(read)
        if read.origin is None and not isinstance(read.reference, ExtensionReference | Location):
            self.files[path] = digest if isinstance(digest, str) else "hub"
        return path, digest

    def stage_settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the stage's settings twice: with absolute paths, and with content digests instead of paths."""
        settings = content = self.node.stage.model_dump(mode="json")
        for read in self.node.reads:
            path, digest = self.resolve_file(read)
            settings = replace_at(settings, read.place, path)
            content = replace_at(content, read.place, digest)
        return settings, content

    def base_model(self) -> tuple[ModelSource, dict[str, Any]]:
        """Return the base model of the recipe, and the value that represents the base model in the fingerprint."""
        settings = self.recipe.model.model_dump(mode="json")
        content = {**_without(settings, "use_kernels"), "attn_implementation": None}
        self.base = {key: settings[key] for key in ("path", "revision", "init", "tokenizer") if settings.get(key)}
        for read in self.graph.base_reads:
            key = str(read.place[-1])
            settings[key], content[key] = self.resolve(read)
            self.base |= {key: settings[key], f"{key}_digest": content[key]}
            if key == "path" and is_gguf(settings[key]):
                settings[key] = str(import_folder(self.recipe.folder, Path(settings[key]), content[key]))
        return ModelSource.model_validate(settings), content

    def trained_model(self, stage: str) -> ModelSource:
        """Return the model in the artifact of an earlier stage."""
        base, step = self.recipe.model, self.earlier[stage]
        self.inputs[stage] = step.fingerprint
        return ModelSource(
            path=str(step.folder / "model"),
            dtype=base.dtype,
            attn_implementation=base.attn_implementation,
            use_kernels=base.use_kernels,
        )

    def screen_targets(self) -> tuple[ScreenTargets, list[Any]]:
        """Return the benchmark texts that training rows must not contain, and the value that represents them in
        the fingerprint."""
        rows: list[BenchmarkRows] = []
        paths: list[Path] = []
        contents: list[Any] = []
        allowed: dict[str, str] = {}
        for benchmark, read in self.graph.benchmarks:
            if benchmark.allow_overlap is not None:
                allowed[benchmark.name] = benchmark.allow_overlap
                continue
            path, content = self.resolve_file(read) if read is not None else (None, None)
            code: Any = benchmark.benchmark
            code, identity = (
                self.resolve(Read((), code, None)) if isinstance(code, ExtensionReference) else (code, code)
            )
            if [identity, content] not in contents:
                rows.append(BenchmarkRows(name=benchmark.name, benchmark=code, data=path))
                contents.append([identity, content])
        for read in self.graph.decontaminate:
            location, content = self.resolve_file(read)
            paths.append(Path(location))
            contents.append(content)
        sandbox = self.recipe.sandbox
        return ScreenTargets(benchmarks=tuple(rows), paths=tuple(paths), allowed=allowed, sandbox=sandbox), contents

    def fingerprint(self, content: Mapping[str, Any], seed: int, contents: Mapping[str, Any]) -> str:
        """Return the fingerprint of everything that could change the result of the step.

        Args:
            content: the stage's settings, with content digests instead of paths.
            seed: the seed of the stage.
            contents: the content of all other inputs of the stage.
        """
        stage, model = self.node.stage, self.node.model
        settings = {key: value for key, value in content.items() if key not in _UNHASHED}
        if isinstance(stage, EvaluateStage):  # `allow_overlap` concerns training, not measuring
            settings["benchmarks"] = [_without(benchmark, "allow_overlap") for benchmark in settings["benchmarks"]]
        settings |= {"seed": seed, "model": self.inputs.get(model or "", model)}
        if isinstance(stage, MergeStage):
            settings |= {"models": [self._without_name(entry) for entry in settings["models"]]}
            settings |= {"base": self._without_name(settings["base"]) if settings["base"] else None}
        if isinstance(stage, GrpoStage | EvaluateStage | BuildStage | MergeStage):
            settings["sandbox"] = self.recipe.sandbox.model_dump(exclude={"address", "workers", "allow_weaker"})
        # Inputs are listed by their fingerprints alone, so that renaming a stage changes nothing.
        inputs = sorted(self.inputs.values())
        return fingerprint(
            {"version": VERSIONS[stage.kind], "settings": settings, "contents": contents, "inputs": inputs}
        )

    def _without_name(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a merged model, with the fingerprint of its stage instead of the stage's name."""
        return {**entry, "model": self.inputs.get(entry["model"] or "", entry["model"])}

    def prepared_folder(self, content: Mapping[str, Any], seed: int, targets: list[Any] | None) -> Path | None:
        """Return the folder of the stage's token ids, or None if the stage does not train.

        The name of the folder contains a fingerprint of everything on which tokenizing and packing depend. Earlier
        training is not part of it, because all models of a chain have the tokenizer of the base model.
        """
        stage = self.node.stage
        if not isinstance(stage, TrainingStage):
            return None
        tokenizer = [self.resolve(read)[1] for read in self.graph.base_reads]
        settings = {key: value for key, value in {**content, "seed": seed}.items() if key in _PREPARES}
        by_epoch = isinstance(stage, PretrainStage | SftStage) and stage.fim.level == "context"
        keys = (*_PREPARES_IN_TRAIN, *(_PREPARES_EPOCHS if by_epoch else ()))
        train = {key: stage.train[key] for key in keys if key in stage.train}
        versions = {package: version for package, version in package_versions().items() if package in _PREPARED_WITH}
        reads = [[self.recipe.model.revision, *tokenizer], targets]
        key = fingerprint([VERSIONS[stage.kind], settings, train, reads, versions])
        return self.recipe.folder / PREPARED / f"{self.node.name}-{key[:12]}"


def import_folder(folder: Path, file: Path, digest: str) -> Path:
    """Return the folder to which the chain imports a GGUF file.

    Args:
        folder: the recipe's folder.
        file: the GGUF file.
        digest: digest of the file's content.
    """
    return folder / "imported" / f"{file.stem}-{digest[:12]}"


def _without(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {other: value for other, value in settings.items() if other != key}
