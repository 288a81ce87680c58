"""The plan: fingerprints change with everything that could change a result, and with nothing else."""

import pytest

from alignment.chain.plan import plan
from alignment.recipe import load
from alignment.recipe.stage_request import StageRequest

TEXT = """name: small
output: runs
model: {path: base}
stages:
  - {name: sft, kind: sft, data: [{data: rows.jsonl}], train: {max_length: 64}}
  - {name: dpo, kind: dpo, data: [{data: pairs.jsonl}]}
  - {name: export, kind: export, formats: [f16]}
evaluate: [{name: i, benchmark: tasks, data: held.jsonl}]
"""
MADE_BY_A_STAGE = """name: small
output: runs
model:
  init: {hidden_size: 64, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 2}
  tokenizer: data/tokenizer
stages:
  - {name: data, kind: build, builder: synthetic, settings: {modules: 3}}
  - {name: sft, kind: sft, data: [{data: data/conversations.jsonl}]}
"""
ROWS = {
    "rows": '{"text": "a"}',
    "pairs": '{"prompt": "a", "chosen": "b", "rejected": "c"}',
    "held": '{"prompt": "a", "tests": "{}"}',
}


@pytest.fixture
def fingerprints(tmp_path, monkeypatch, checkpoint_folder):
    monkeypatch.chdir(tmp_path)  # a path of an override is relative to the working directory
    for name, row in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text(f"{row}\n")

    def of(*overrides, text=TEXT, replace=()):
        for old, new in replace:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "recipe.yaml").write_text(text)
        return {step.name: step.fingerprint for step in plan(load(tmp_path / "recipe.yaml", overrides))}

    of.folder = tmp_path
    return of


def changed(before, after):
    """Return the keys whose values differ."""
    return {name for name in before if before[name] != after[name]}


ALL = {"evaluate-base", "sft", "evaluate-sft", "dpo", "evaluate-dpo", "export"}


def test_the_plan_measures_the_base_first_and_every_training_stage_after_it(fingerprints):
    assert list(fingerprints()) == ["evaluate-base", "sft", "evaluate-sft", "dpo", "evaluate-dpo", "export"]


@pytest.mark.parametrize(
    "override",
    ["name=other", "output=elsewhere", "tracking.wandb=disabled", "tracking.project=x", "sandbox.workers=3",
     "stages.dpo.gate={metric: i.pass@1, max_drop: 1}", "model.attn_implementation=null", "contract.must_stop=false"],
)  # fmt: skip
def test_settings_that_can_not_change_a_result_change_no_fingerprint(fingerprints, override):
    assert changed(fingerprints(), fingerprints(override)) == set()


@pytest.mark.parametrize(
    ("override", "stale"),
    [
        ("seed=7", ALL),
        ("model.dtype=float32", ALL),
        ("sandbox.wall_seconds=3.0", {"evaluate-base", "evaluate-sft", "evaluate-dpo"}),
        ("evaluate.i.max_new_tokens=9", {"evaluate-base", "evaluate-sft", "evaluate-dpo"}),
        ("stages.sft.train.max_length=65", ALL - {"evaluate-base"}),
        ("stages.dpo.train.beta=0.2", {"dpo", "evaluate-dpo", "export"}),
        ("stages.dpo.seed=9", {"dpo", "evaluate-dpo", "export"}),
        ("stages.dpo.model=base", {"dpo", "evaluate-dpo", "export"}),
        ("stages.export.formats=[q8_0]", {"export"}),
    ],
)
def test_a_changed_setting_changes_its_stage_and_those_that_depend_on_it(fingerprints, override, stale):
    assert changed(fingerprints(), fingerprints(override)) == stale


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("rows.jsonl", ALL - {"evaluate-base"}),
        ("pairs.jsonl", {"dpo", "evaluate-dpo", "export"}),
        ("held.jsonl", ALL),  # training rows are compared with it
        ("base/model.safetensors", ALL),
    ],
)
def test_changed_content_changes_the_stages_that_read_it_and_those_that_depend_on_them(fingerprints, file, stale):
    before = fingerprints()
    (fingerprints.folder / file).write_text(f"{ROWS.get(file.removesuffix('.jsonl'))}\n\n")
    assert changed(before, fingerprints()) == stale


def test_the_rows_of_a_benchmark_that_may_overlap_change_no_training_stage(fingerprints):
    allowed = [("data: held.jsonl", "data: held.jsonl, allow_overlap: because this is a test")]
    before = fingerprints(replace=allowed)
    assert changed(before, fingerprints()) == ALL - {"evaluate-base"}
    (fingerprints.folder / "held.jsonl").write_text(f"{ROWS['held']}\n\n")
    assert changed(before, fingerprints(replace=allowed)) == {"evaluate-base", "evaluate-sft", "evaluate-dpo"}


def test_texts_to_decontaminate_against_change_training_stages_only(fingerprints):
    assert changed(fingerprints(), fingerprints("decontaminate=[pairs.jsonl]")) == ALL - {"evaluate-base"}


def test_a_moved_file_with_the_same_content_changes_nothing(fingerprints):
    before = fingerprints()
    (fingerprints.folder / "rows.jsonl").rename(fingerprints.folder / "moved.jsonl")
    assert changed(before, fingerprints(replace=[("rows.jsonl", "moved.jsonl")])) == set()


def test_renaming_a_stage_changes_no_fingerprint_also_not_of_stages_that_read_it(fingerprints):
    before = fingerprints(text=MADE_BY_A_STAGE)
    after = fingerprints(text=MADE_BY_A_STAGE, replace=[("name: data", "name: rows"), ("data/", "rows/")])
    assert list(before.values()) == list(after.values())


def test_reading_another_file_of_a_stage_changes_the_fingerprint(fingerprints):
    before = fingerprints(text=MADE_BY_A_STAGE)
    after = fingerprints(text=MADE_BY_A_STAGE, replace=[("conversations", "long")])
    assert changed(before, after) == {"sft"}


def test_the_seed_and_settings_of_a_builder_change_all_stages_that_depend_on_it(fingerprints):
    before = fingerprints(text=MADE_BY_A_STAGE)
    assert changed(before, fingerprints("stages.data.seed=5", text=MADE_BY_A_STAGE)) == {"data", "sft"}
    assert changed(before, fingerprints("stages.data.settings.modules=4", text=MADE_BY_A_STAGE)) == {"data", "sft"}


CODE = "def count(request): return {}\n\ndef style(completions, **columns): return []\n\ndef Tasks(request): ...\n"
OWN_CODE = """name: small
output: runs
model: {path: base}
stages:
  - {name: count, kind: custom, run: "own.py:count", model: base, inputs: {rows: rows.jsonl}, settings: {most: 3}}
  - {name: grpo, kind: grpo, data: [{data: held.jsonl}], rewards: [{path: "own.py:style"}]}
evaluate: [{name: i, benchmark: "own.py:Tasks", allow_overlap: because this is a test}]
"""


def test_editing_the_users_code_makes_every_stage_that_names_it_stale(fingerprints):
    (fingerprints.folder / "own.py").write_text(CODE)
    before = fingerprints(text=OWN_CODE)
    (fingerprints.folder / "other.py").write_text(CODE)
    assert before == fingerprints(text=OWN_CODE, replace=[("own.py", "other.py")])  # a moved file changes nothing
    assert changed(before, fingerprints(text=OWN_CODE, replace=[("py:style", "py:count")])) == {"grpo", "evaluate-grpo"}
    (fingerprints.folder / "own.py").write_text(f"{CODE}# edited\n")
    assert (
        changed(before, fingerprints(text=OWN_CODE))
        == set(before)
        == {"count", "evaluate-base", "grpo", "evaluate-grpo"}
    )


def test_training_rows_are_screened_by_the_content_of_the_users_benchmark(fingerprints):
    (fingerprints.folder / "own.py").write_text(CODE)
    (fingerprints.folder / "bench.py").write_text(CODE)
    text = OWN_CODE.replace("own.py:Tasks", "bench.py:Tasks").replace(", allow_overlap: because this is a test", "")
    before = fingerprints(text=text)
    (fingerprints.folder / "bench.py").write_text(f"{CODE}# edited\n")
    assert changed(before, fingerprints(text=text)) == {"evaluate-base", "grpo", "evaluate-grpo"}


@pytest.mark.parametrize("override", ["stages.count.settings.most=4", "stages.count.inputs={}", "stages.count.seed=9"])
def test_a_custom_stage_is_stale_when_its_settings_or_inputs_change(fingerprints, override):
    (fingerprints.folder / "own.py").write_text(CODE)
    assert changed(fingerprints(text=OWN_CODE), fingerprints(override, text=OWN_CODE)) == {"count"}


def test_the_request_names_the_users_code_by_absolute_paths(fingerprints):
    (fingerprints.folder / "own.py").write_text(CODE)
    fingerprints(text=OWN_CODE)
    steps = {step.name: step.request.stage for step in plan(load(fingerprints.folder / "recipe.yaml"))}
    file = fingerprints.folder / "own.py"
    assert steps["count"].run == f"{file}:count"
    assert steps["grpo"].rewards[0].path == f"{file}:style"
    assert steps["evaluate-grpo"].benchmarks[0].benchmark == f"{file}:Tasks"


def test_the_request_holds_absolute_paths(fingerprints):
    fingerprints()
    steps = {step.name: step for step in plan(load(fingerprints.folder / "recipe.yaml"))}
    assert steps["sft"].request.stage.data[0].data == str(fingerprints.folder / "rows.jsonl")
    assert steps["sft"].request.model.path == str(fingerprints.folder / "base")
    assert steps["dpo"].request.model.path == str(steps["sft"].folder / "model")


def test_a_request_is_the_same_after_it_was_sent(fingerprints):
    (fingerprints.folder / "own.py").write_text(CODE)
    for text in (TEXT, MADE_BY_A_STAGE, OWN_CODE):
        fingerprints(text=text)
        for step in plan(load(fingerprints.folder / "recipe.yaml")):
            assert StageRequest.from_json(step.request.to_json()) == step.request


def test_rows_are_tokenized_again_only_if_their_token_ids_could_change(fingerprints):
    """Other changes of a stage leave its rows in the cache."""

    def places(*overrides):
        fingerprints(*overrides)
        return {
            step.name: step.request.prepared
            for step in plan(load(fingerprints.folder / "recipe.yaml", overrides))
            if step.trains
        }

    first = places()
    assert first == places("stages.sft.train.learning_rate=1e-3", "stages.dpo.train.beta=0.3", "model.dtype=float32")
    assert changed(first, places("stages.sft.train.max_length=32")) == {"sft"}
    assert changed(first, places("stages.sft.train.packing=true")) == {"sft"}
    assert changed(first, places("seed=5")) == {"sft", "dpo"}
    (fingerprints.folder / "rows.jsonl").write_text('{"text": "other"}\n')
    assert changed(first, places()) == {"sft"}
    (fingerprints.folder / "held.jsonl").write_text('{"prompt": "other", "tests": "{}"}\n')
    assert changed(first, places()) == {"sft", "dpo"}
