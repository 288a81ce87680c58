"""Evaluation of a checkpoint: engines, interrupted runs, ranks, and result files."""

import json
import shutil

import pytest

from alignment.evaluation import evaluate, read_documents
from alignment.evaluation.engines.decoding import DecodedSequence, choose_tokens
from alignment.evaluation.engines.protocol import GenerationJob, refuse_unsupported
from alignment.evaluation.engines.transformers_engine import TransformersEngine
from alignment.evaluation.statistics.paired import compare
from alignment.evaluation.store import read_jsonl

ROWS = [
    {"id": f"t{i}", "prefix": f"def f{i}(x):\n    return ", "suffix": "\n", "middle": f"x + {i}", "language": "python"}
    for i in range(12)
]


@pytest.fixture(scope="session")
def engine(tiny_checkpoint):
    return TransformersEngine(str(tiny_checkpoint), device="cpu", dtype="float32")


def jobs(temperature=0.0, stop=(), count=6):
    return [
        GenerationJob(
            str(i), [3 + (7 * i + j) % 90 for j in range(4 + 5 * i)], 24, stop=stop, temperature=temperature, seed=i
        )
        for i in range(count)
    ]


def texts(engine, jobs):
    return {job.key: completion for job, completion in engine.generate(jobs)}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_completion_does_not_depend_on_its_batch(engine, temperature):
    together = texts(engine, jobs(temperature))
    alone = {key: value for job in jobs(temperature) for key, value in texts(engine, [job]).items()}
    assert together == alone


def draws(probabilities, top_ps, seeds):
    """One token per nucleus and seed, drawn in one batch from these probabilities."""
    import torch

    sequences = [
        DecodedSequence(GenerationJob("", [0], 1, temperature=1.0, top_p=top_p, seed=seed), 9)
        for top_p in top_ps
        for seed in seeds
    ]
    return choose_tokens(torch.log(torch.tensor([probabilities] * len(sequences))), sequences)


def test_samples_follow_the_models_probabilities():
    tokens = draws([0.1, 0.6, 0.0, 0.3], [1.0], range(4000))
    assert [tokens.count(token) / 4000 for token in range(4)] == pytest.approx([0.1, 0.6, 0.0, 0.3], abs=0.03)


def test_a_nucleus_holds_the_most_likely_tokens_only():
    assert set(draws([0.1, 0.5, 0.1, 0.3], [0.7], range(300))) == {1, 3}


def test_a_draw_does_not_depend_on_other_nuclei_of_the_batch():
    mixed = draws([0.1, 0.5, 0.1, 0.3], [0.7, 1.0], range(50))
    assert mixed == [token for top_p in (0.7, 1.0) for token in draws([0.1, 0.5, 0.1, 0.3], [top_p], range(50))]


def test_samples_with_different_seeds_differ(engine):
    job = jobs(1.0)[2]
    first, second = (texts(engine, [GenerationJob(**{**vars(job), "seed": seed})]) for seed in (1, 2))
    assert first != second


def test_a_stop_string_ends_a_completion_and_is_not_in_it(engine):
    free = texts(engine, jobs())
    stop = next(completion.text[3:5] for completion in free.values() if len(completion.text) > 8)
    for key, completion in texts(engine, jobs(stop=(stop,))).items():
        assert completion.text == free[key].text.split(stop)[0]


def test_a_prompt_longer_than_the_model_is_reported_and_not_cut(engine):
    completion = texts(engine, [GenerationJob("long", [5] * 3000, 8)])["long"]
    assert (completion.text, completion.finish) == ("", "prompt_too_long")


def test_a_prompt_given_as_text_is_the_prompt_given_as_its_ids(engine):
    text = "<|im_start|>user\nAdd.<|im_end|>\n"
    ids = engine.tokenizer.encode(text, add_special_tokens=False)
    assert texts(engine, [GenerationJob("a", [], 8, text=text)]) == texts(engine, [GenerationJob("a", ids, 8)])


@pytest.mark.parametrize("prompt", [{"ids": []}, {"ids": [1], "text": "a"}])
def test_a_job_without_a_prompt_or_with_two_is_refused(prompt):
    with pytest.raises(ValueError, match="either as `ids` or as `text`"):
        GenerationJob("a", max_new_tokens=1, **prompt)


def test_sampling_settings_that_an_engine_does_not_support_are_refused():
    greedy = GenerationJob("a", [1], 8, top_p=0.5, seed=3)  # neither has an effect at temperature 0
    sampled = GenerationJob("b", [1], 8, temperature=0.5, top_p=0.5, stop=("x",))
    refuse_unsupported([greedy], "small", frozenset())
    refuse_unsupported([sampled], "small", frozenset(("temperature", "seed", "top_p", "stop")))
    with pytest.raises(ValueError, match="small does not support stop, top_p"):
        refuse_unsupported([greedy, sampled], "small", frozenset(("temperature", "seed")))


def request(path, **settings):
    return {"benchmark": "fim", "name": "fim", "data": str(path), "max_new_tokens": 16, **settings}


@pytest.fixture
def measured(tiny_checkpoint, write_rows, tmp_path):
    path = write_rows(ROWS)
    return path, evaluate(tiny_checkpoint, [request(path)], tmp_path / "out", dtype="float32")


def test_figures_are_in_percent_with_an_interval_around_them(measured):
    _, figures = measured
    names = ["exact_match", "edit_similarity", "content_similarity", "first_line_match", "stop_rate"]
    assert [figure["metric"] for figure in figures] == names
    for figure in figures:
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 100
        assert (figure["benchmark"], figure["n"], figure["errors"]) == ("fim", 12, 0)


def test_result_files_hold_all_tasks(measured, tmp_path):
    _, figures = measured
    assert json.loads((tmp_path / "out/figures.json").read_text()) == figures
    completions = list(read_jsonl(tmp_path / "out/completions.jsonl"))
    assert [row["task_id"] for row in completions] == [row["id"] for row in ROWS]
    assert read_documents(tmp_path / "out")[0]["verdicts"].keys() == {row["id"] for row in ROWS}


def test_an_interrupted_run_resumes_to_the_same_figures(measured, tiny_checkpoint, tmp_path, monkeypatch):
    path, figures = measured
    raw = (tmp_path / "out/raw/completions.0.jsonl").read_bytes()
    half = raw[: len(raw) // 2]  # killed in the middle of a line
    (tmp_path / "again/raw").mkdir(parents=True)
    (tmp_path / "again/raw/completions.0.jsonl").write_bytes(half)
    generated = []
    generate = TransformersEngine.generate
    monkeypatch.setattr(
        TransformersEngine, "generate", lambda self, jobs: generated.extend(jobs) or generate(self, jobs)
    )
    assert evaluate(tiny_checkpoint, [request(path)], tmp_path / "again", dtype="float32") == figures
    assert len(generated) == 12 - half.count(b"\n")


def test_a_second_start_loads_no_model(measured, tiny_checkpoint, tmp_path, monkeypatch):
    path, figures = measured
    monkeypatch.setattr(TransformersEngine, "__init__", lambda *_, **__: pytest.fail("the model was loaded"))
    assert evaluate(tiny_checkpoint, [request(path)], tmp_path / "out", dtype="float32") == figures


def test_completions_of_another_checkpoint_are_not_reused(measured, tiny_checkpoint, tmp_path, monkeypatch):
    path, _ = measured
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other", copy_function=shutil.copy)
    loaded = []
    start = TransformersEngine.__init__
    monkeypatch.setattr(TransformersEngine, "__init__", lambda *a, **k: loaded.append(1) or start(*a, **k))
    evaluate(other, [request(path)], tmp_path / "out", dtype="float32")
    assert loaded


def test_two_ranks_give_the_figures_of_one(measured, tiny_checkpoint, tmp_path):
    path, figures = measured
    out = tmp_path / "ranks"
    assert evaluate(tiny_checkpoint, [request(path)], out, rank=1, world_size=2, dtype="float32") == []
    assert evaluate(tiny_checkpoint, [request(path)], out, rank=0, world_size=2, dtype="float32") == figures
    counts = [len(list(read_jsonl(out / f"raw/completions.{rank}.jsonl"))) for rank in (0, 1)]
    assert counts == [6, 6]


def test_a_run_compared_with_itself_wins_and_loses_nothing(measured, tmp_path):
    for row in compare(tmp_path / "out", tmp_path / "out"):
        assert (row["won"], row["lost"], row["difference"], row["p_value"]) == ([], [], 0.0, 1.0)


def test_infrastructure_errors_enter_no_figure():
    from alignment.evaluation.scoring import Outcome
    from alignment.evaluation.statistics.figures import figures

    def outcome(task, status):
        scores = {} if status == "error" else {"pass": float(status == "passed")}
        return Outcome(task, 0, "", "stop", 1, "", status, "", "", scores)

    (figure,) = figures("x", [outcome("a", "passed"), outcome("b", "failed"), outcome("c", "error")], 0)
    assert (figure["value"], figure["n"], figure["errors"]) == (50.0, 2, 1)
    with pytest.raises(ValueError, match="could be graded"):
        figures("x", [outcome("a", "error")], 0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("humanevl", "Did you mean 'humaneval'"),
        ("fim", "data"),
        ({"benchmark": "fim", "data": "x.jsonl", "temprature": 1}, "Did you mean 'temperature'"),
        ({"benchmark": "fim", "data": "missing.jsonl"}, "no file or folder missing.jsonl"),
        ({"benchmark": "humaneval"}, "get HumanEvalPlus.jsonl.gz from"),
        ({"name": "x"}, "no benchmark is named"),
    ],
)
def test_mistakes_are_errors_before_anything_is_loaded(entry, message, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path / "no-model", [entry], tmp_path / "out")


def test_greedy_samples_are_refused(write_rows, tmp_path):
    with pytest.raises(ValueError, match="temperature above 0"):
        evaluate("x", [request(write_rows(ROWS), n=3)], tmp_path)
