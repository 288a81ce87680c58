"""Check the meaning of a recipe: find contradictory settings, and files and stages that do not exist.

The checks run before the first stage. They read only the recipe and the files that it names, and report all mistakes at
once. A setting that would be ignored is a mistake too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from alignment.models.stored_config import is_gguf
from alignment.recipe.family_checks import check_family
from alignment.recipe.gate_checks import check_gates
from alignment.recipe.launch_checks import check_launch, uses_cpu
from alignment.recipe.length_checks import check_lengths
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.reference_checks import check_model, check_reference
from alignment.recipe.row_kind_checks import check_row_kinds
from alignment.recipe.schema import EvaluateStage, MergeStage, Recipe, TrainingStage
from alignment.recipe.stage_checks import build_stages, check_benchmarks, check_stage
from alignment.recipe.stage_graph import BASE, StageGraph, is_hub_name, resolve
from alignment.settings import Reference
from alignment.wording import did_you_mean, display

# Files that `alignment.chain` writes to a recipe's folder. The folder also has a link for each stage.
_RESERVED = ("artifacts", "prepared", "ladder.json", "report.html", "check.log")


def check(recipe: Recipe) -> Iterator[Mistake]:
    """Yield all mistakes of a recipe whose settings have the right types."""
    names = [stage.name for stage in recipe.stages]
    graph = resolve(recipe)
    yield from _check_names(graph, names)
    yield from _check_base(recipe, graph, names)
    for index, node in enumerate(graph.stages):
        here: Place = ("stages", index)
        yield from _below(here, check_model(recipe, index))
        for read in node.reads:
            hub = isinstance(node.stage, MergeStage) and read.place[-1] == "path"
            yield from check_reference(recipe, here + read.place, read.reference, names[:index], hub=hub)
        yield from _below(here, check_stage(recipe, graph, index))
    yield from _check_evaluate(recipe, graph, names)
    yield from _check_decontamination(recipe, graph, names)
    yield from _check_trained_benchmarks(graph)
    yield from check_row_kinds(recipe, graph)
    yield from check_gates(recipe, graph)
    yield from check_lengths(recipe, graph)
    yield from check_family(recipe)
    yield from check_launch(recipe)


def _check_trained_benchmarks(graph: StageGraph) -> Iterator[Mistake]:
    """Yield a mistake for each `data:` entry of a training stage that a benchmark measures too: decontamination would
    remove every row of this entry.

    Benchmarks with `allow_overlap` are skipped, since decontamination skips them too.
    """
    held_out = {node.name for node in graph.stages if getattr(node.stage, "builder", None) == "private_benchmark"}
    measured = {
        _target(read.reference, read.origin): benchmark.name
        for benchmark, read in graph.benchmarks
        if read is not None and not benchmark.allow_overlap and (read.origin is None or read.origin in held_out)
    }
    for index, node in enumerate(graph.stages):
        for read in node.reads if isinstance(node.stage, TrainingStage) else ():
            name = measured.get(_target(read.reference, read.origin))
            if name is not None and read.place[:1] == ("data",):
                yield ("stages", index, *read.place), f"benchmark {name!r} measures these rows: train on others"


def _target(reference: Reference, origin: str | None) -> str:
    """Return a text for a reference. Two references to the same file have equal texts."""
    return str(reference.path()) if origin is None else f"{origin}:{Path(reference.inside())}"


def _below(place: Place, mistakes: Iterator[Mistake]) -> Iterator[Mistake]:
    yield from ((place + inside, message) for inside, message in mistakes)


def _check_names(graph: StageGraph, names: Sequence[str]) -> Iterator[Mistake]:
    inserted = {node.name for node in graph.inserted}
    for index, name in enumerate(names):
        place: Place = ("stages", index, "name")
        if name in names[:index]:
            yield place, f"two stages are called {name!r}: rename one"
        if name == BASE:
            yield place, "`base` is the name of the recipe's own model: rename the stage"
        if name in inserted:
            yield place, f"the recipe's `evaluate:` inserts a step {name!r}: rename the stage"
        if name in _RESERVED:
            yield place, f"{name!r} is a file or folder that every run writes: rename the stage"


def _check_base(recipe: Recipe, graph: StageGraph, names: Sequence[str]) -> Iterator[Mistake]:
    """Check the base model, `launch:` and `output:`."""
    model = recipe.model
    if (model.path is None) == (model.init is None):
        yield ("model",), "give either `path` (a checkpoint) or `init` (random weights)"
    if model.revision is not None and (model.path is None or not is_hub_name(model.path)):
        yield ("model", "revision"), "is only used for a model on the hub: remove it"
    if model.init is not None:
        heads = model.init.num_attention_heads
        if model.tokenizer is None:
            yield ("model",), "`init` needs a `tokenizer`"
        if model.init.hidden_size % (2 * heads):
            yield ("model", "init", "hidden_size"), f"must be a multiple of 2 x num_attention_heads ({2 * heads})"
        if heads % model.init.num_key_value_heads:
            multiple = model.init.num_key_value_heads
            yield ("model", "init", "num_attention_heads"), f"must be a multiple of num_key_value_heads ({multiple})"
    for read in graph.base_reads:
        yield from check_reference(recipe, read.place, read.reference, names[: graph.first_use_of_base], hub=True)
    if model.path is not None and (folder := model.path.path()).exists():
        yield from _check_checkpoint(folder, needs_tokenizer=model.tokenizer is None)
    if model.attn_implementation is not None and model.attn_implementation.startswith("flash_attention"):
        if model.dtype == "float32":
            yield (
                ("model", "attn_implementation"),
                "flash attention computes in 16 bits: set dtype: bfloat16, or leave it out",
            )
        elif uses_cpu(recipe):
            yield (
                ("model", "attn_implementation"),
                "flash attention needs a GPU, and the launch file says use_cpu: leave it out",
            )
    if recipe.launch is not None and not recipe.launch.path().is_file():
        folder = recipe.launch.path().parent
        hint = did_you_mean(Path(recipe.launch).name, [file.name for file in folder.glob("*")])
        yield ("launch",), f"there is no file {display(recipe.launch.path())}.{hint}"
    if recipe.output.exists() and not recipe.output.path().is_dir():
        yield ("output",), f"{display(recipe.output.path())} is a file: name a folder"


def _check_checkpoint(folder: Path, *, needs_tokenizer: bool) -> Iterator[Mistake]:
    """Yield a mistake if the base model is not a valid GGUF file, or its folder lacks a file."""
    place: Place = ("model", "path")
    if is_gguf(folder) and folder.is_file():
        with folder.open("rb") as file:
            if file.read(4) != b"GGUF":
                yield place, f"{display(folder)} is not a GGUF file: it does not start with GGUF"
        return
    if not folder.is_dir():
        yield place, f"{display(folder)} is a file: name the folder of a checkpoint, or a .gguf file"
        return
    if not (folder / "config.json").is_file():
        yield place, f"{display(folder)} is not a checkpoint: it has no config.json"
        return
    if not any(next(folder.glob(pattern), None) for pattern in ("*.safetensors", "*.bin")):
        yield place, f"{display(folder)} has a config.json but no weights (*.safetensors)"
    if needs_tokenizer and not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        yield place, f"{display(folder)} has no tokenizer.json: copy it there, or name another folder as `tokenizer`"


def _check_evaluate(recipe: Recipe, graph: StageGraph, names: Sequence[str]) -> Iterator[Mistake]:
    """Check the benchmarks of the recipe's `evaluate:`."""
    if recipe.evaluate and graph.first_training == len(names):
        yield (
            ("evaluate",),
            "measures stages that train or merge, and this recipe has none: use a stage of kind evaluate",
        )
        return
    yield from check_benchmarks(recipe.evaluate, ("evaluate",), build_stages(recipe))
    earlier = names[: graph.first_training]
    for index, benchmark in enumerate(recipe.evaluate):
        if benchmark.data is not None:
            place: Place = ("evaluate", index, "data")
            before = "the first training stage"
            yield from check_reference(recipe, place, benchmark.data, earlier, hub=False, before=before)


def _check_decontamination(recipe: Recipe, graph: StageGraph, names: Sequence[str]) -> Iterator[Mistake]:
    """Check that rows with which training data is compared exist before the first training stage runs."""
    first = graph.first_training
    if recipe.decontaminate and first == len(names):
        yield ("decontaminate",), "is for training data, and no stage trains: remove it"
        return
    for index, reference in enumerate(recipe.decontaminate):
        place: Place = ("decontaminate", index)
        before = "the first training stage"
        yield from check_reference(recipe, place, reference, names[:first], hub=False, before=before)
    for index, stage in enumerate(recipe.stages):
        for position, benchmark in enumerate(stage.benchmarks if isinstance(stage, EvaluateStage) else []):
            origin = benchmark.data.stage(names[:index]) if benchmark.data is not None else None
            if origin in names[first:] and benchmark.allow_overlap is None:
                yield (
                    ("stages", index, "benchmarks", position, "data"),
                    f"stage {origin!r} makes these rows after training has begun, so training rows can't be compared with "
                    "them: move that stage up, or give the reason in `allow_overlap`",
                )
