"""The benchmark `tools` compares calls as JSON values: form, name, arguments."""

import json

import pytest

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.models import formats

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"key": {}, "count": {}}, "required": ["key"]},
        },
    }
    for name in ("lookup", "report")
]
QUESTION = {"role": "user", "content": "What is in a?"}


def row(*calls):
    answer = {"role": "assistant", "content": "" if calls else "No.", "tool_calls": list(calls)}
    return {"id": "1", "messages": [QUESTION, answer], "tools": TOOLS}


def load(tmp_path, *rows):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    return catalogue.load(BenchmarkRequest(benchmark="tools", name="t", data=str(tmp_path / "rows.jsonl")))


def written(*calls):
    return "\n".join(
        f"<tool_call>\n{call if isinstance(call, str) else json.dumps(call)}\n</tool_call>" for call in calls
    )


A = {"name": "lookup", "arguments": {"key": "a", "count": 1}}
B = {"name": "report", "arguments": {"key": "b"}}


@pytest.mark.parametrize(
    ("expected", "completion", "scores"),
    [
        ([A], written({"name": "lookup", "arguments": {"count": 1.0, "key": "a"}}), (1, 1, 1)),
        ([A], "I look.\n" + written(A), (1, 1, 1)),
        ([A], written(A).removesuffix("\n</tool_call>"), (1, 1, 1)),
        ([A, B], written(B, A), (1, 1, 1)),
        ([A, B], written(A), (1, 0, 0)),
        ([A], written(A, A), (1, 0, 0)),
        ([A], written({**A, "arguments": {"key": "a", "count": True}}), (1, 1, 0)),
        ([A], written({**A, "arguments": {"key": "a", "count": "1"}}), (1, 1, 0)),
        ([A], written({**A, "arguments": {"count": 1}}), (0, 1, 0)),
        ([A], written({**A, "arguments": {"key": "a", "count": 1, "x": 1}}), (0, 1, 0)),
        ([A], written({**A, "name": "search"}), (0, 0, 0)),
        ([A], written("{'name': 'lookup'}"), (0, 0, 0)),
        ([A], written({"name": "lookup", "arguments": '{"key": "a"}'}), (0, 0, 0)),
        ([A], written(A, "{"), (0, 0, 0)),
        ([A], json.dumps(A), (0, 0, 0)),
        ([], "No.", (1, 1, 1)),
        ([], written(A), (0, 0, 0)),
        ([], written("{"), (0, 0, 0)),
    ],
)
def test_calls_are_compared_as_json_values(expected, completion, scores, tmp_path):
    benchmark = load(tmp_path, row(*expected))
    found = benchmark.score(benchmark.problems[0], completion)
    assert tuple(found[name] for name in ("valid_call", "right_name", "right_arguments")) == scores


def test_the_prompt_lists_the_tools_and_ends_before_the_expected_calls(tiny_tokenizer, tmp_path):
    tiny_tokenizer.chat_template = formats.CHAT_TEMPLATE
    prompt = load(tmp_path, row(A)).problems[0].prompt
    expected = formats.chat([QUESTION], add_generation_prompt=True, tools=TOOLS)
    assert prompt.text(tiny_tokenizer) == expected
    assert prompt.encode(tiny_tokenizer) == tiny_tokenizer.encode(expected, add_special_tokens=False)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"prompt": "q", "tests": "{}"}, "needs conversations"),
        ({"messages": [QUESTION, {"role": "assistant", "content": "a"}]}, "needs `tools`"),
        ({"messages": [QUESTION], "tools": TOOLS}, "a last message of the assistant"),
        (row({"name": "lokup", "arguments": {}}), "Did you mean 'lookup'"),
    ],
)
def test_rows_without_expected_calls_are_refused_with_their_number(item, message, tmp_path):
    with pytest.raises(ValueError, match=f"row 1.*{message}"):
        load(tmp_path, item)
