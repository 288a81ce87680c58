"""Rewards from the user's own code: in the trainer's process, and isolated in one of their own."""

import asyncio
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment.extensions import Extension, ExtensionError
from alignment.rewards import build_rewards
from alignment.rewards.isolation import MAX_FAILURES, IsolatedReward

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "reward.py"
ANSWERS = [
    '```python\ndef f(x: int) -> int:\n    """Double x, the right way."""\n    return 2 * x\n```',
    "```python\ndef f(right):\n    return 2 * right\n```",
    "```python\nright = 2\n```",
]


@pytest.fixture
def write(tmp_path):
    """`write(text)` writes a file with the function `score`, and returns a reference to the function."""

    def save(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(text)
        return f"{tmp_path / name}:score"

    return save


def scores(reward, completions, columns, **more):
    return asyncio.run(reward(["p"] * len(completions), completions, **columns(len(completions), **more)))


@pytest.mark.parametrize("isolated", [False, True])
def test_the_example_is_added_to_the_verdict(fake, entry, columns, isolated):
    logged = {}
    own = entry(path=f"{EXAMPLE}:style", weight=0.2, isolated=isolated)
    (reward,) = build_rewards([entry(name="tests_passed"), own], fake)
    found = scores(reward, ANSWERS, columns, log_metric=logged.__setitem__)
    assert found == pytest.approx([1.2, 1.0, 1.0])
    assert logged["reward_parts/style"] == pytest.approx(1 / 3)
    assert scores(reward, ANSWERS[:1], columns, language=["java"]) == [1.0]


def test_a_step_of_grpo_is_trained_with_the_example(fake, entry, tiny_tokenizer, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from alignment.models import formats, loading
    from alignment.models.source import RandomInit

    init = RandomInit(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                      num_key_value_heads=1)  # fmt: skip
    model = loading.random_model(init, tiny_tokenizer, 0)
    loading.set_stop_tokens(model, tiny_tokenizer, chat=True)
    tiny_tokenizer.chat_template = formats.CHAT_TEMPLATE
    rows = {"prompt": [[{"role": "user", "content": "a"}]] * 2, "language": ["python"] * 2}
    args = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[], save_strategy="no", logging_steps=1,
                      per_device_train_batch_size=2, num_generations=2, max_completion_length=3, max_steps=1)  # fmt: skip
    trainer = GRPOTrainer(
        model=model, args=args, reward_funcs=build_rewards([entry(path=f"{EXAMPLE}:style")], fake),
        train_dataset=Dataset.from_dict(rows), processing_class=tiny_tokenizer,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.log_history[0]["reward_parts/style"] == 0.0


@pytest.mark.parametrize("definition", ["def", "async def"])
def test_a_reward_gets_texts_and_columns(fake, entry, columns, write, definition):
    path = write(
        f"{definition} score(prompts, completions, **columns):\n"
        "    assert (prompts, completions) == (['question'] * 2, ['a', 'bcd'])\n"
        "    assert columns['entry_point'] == ['f'] * 2 and columns['completion_ids'] == [[1], [2, 3]]\n"
        "    return [len(text) for text in completions]\n"
    )
    prompts = [[{"role": "system", "content": "s"}, {"role": "user", "content": "question"}]] * 2
    completions = [[{"role": "assistant", "content": text}] for text in ("a", "bcd")]
    for isolated in (False, True):
        (reward,) = build_rewards([entry(path=path, isolated=isolated)], fake)
        assert asyncio.run(reward(prompts, completions, **columns(2, completion_ids=[[1], [2, 3]]))) == [1.0, 3.0]


def test_functions_of_one_name_are_told_apart_by_their_files(fake, entry, columns, write):
    logged = {}
    paths = [write("def score(prompts, completions, **columns): return [1.0]\n", name) for name in ("a.py", "b.py")]
    (reward,) = build_rewards([entry(path=path) for path in paths], fake)
    assert scores(reward, ["x"], columns, log_metric=logged.__setitem__) == [2.0]
    assert set(logged) == {"reward_parts/score", "reward_parts/b.score"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1.0]", "mine.py:1: score returned 1 scores for 2 completions"),
        ("return 1.0", "mine.py:1: score returned 1.0; a reward returns a list"),
        ("return None", "mine.py:1: score returned NoneType; a reward returns a list"),
        ("return [1.0, 'high']", "mine.py:1: score returned 'high' for completion 2 of 2"),
        ("return [float('nan'), 1]", "mine.py:1: score returned nan for completion 1 of 2"),
        ("return [1, float('inf')]", "mine.py:1: score returned inf for completion 2 of 2"),
        ("x = 1\n    raise KeyError('x')", "mine.py:3: score: the reward raised KeyError: 'x'"),
    ],
)
@pytest.mark.parametrize("isolated", [False, True])
def test_wrong_results_are_errors_that_name_file_line_and_function(
    fake, entry, columns, write, body, message, isolated
):
    path = write(f"def score(prompts, completions, **columns):\n    {body}\n")
    (reward,) = build_rewards([entry(path=path, isolated=isolated)], fake)
    with pytest.raises(ExtensionError) as error:
        scores(reward, ["a", "b"], columns)
    assert message in str(error.value)


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(
    ("text", "message"), [("score = 3\n", "score is a int, not a function"), ("def score(:\n", "mine.py:1"),
                          ("import nothing_like_this\n", "No module named"), ("points = 1\n", "defines no 'score'")],
)  # fmt: skip
def test_a_reward_that_cannot_be_loaded_is_an_error_before_training(fake, entry, write, text, message, isolated):
    with pytest.raises(ExtensionError, match=message):
        build_rewards([entry(path=write(text), isolated=isolated)], fake)


CRASHES = {
    "exit": "os._exit(3)",
    "kill": "os.kill(os.getpid(), 9)",
    "hang": "time.sleep(60)",
    "busy": "while True: pass",
    "noise": "os.write(max(int(f) for f in os.listdir('/proc/self/fd') if f.isdigit() and int(f) < 64 and "
             "os.path.realpath(f'/proc/self/fd/{f}').rpartition('/')[2].startswith('pipe')), b'?')",
}  # fmt: skip


@pytest.mark.parametrize("kind", CRASHES)
def test_a_process_that_fails_gives_no_score_and_the_next_batch_is_scored(fake, entry, columns, write, caplog, kind):
    path = write(
        "import os, time\n\ndef score(prompts, completions, **columns):\n"
        f"    if completions[0] == 'crash':\n        {CRASHES[kind]}\n    return [1.0]\n"
    )
    own = entry(path=path, isolated=True, timeout_seconds=3.0, weight=0.5)
    (reward,) = build_rewards([entry(name="parses"), own], fake)
    with caplog.at_level(logging.WARNING):
        assert scores(reward, ["crash"], columns) == [1.0]  # of the other reward alone
    assert "have no score from this reward" in caplog.text
    assert scores(reward, ["x = 1"], columns) == [1.5]


def test_a_process_that_keeps_failing_ends_the_training(columns, write):
    path = write("import os\n\ndef score(prompts, completions, **columns):\n    os._exit(3)\n")
    reward = IsolatedReward(Extension.parse(path))
    for _ in range(MAX_FAILURES - 1):
        assert scores(reward, ["a"], columns) == [None]
    with pytest.raises(ExtensionError, match=r"mine.py: score: .*3 times in a row: it ended with exit code 3"):
        scores(reward, ["a"], columns)


def test_what_a_reward_prints_and_reads_does_not_disturb_its_answers(columns, write):
    path = write(
        "import subprocess, sys\n\ndef score(prompts, completions, **columns):\n"
        "    print('{\"scores\": [9.0]}', flush=True)\n    subprocess.run(['echo', '{\"scores\": [9.0]}'])\n"
        "    return [float(len(sys.stdin.read()))]\n"
    )
    reward = IsolatedReward(Extension.parse(path))
    assert scores(reward, ["a"], columns) == [0.0]
    reward.close()


def test_large_batches_and_odd_text_cross_to_the_process(columns, write):
    path = write("def score(prompts, completions, **columns): return [len(text) for text in completions]\n")
    reward = IsolatedReward(Extension.parse(path))
    texts = ["\ud800\n\0", "x" * 3_000_000, ""]
    assert scores(reward, texts, columns) == [3.0, 3_000_000.0, 0.0]
    reward.close()


def test_closing_ends_the_process_and_what_it_started(columns, write, tmp_path):
    path = write(
        "import os, subprocess\n\ndef score(prompts, completions, **columns):\n"
        f"    child = subprocess.Popen(['sleep', '60'])\n    open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "    return [1.0]\n"
    )
    reward = IsolatedReward(Extension.parse(path))
    scores(reward, ["a"], columns)
    reward.close()
    for pid in (tmp_path / "pids").read_text().split():
        end = time.monotonic() + 10
        while alive(int(pid)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not alive(int(pid))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_process_ends_with_a_trainer_that_is_killed(write):
    path = write("import os\n\ndef score(prompts, completions, **columns):\n    return [float(os.getpid())]\n")
    trainer = (
        "import asyncio, os\nfrom alignment.extensions import Extension\n"
        "from alignment.rewards.isolation import IsolatedReward\n"
        f"reward = IsolatedReward(Extension.parse({path!r}))\n"
        "print(int(asyncio.run(reward(['p'], ['a']))[0]), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", trainer], capture_output=True, text=True)
    end = time.monotonic() + 10
    while alive(int(run.stdout)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(int(run.stdout))
