"""The builder `preferences`: which answers become a pair."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment.evaluation.engines import selection
from data_builders import preferences
from data_builders.builder import BuildContext
from data_builders.builder_registry import find_builder
from data_builders.models.writers import TextModel
from data_builders.preferences import GradedAnswers, PreferencesSettings, SampledAnswer, choose_pairs

ANSWERS = st.lists(st.text(alphabet="ab", max_size=8), max_size=8)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine is slow
@given(ANSWERS, ANSWERS, st.integers(0, 5), st.integers(0, 2**32))
def test_pairs_are_of_a_passing_and_a_failing_answer_and_use_no_answer_twice(passing, failing, most, seed):
    pairs = list(choose_pairs(passing, failing, most, random.Random(seed)))
    assert len(pairs) == min(most, len(set(passing)), len(set(failing)))
    for side, answers in zip(zip(*pairs, strict=True), (passing, failing), strict=False):
        assert set(side) <= set(answers) and len(set(side)) == len(side)


def test_the_failing_answer_nearest_in_length_is_taken():
    assert list(choose_pairs(["aaaa"], ["b", "bbbbb", "bbbbbbbb"], 1, random.Random(0))) == [("aaaa", "bbbbb")]


def test_without_a_failing_or_a_passing_answer_there_is_no_pair():
    assert list(choose_pairs(["a"], [], 2, random.Random(0))) == []
    assert list(choose_pairs([], ["a"], 2, random.Random(0))) == []


def test_the_order_of_the_answers_does_not_matter_and_the_seed_does():
    passing, failing = [f"p{n}" for n in range(9)], [f"f{n}" for n in range(9)]
    first = list(choose_pairs(passing, failing, 3, random.Random(1)))
    assert first == list(choose_pairs(passing[::-1], failing[::-1], 3, random.Random(1)))
    assert any(list(choose_pairs(passing, failing, 3, random.Random(seed))) != first for seed in range(2, 9))


class Judge:
    """Scores an answer by its length, and gives no score to an answer with a question mark."""

    def answers(self, prompts, n, *, temperature, seed):
        from data_builders.models.judge import CHECKLIST

        texts = [prompt[0]["content"].split("<answer>\n")[1].split("\n</answer>")[0] for prompt in prompts]
        return [[] if "?" in text else [json.dumps(dict.fromkeys(CHECKLIST, min(10, len(text))))] for text in texts]


def build(tmp_path, monkeypatch, answers, graded=None, **settings):
    """Run the builder with these answers and grades. Return the builder's counts and the written pairs."""
    sampled = [[SampledAnswer(*answer) for answer in own] for own in answers]
    monkeypatch.setattr(preferences, "sample_answers", lambda *_: sampled)
    monkeypatch.setattr(
        preferences, "grade_answers", lambda *_: ([GradedAnswers(*own) for own in graded], {"failed": 1})
    )
    monkeypatch.setattr(preferences, "open_model", lambda settings: Judge())
    for name, rows in (("tasks", TASKS), ("questions", QUESTIONS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {name: tmp_path / f"{name}.jsonl" for name in ("tasks", "questions") if settings.pop(name, False)}
    builder = find_builder("preferences")
    counts = builder.run(builder.validate({**named, **settings}), BuildContext(tmp_path, seed=1))
    return counts, [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text().splitlines()]


TASKS = [{"id": "t", "prompt": "Write f.", "language": "python", "tests": "{}", "reference": "def f(): return 1"}]
QUESTIONS = [{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "x"}], "source": "q"}]
SETTINGS = TextModel(url="http://localhost/v1", model="judge")


def test_the_reference_is_the_chosen_answer_if_no_answer_passes(tmp_path, monkeypatch):
    counts, pairs = build(
        tmp_path, monkeypatch, [[("bad", True)]], [([], ["bad"])], tasks=True, references=True, pairs_per_prompt=2
    )
    assert [pair["chosen"][0]["content"] for pair in pairs] == ["```python\ndef f(): return 1\n```"]
    assert pairs[0]["source"] == "reference:t" and counts["pairs_with_reference"] == 1


def test_without_any_pair_the_error_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"no pair of a better and a worse answer was found \(failed 1\): train longer"
    ):
        build(tmp_path, monkeypatch, [[("bad", True)]], [([], ["bad"])], tasks=True)


def test_a_judge_pairs_the_best_answer_with_the_worst_and_unscored_answers_are_left_out(tmp_path, monkeypatch):
    answers = [("12345678", True), ("12", True), ("1234", True), ("unsure?", True), ("123456789 cut off", False)]
    counts, pairs = build(tmp_path, monkeypatch, [answers], questions=True, judge=SETTINGS)
    ((chosen, rejected),) = [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs]
    assert (chosen, rejected) == ("12345678", "12") and counts["judged_pairs"] == 1 and counts["judged_answers"] == 4


def test_answers_with_similar_scores_are_no_pair(tmp_path, monkeypatch):
    answers = [[("12345678", True), ("1234567", True)]]
    with pytest.raises(ValueError, match="no pair"):
        build(tmp_path, monkeypatch, answers, questions=True, judge=SETTINGS, min_gap=0.3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "tasks is missing"),
        ({"questions": "q"}, "belong together"),
        ({"questions": "q", "judge": SETTINGS, "references": True}, "which is not given"),
        ({"tasks": "t", "server": "http://127.0.0.1:8000", "engine": "vllm"}, "`server` names the engine already"),
        ({"questions": "q", "judge": {"url": "http://x/v1", "model": "m", "engine": "vllm"}}, "only for a local model"),
    ],
)
def test_contradicting_settings_are_refused(settings, expected):
    with pytest.raises(ValueError, match=expected):
        find_builder("preferences").validate(settings)


def test_answers_are_sampled_in_the_number_format_of_the_recipe(tmp_path, monkeypatch):
    opened = {}

    class Engine:
        tokenizer = None

        def generate(self, jobs):
            return iter(())

    def open_engine(path, name, batch_size, dtype):
        opened.update(path=path, name=name, batch_size=batch_size, dtype=dtype)
        return Engine()

    monkeypatch.setattr(selection, "open_engine", open_engine)
    context = BuildContext(tmp_path, model=tmp_path / "model", dtype="float32")
    preferences.sample_answers(PreferencesSettings(tasks=tmp_path / "tasks.jsonl", batch_size=3), context, [])
    assert opened == {"path": str(tmp_path / "model"), "name": "auto", "batch_size": 3, "dtype": "float32"}


def test_answers_come_from_the_engine_or_server_of_the_settings(tmp_path, monkeypatch):
    opened = []

    class Engine:
        tokenizer = None

        def generate(self, jobs):
            return iter(())

    def opener(*values, **settings):
        opened.append((values, settings))
        return Engine()

    monkeypatch.setattr(selection, "open_engine", opener)
    monkeypatch.setattr(selection, "open_server", opener)
    context = BuildContext(tmp_path, model=tmp_path / "model", dtype="float32")
    tasks = tmp_path / "tasks.jsonl"
    preferences.sample_answers(PreferencesSettings(tasks=tasks, engine="vllm"), context, [])
    preferences.sample_answers(PreferencesSettings(tasks=tasks, server="http://127.0.0.1:1"), context, [])
    assert opened == [
        ((str(tmp_path / "model"), "vllm", None, "float32"), {}),
        (("http://127.0.0.1:1", tmp_path / "model"), {"batch_size": None}),
    ]
