"""Rows of ShareGPT, Alpaca and OpenAI files become the conversations and preferences that they mean, or are refused."""

import json

import pytest

from alignment.rows.conversions import convert
from alignment.rows.dialogue_pairs import pair_of
from alignment.rows.messages import conversation_of

TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def said(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def turns(*pairs):
    return [{"from": sender, "value": value} for sender, value in pairs]


def converted(row, form):
    """The messages of a converted conversation, with role, content and calls only."""
    messages, tools = conversation_of(convert(row, form, "row 1"), "row 1")
    keys = ("role", "content", "tool_calls")
    return [{key: message[key] for key in keys if message.get(key) is not None} for message in messages], tools


def test_sharegpt_with_several_calls_and_one_observation_for_all_of_them():
    calls = json.dumps([{"name": "f", "arguments": {"x": 1}}, {"name": "f", "arguments": {"x": 2}}])
    row = {
        "conversations": turns(
            ("human", "q"), ("function_call", calls), ("observation", '["one", {"two": 2}]'), ("gpt", "done")
        ),
        "system": "Be brief.",
        "tools": json.dumps([TOOL]),
        "id": 7,
    }
    second = {"type": "function", "function": {"name": "f", "arguments": {"x": 2}}}
    messages, tools = converted(row, "sharegpt")
    assert messages == [
        *said(("system", "Be brief."), ("user", "q")),
        {"role": "assistant", "content": "", "tool_calls": [CALL, second]},
        *said(("tool", "one"), ("tool", '{"two": 2}'), ("assistant", "done")),
    ]
    assert tools == [{"type": "function", "function": TOOL}] and convert(row, "sharegpt", "row 1")["id"] == 7


def test_sharegpt_keeps_marks_and_reads_its_keys_under_messages():
    row = {"messages": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a", "weight": 0}]}
    assert convert(row, "sharegpt", "row 1")["messages"][1] == {"role": "assistant", "content": "a", "weight": 0}


def test_alpaca_joins_instruction_and_input_after_the_history():
    row = {"instruction": "Add.", "input": "1, 2", "output": "3", "system": "s", "history": [["q", "a"]], "source": "x"}
    expected = said(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "Add.\n1, 2"), ("assistant", "3"))
    assert convert(row, "alpaca", "row 1") == {"messages": expected, "source": "x"}
    plain = convert({"instruction": "Add.", "input": "", "output": "3", "system": ""}, "alpaca", "row 1")
    assert plain == {"messages": said(("user", "Add."), ("assistant", "3"))}


def test_alpaca_and_sharegpt_preferences():
    alpaca = convert({"instruction": "q", "input": None, "chosen": "a", "rejected": "b"}, "alpaca", "row 1")
    sharegpt = {
        "conversations": turns(("human", "q")),
        "chosen": turns(("gpt", "a"))[0],
        "rejected": turns(("gpt", "b")),
    }
    for row in (alpaca, convert(sharegpt, "sharegpt", "row 1")):
        pair = pair_of(row, "row 1")
        assert (pair.prompt, pair.chosen, pair.rejected) == tuple(
            said(part) for part in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
        )


def test_openai_in_its_older_form():
    row = {
        "messages": [
            {"role": "developer", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "!"}]},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "content": "one"},
        ],
        "functions": [TOOL],
        "parallel_tool_calls": True,
    }
    messages, tools = converted(row, "openai")
    assert messages == [
        *said(("system", "s"), ("user", "q!")),
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        *said(("tool", "1"), ("assistant", "one")),
    ]
    assert tools[0]["function"] == TOOL


def test_openai_preference_with_tools():
    row = {
        "input": {"messages": said(("user", "q")), "tools": [{"type": "function", "function": TOOL}]},
        "preferred_output": [{"role": "assistant", "tool_calls": [CALL]}],
        "non_preferred_output": said(("assistant", "b")),
    }
    pair = pair_of(convert(row, "openai", "row 1"), "row 1")
    assert pair.chosen == [{"role": "assistant", "content": "", "tool_calls": [CALL]}] and len(pair.tools) == 1


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("sharegpt", {"messages": said(("user", "q"))}, 'message 1: a message is {"from": "human"'),
        ("sharegpt", {"text": "x"}, r'no conversation.*format: sharegpt.*\{"conversations"'),
        ("sharegpt", {"conversations": [], "messages": []}, "several conversations"),
        ("sharegpt", {"conversations": turns(("bot", "q"))}, "message 1: unknown `from` 'bot'.*human"),
        ("sharegpt", {"conversations": turns(("function_call", "f(1)"))}, "message 1: the value of a turn from `func"),
        (
            "sharegpt",
            {"conversations": turns(("system", "a")), "system": "b"},
            "a column `system` and a system message",
        ),
        ("sharegpt", {"conversations": turns(("human", "a")), "system": 3}, "`system` must be text"),
        ("sharegpt", {"conversations": turns(("human", "a")), "chosen": "a", "rejected": "b"}, "chosen: must be"),
        ("alpaca", {"output": "a"}, "`instruction` must be text"),
        ("alpaca", {"instruction": "q"}, "needs either `output`"),
        ("alpaca", {"instruction": "q", "output": "a", "chosen": "b", "rejected": "c"}, "needs either `output`"),
        ("alpaca", {"instruction": "q", "output": ["a"]}, "`output` must be text, not list"),
        ("alpaca", {"instruction": "q", "output": "a", "messages": []}, "and a conversation in one row"),
        ("alpaca", {"instruction": "q", "output": "a", "history": ["x"]}, "`history` is a list"),
        ("openai", {"instruction": "q", "output": "a"}, "needs `messages`"),
        ("openai", {"messages": [], "tools": [TOOL], "functions": [TOOL]}, "`tools` and `functions`"),
        ("openai", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only parts of text"),
        ("openai", {"input": {"messages": []}, "preferred_output": []}, "a preference needs"),
        ("openai", {"messages": [{"role": "assistant", "function_call": CALL, "tool_calls": [CALL]}]}, "message 1"),
    ],
)
def test_what_is_not_of_the_form_or_is_ambiguous_is_refused_with_the_right_form(form, row, message):
    with pytest.raises(ValueError, match=rf"(?s)row 1.*{message}"):
        convert(row, form, "row 1")
