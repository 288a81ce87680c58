"""A thousand recipes with one mistake each: every one is refused with file and line, and no other exception is
raised.
"""

import copy
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from alignment import recipe
from alignment.recipe import RecipeError, load, mistakes
from alignment.recipe.recipe_file import load_source
from alignment.recipe.schema import STAGES

ROOT = Path(__file__).resolve().parents[2]
FREE = ("lr_scheduler_kwargs",)  # its keys are not checked
NUMBERS_BELOW_ZERO = ("weight", "min_value")
REQUIRED = {"name", "kind", "model", "stages", "builder", "formats", "benchmarks", "benchmark", "metric", "tasks"}
REQUIRED |= {"hidden_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "intermediate_size"}
IMPOSSIBLE = {
    "build": [
        {"builder": "nothing"},
        {"builder": "synthetic", "model": "base"},
        {"settings": {"modules": 1.5}},
        {"settings": {"zzz": 1}},
        {"model": "nothing"},
    ],
    "pretrain": [
        {"data": [{"data": "data/documents.jsonl", "share": 0.9}]},
        {"data": [{"data": "data/documents.jsonl", "share": 0.5}, {"data": "data/long.jsonl"}]},
        {"quantization": "4bit", "peft": None},
        {"fim": {"rate": 2}},
        {"overlong": "drop"},
    ],
    "evaluate": [
        {"benchmarks": [{"name": "a", "benchmark": "nothing"}]},
        {"benchmarks": [{"name": "a", "benchmark": "tasks"}]},
        {"benchmarks": [{"name": "a", "benchmark": "humaneval", "n": 3}]},
        {"benchmarks": [{"name": "a", "benchmark": "humaneval"}] * 2},
        {"model": "data"},
        {"gate": [{"metric": "a.b"}]},
    ],
    "sft": [
        {"quantization": "4bit", "peft": None},
        {"context": {"original_max_position_embeddings": 64}},
        {"train": {"bf16": True, "fp16": True}},
        {"train": {"packing": True, "packing_strategy": "wrapped"}},
        {"train": {"max_steps": 0}},
        {"gate": {"metric": "nothing.pass@1", "max_drop": 1}},
    ],
    "dpo": [{"train": {"padding_free": True}}, {"data": []}, {"gate": {"metric": "instruct.pass@100", "min_value": 1}}],
    "grpo": [
        {"train": {"num_generations": 4, "generation_batch_size": 6}},
        {"rewards": []},
        {"rewards": [{"name": "parses"}, {"name": "parses"}]},
        {"rewards": [{"name": "length_penalty"}]},
    ],
    "kto": [
        {"train": {"per_device_train_batch_size": 1}},
        {"train": {"train_sampling_strategy": "random"}},
        {"train": {"beta": 0}},
        {"train": {"desirable_weight": 0, "undesirable_weight": 0}},
    ],
    "merge": [
        {"models": [{"model": "data"}, {"model": "sft"}]},
        {"models": [{"model": "sft"}]},
        {"method": "slerp", "density": 0.5},
        {"base": {"model": "base"}},
    ],
    "custom": [
        {"run": "nowhere.py:count"},
        {"run": "json:nothing"},
        {"run": "json"},
        {"run": "json:__all__"},
        {"run": "functools:reduce"},
        {"model": "data"},
        {"inputs": {"rows": "nowhere.jsonl"}},
    ],
    "export": [{"formats": ["f16", "gguf:f16"]}, {"max_perplexity_change": {"q2_K": 1.0}}, {"formats": []}],
}  # fmt: skip
BROKEN_TEXT = (
    "\n\tx: 1",
    "\n}",
    "\n? [a]\n: 1",
    "\nname: [",
    '\nname: "',
    "\nx: *nowhere",
    "\nx: !!set {a}",
    "\nx: \x07",
)


def leaves(value, path=()):
    yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if key not in FREE:
            yield from leaves(child, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


class Mutator:
    """Breaks a recipe: each method returns the broken values, or text if the mistake is in the YAML itself."""

    def __init__(self, value, generator):
        self.value, self.random = copy.deepcopy(value), generator
        self.places = [(path, leaf) for path, leaf in leaves(self.value) if path]

    def pick(self, wanted):
        return self.random.choice([place for place in self.places if wanted(*place)])

    def put(self, path, new):
        at(self.value, path[:-1])[path[-1]] = new
        return self.value

    def typo_in_a_key(self):
        path, leaf = self.pick(lambda path, _: isinstance(path[-1], str))
        holder = at(self.value, path[:-1])
        del holder[path[-1]]
        word = path[-1]
        holder[self.random.choice([f"{word}q", f"--{word}", word.upper() + "_", f" {word}", f"{word}\n"])] = leaf
        return self.value

    def wrong_type(self):
        path, leaf = self.pick(lambda path, _: "target_modules" not in path)
        wrong = [{"zzz": 1}, [[]], [{"zzz": leaf}]]
        return self.put(path, self.random.choice(wrong))

    def missing_key(self):
        path, _ = self.pick(lambda path, _: path[-1] in REQUIRED and not (path[-1] == "model" and len(path) > 1))
        del at(self.value, path[:-1])[path[-1]]
        return self.value

    def missing_file(self):
        path, _ = self.pick(lambda path, leaf: path[-1] in ("data", "tasks") and isinstance(leaf, str))
        return self.put(path, self.random.choice(["./no/such.jsonl", "/no/such", "data/no-such.jsonl", "data/../../x"]))

    def later_stage(self):
        stages = self.value["stages"]
        index = self.random.choice([at for at, stage in enumerate(stages) if stage["kind"] in ("sft", "dpo", "grpo")])
        later = self.random.choice(stages[index:])["name"]
        if self.random.random() < 0.5:
            return self.put(("stages", index, "model"), later)
        return self.put(("stages", index, "data"), [{"data": f"{later}/rows.jsonl"}])

    def impossible(self):
        candidates = [stage for stage in self.value["stages"] if stage["kind"] in IMPOSSIBLE]
        stage = self.random.choice(candidates)
        stage.update(copy.deepcopy(self.random.choice(IMPOSSIBLE[stage["kind"]])))
        return self.value

    def wrong_rows(self):
        """Give a stage rows of a kind that it does not read."""
        kinds = {"pretrain": "rl", "sft": "rl", "dpo": "rl", "grpo": "documents", "export": "rl"}
        stages = [stage for stage in self.value["stages"] if stage["kind"] in kinds]
        stage = self.random.choice(stages)
        builder = next(other["name"] for other in self.value["stages"] if other.get("builder") == "synthetic")
        wrong = f"{builder}/{kinds[stage['kind']]}.jsonl"
        stage["data"] = wrong if stage["kind"] == "export" else [{"data": wrong}]
        return self.value

    def bad_gate(self):
        trained = [stage for stage in self.value["stages"] if stage["kind"] in ("pretrain", "sft", "dpo", "grpo")]
        gates = [
            {"metric": "a.pass@1"}, {"min_value": 1}, {"metric": "", "min_value": 1}, {"metric": 3, "min_value": 1},
            {"metric": "nothing.pass@1", "min_value": 1}, {"metric": "pass@1", "max_drop": 1}, [], "x", [[]],
            {"metric": "nothing.pass@1", "max_drop": -1}, {"metric": ".", "min_value": 0}, {}, 7,
        ]  # fmt: skip
        self.random.choice(trained)["gate"] = self.random.choice([gate for gate in gates if gate != []])
        return self.value

    def bad_benchmark(self):
        benchmarks = [
            {"name": "a", "benchmark": "tasks"}, {"name": "a"}, {"benchmark": "humaneval"}, "humaneval", 3, [],
            {"name": "a", "benchmark": "humanevall"}, {"name": "A b", "benchmark": "humaneval"},
            {"name": "a", "benchmark": "humaneval", "mode": "chatty"}, {"name": "a", "benchmark": "humaneval", "n": 2},
            {"name": "a", "benchmark": "humaneval", "top_p": 0}, {"name": "a", "benchmark": "humaneval", "n": 0},
            {"name": "a", "benchmark": "humaneval", "temperature": -1}, {"name": "a", "benchmark": "tasks", "data": "x"},
        ]  # fmt: skip
        self.value["evaluate"] = [*self.value.get("evaluate", []), self.random.choice(benchmarks)]
        return self.value

    def bad_base(self):
        model = self.value["model"]
        broken = [
            {**model, "path": "a/b", "init": {}}, {"dtype": "float32"}, {**model, "revision": ""}, [], "a/b", 3,
            {**model, "dtype": "int8"}, {**model, "tokenizer": "./nowhere"}, {**model, "attn_implementation": "flash"},
            {"path": "./nowhere"}, {"path": ""}, {"path": "a/b", "zzz": 1},
        ]  # fmt: skip
        self.value["model"] = self.random.choice(broken)
        return self.value

    def doubled_or_lost_stage(self):
        stages = self.value["stages"]
        if self.random.random() < 0.5:
            stages.insert(self.random.randrange(len(stages) + 1), copy.deepcopy(self.random.choice(stages)))
        else:
            stages.remove(self.random.choice([stage for stage in stages if stage["kind"] == "build"]))
        return self.value

    def bad_number(self):
        path, leaf = self.pick(
            lambda path, leaf: isinstance(leaf, int | float) and not isinstance(leaf, bool)
            and path[-1] not in NUMBERS_BELOW_ZERO
        )  # fmt: skip
        return self.put(
            path, self.random.choice([float("nan"), float("inf"), -float("inf"), -leaf - 2, 10**30, str(leaf)])
        )

    def bad_text(self):
        path, leaf = self.pick(lambda path, leaf: isinstance(leaf, str) and path[-1] != "target_modules")
        return self.put(path, self.random.choice(["x" * 5000, f"{leaf}\0", "", "\ud800", [leaf], 3.5, 7, True]))

    def circle(self):
        self.value["extends"] = self.random.choice(
            ["mutated.yaml", ["./mutated.yaml"], "round.yaml", "none.yaml", 3, []]
        )
        return self.value

    def broken_yaml(self):
        text = self.random.choice(BROKEN_TEXT)
        return json.dumps(self.value, indent=1) + text

    def key_twice(self):
        text = json.dumps(self.value, indent=1)
        line = self.random.choice([line for line in text.split("\n") if line.startswith(' "') and line.endswith(",")])
        return text.replace(line, f"{line}\n{line}", 1)


KINDS = [name for name in vars(Mutator) if not name.startswith("_") and name not in ("pick", "put")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory, small):
    """Return (folder, plain values) of the small recipe and of each shipped recipe, merged with all that it extends."""
    root = tmp_path_factory.mktemp("mutations")
    shutil.copytree(ROOT / "accelerate_configs", root / "accelerate_configs")
    (root / "recipes").mkdir()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]  # some recipes read the checkout and its history
    for arguments in (["init", "-q"], *[[*identity, "commit", "-q", "--allow-empty", "-m", "more"]] * 5):
        subprocess.run(["git", "-C", str(root), *arguments], check=True)
    path = root / "recipes" / "small.yaml"
    path.write_text(small)
    recipes = [(root / "recipes", load_source(path).value)]
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        if path.stem.endswith("-cpu"):  # has none of the stages that the mutations change
            continue
        folder = root / path.parent.relative_to(ROOT)
        folder.mkdir(exist_ok=True)
        recipes.append((folder, load_source(path).value))
    for folder, _ in recipes:
        (folder / "round.yaml").write_text("extends: mutated.yaml\n")
    return [(folder, json.loads(json.dumps(value))) for folder, value in recipes]


def refusal(path: Path, text: str) -> RecipeError | None:
    path.write_bytes(text.encode("utf-8"))
    try:
        load(path)
    except RecipeError as error:
        return error
    return None


def as_yaml(value) -> str:
    """Values as JSON, which is YAML except for the spelling of NaN and infinity."""
    text = value if isinstance(value, str) else json.dumps(value, indent=1)
    return text.replace("NaN", ".nan").replace("-Infinity", "-.inf").replace("Infinity", ".inf")


def test_unchanged_recipes_have_no_mistakes(bases):
    for folder, value in bases:
        assert refusal(folder / "mutated.yaml", as_yaml(value)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_recipe_is_refused_with_file_and_line(bases, kind):
    generator = random.Random(kind)
    for number in range(1000 // len(KINDS) + 1):
        # Most are the small recipe, which has every kind of stage and loads fastest; the others take turns.
        folder, value = bases[0] if number % 4 else bases[number // 4 % len(bases)]
        text = as_yaml(getattr(Mutator(value, generator), kind)())
        error = refusal(folder / "mutated.yaml", text)
        assert error is not None, f"accepted, {kind} {number}:\n{text}"
        for problem in error.problems:
            assert problem.file.endswith((".yaml",)) and 1 <= problem.line <= text.count("\n") + 1, str(problem)
            assert len(str(problem)) < 2000 and "\n" not in str(problem), str(problem)


def settings_below(model, path=()):
    """Yield the place of every setting of a settings class, including nested settings."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        inner = mistakes.settings_class(field.annotation)
        if inner is not None and inner not in (recipe.Recipe, recipe.Stage):
            listed = "list" in str(field.annotation)
            yield from settings_below(inner, (*path, name, *((0,) if listed else ())))


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_of_every_kind_of_stage_refuses_wrong_values(bases, stage):
    folder, value = bases[0]
    index = next(at for at, other in enumerate(value["stages"]) if other["kind"] == stage)
    free = {"settings", "inputs"} if stage == "custom" else set()  # their keys are the user's own
    places = [place for place in settings_below(STAGES[stage], ("stages", index)) if place[-1] not in free]
    _refuses_everywhere(folder, value, places)


def test_every_setting_of_a_recipe_refuses_wrong_values(bases):
    folder, value = bases[0]
    places = [place for place in settings_below(recipe.Recipe) if place[:2] != ("stages", 0)]
    _refuses_everywhere(folder, value, [*places, ("zzz",)])


def _refuses_everywhere(folder, value, places):
    for place in places:
        for wrong in ({"zzz": 1}, [[]], "\0", [{"zzz": [1]}], 10**30):
            text = as_yaml(put(value, place, wrong))
            assert refusal(folder / "mutated.yaml", text) is not None, f"accepted at {place}: {wrong}"


def put(value, place, new):
    """Return a copy with `new` at `place`. Missing mappings and lists on the way are created."""
    if not place:
        return new
    key, rest = place[0], place[1:]
    if isinstance(key, int):
        items = value if isinstance(value, list) else []
        return [*items[:key], put(items[key] if key < len(items) else {}, rest, new), *items[key + 1 :]]
    mapping = value if isinstance(value, dict) else {}
    return {**mapping, key: put(mapping.get(key), rest, new)}


def test_damaged_text_is_accepted_or_refused_without_other_exceptions(bases):
    generator = random.Random(0)
    folder, value = bases[0]
    text = as_yaml(value)
    accepted = 0
    for _ in range(150):
        start = generator.randrange(len(text))
        cut = generator.randrange(1, 4)
        new = "".join(generator.choice("{}[]:,\"'#&*!|>%@`\\ \n\tx0-") for _ in range(generator.randrange(3)))
        accepted += refusal(folder / "mutated.yaml", text[:start] + new + text[start + cut :]) is None
    assert accepted < 75  # changed digits and free text may leave a valid recipe
