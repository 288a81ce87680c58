"""GRPO on tasks whose answer is a continuation or a fill-in-the-middle: prompts, end tokens, length limit, credit."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from datasets import load_from_disk

from alignment.grading import Verdict
from alignment.grading.verdict import TestResult
from alignment.models import formats
from alignment.recipe.stage_request import StageRequest
from alignment.rewards.execution import CUT_OFF, Verdicts, earned_share
from alignment.stages import grpo

HEAD = "def f(x):\n"
TASK = {
    "id": "t", "prompt": "Write f.", "language": "python", "kind": "asserts", "tests": json.dumps({"code": "assert f(1)"}),
    "entry_point": "f", "source": "s", "prefix": HEAD, "suffix": "\n\ndef g():\n", "reference": "def f(x):\n    return x",
    "reference_body": "    return x",
}  # fmt: skip


def prepared(rows, tokenizer, tmp_path, **stage):
    path, out = tmp_path / "tasks.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out.mkdir()
    settings = {"name": "rl", "kind": "grpo", "data": [{"data": str(path)}], **stage}
    counts = grpo.prepare_tasks(StageRequest.for_stage(settings, out), tokenizer, out)
    return list(load_from_disk(str(out / "train"))), counts, out


@pytest.mark.parametrize(
    ("form", "prompt"),
    [("continuation", HEAD), ("fim", f"<|fim_prefix|>{HEAD}<|fim_suffix|>{TASK['suffix']}<|fim_middle|>")],
)
def test_text_forms_become_plain_prompts_and_keep_what_rewards_need(form, prompt, tiny_tokenizer, tmp_path):
    rows, counts, out = prepared([{**TASK, "answer": form}], tiny_tokenizer, tmp_path)
    assert rows[0]["prompt"] == prompt and rows[0]["prefix"] == HEAD and rows[0]["answer"] == form
    assert counts["reference_tokens"] == len(tiny_tokenizer.encode("    return x\n"))
    assert not (out / "probes.json").exists()


def test_chat_forms_stay_conversations(tiny_tokenizer, tmp_path):
    rows, _, out = prepared([{**TASK, "answer": "body"}], tiny_tokenizer, tmp_path)
    assert rows[0]["prompt"] == [{"role": "user", "content": "Write f."}] and "prefix" not in rows[0]
    assert (out / "probes.json").exists()


def test_the_order_of_the_rows_stays_if_the_recipe_asks_for_it(tiny_tokenizer, tmp_path):
    tasks = [{**TASK, "id": str(number)} for number in range(20)]
    rows, _, _ = prepared(tasks, tiny_tokenizer, tmp_path, train={"shuffle_dataset": False})
    assert [row["id"] for row in rows] == [str(number) for number in range(20)]


@pytest.mark.parametrize(
    ("rows", "stage", "message"),
    [
        ([{**TASK, "answer": "fim"}, TASK], {}, "can't be in one stage"),
        ([{**TASK, "answer": "fim"}], {"rewards": [{"name": "tests_passed"}, {"name": "fenced"}]}, "has no chat"),
        (
            [{**TASK, "answer": "fim", "suffix": None}],
            {},
            "row 1: a task with `answer: fim` needs the text column `suffix`",
        ),
    ],
)
def test_tasks_that_do_not_fit_are_refused(rows, stage, message, tiny_tokenizer, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepared(rows, tiny_tokenizer, tmp_path, **stage)


def test_end_tokens_are_set_only_while_the_trainer_is_made():
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[1, 2]))
    with grpo.stopping_at(model, [3, 4]):
        assert model.generation_config.eos_token_id == [3, 4]
    assert model.generation_config.eos_token_id == [1, 2]
    with grpo.stopping_at(model, []):
        assert model.generation_config.eos_token_id == [1, 2]


@pytest.mark.parametrize(("factor", "limit"), [(None, 500), (1.5, 75), (20, 500)])
def test_completions_are_limited_by_the_length_of_the_references(factor, limit):
    args = SimpleNamespace(max_completion_length=500)
    grpo.limit_completions(args, SimpleNamespace(reference_length_factor=factor), {"reference_tokens": 50})
    assert args.max_completion_length == limit
    if factor:
        with pytest.raises(ValueError, match="a column `reference`"):
            grpo.limit_completions(args, SimpleNamespace(reference_length_factor=factor), {})


class Grader:
    async def grade(self, task, program):
        return Verdict("passed", "passed", program)


async def _graded(completion, **columns):
    return (await Verdicts(Grader(), [9]).grade([completion], {"completion_ids": [[5, 5]], **columns}))[0]


@pytest.mark.parametrize(
    ("form", "completion", "graded"),
    [
        ("continuation", "    return x\n\n\ndef g():\n    re", "    return x"),
        ("continuation", "    return x +", None),
        ("function", "def f(x):\n    return x\n\n\ndef g():\n    re", None),
    ],
)
def test_a_completion_at_the_length_limit_is_graded_if_its_body_ended(form, completion, graded):
    columns = {name: [value] for name, value in {**TASK, "answer": form}.items()}
    verdict = asyncio.run(_graded(completion, **columns))
    assert verdict == CUT_OFF if graded is None else verdict.detail.rstrip() == graded


@pytest.mark.parametrize(
    ("passed", "score"),
    [("v", 0.0), ("ve", 0.0), ("veh", 0.5), ("h", 0.5), ("vhi", 1.0), ("", 0.0)],
)
def test_hidden_fraction_counts_hidden_tests_that_no_trivial_body_passes(passed, score):
    tests = json.dumps({"visible": ["v"], "hidden": ["e", "h", "i"], "easy": ["e"]})
    results = tuple(TestResult("passed" if name in passed else "wrong_answer") for name in "vehi")
    verdict = Verdict("failed", "wrong_answer", "", results)
    assert earned_share(verdict, tests) == score
    assert earned_share(Verdict("passed", "passed"), tests) == 1.0
    assert earned_share(Verdict("failed", "syntax", "", results[:1]), tests) == 0.0
    assert earned_share(verdict, json.dumps({"code": "assert f"})) == verdict.fraction


def test_the_trainer_takes_plain_prompts_and_other_end_tokens(tiny_tokenizer, tmp_path):
    import torch
    from datasets import Dataset
    from trl import GRPOConfig

    from alignment.models import loading
    from alignment.models.source import RandomInit
    from alignment.stages.rollout_trainer import RolloutTrainer

    tiny_tokenizer.chat_template = formats.CHAT_TEMPLATE
    init = RandomInit(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.1, tie_word_embeddings=True,
    )  # fmt: skip
    model = loading.random_model(init, tiny_tokenizer, 0).to(torch.float32)
    loading.set_stop_tokens(model, tiny_tokenizer, chat=True)
    model.config.use_cache = False
    before = model.generation_config.eos_token_id
    ends = formats.stop_token_ids(tiny_tokenizer, formats.FIM_STOP_TOKENS)
    args = GRPOConfig(
        str(tmp_path), use_cpu=True, bf16=True, report_to=[], disable_tqdm=True, save_strategy="no", max_steps=1, seed=5,
        per_device_train_batch_size=4, num_generations=4, max_completion_length=8, logging_steps=1,
    )  # fmt: skip
    seen = []

    def reward(prompts, completions, **_):
        seen.extend(zip(prompts, completions, strict=True))
        return [float(len(completion)) for completion in completions]

    with grpo.stopping_at(model, ends):
        trainer = RolloutTrainer(
            model=model, args=args, reward_funcs=[reward], processing_class=tiny_tokenizer, stop_texts=("\ndef ",),
            train_dataset=Dataset.from_list([{"prompt": HEAD}] * 4),
        )  # fmt: skip
    assert trainer.cpu_rollouts is not None and trainer.cpu_rollouts.stop == ("\ndef ",)
    assert set(ends) <= set(trainer.generation_config.eos_token_id) and model.generation_config.eos_token_id == before
    trainer.train()
    assert {prompt for prompt, _ in seen} == {HEAD} and all(isinstance(completion, str) for _, completion in seen)
