"""Marks of messages and columns of other trainers are honoured or refused; null values never become the word None."""

import pytest

from alignment.rows.kinds import check_columns, check_document, kind_of
from alignment.rows.messages import LOSS_MARKS, is_learned, messages_of
from alignment.rows.rendered import rendered_format
from alignment.rows.row_texts import document_text
from alignment.tokenization.segments import chat_segments

QUESTION = {"role": "user", "content": "q"}


def answer(**keys):
    return [QUESTION, {"role": "assistant", "content": "a", **keys}]


def learned(messages):
    return [segment.text for segment in chat_segments(messages_of(messages, "row 1"), "row 1") if segment.learned]


@pytest.mark.parametrize("mark", LOSS_MARKS)
@pytest.mark.parametrize("value", [0, 0.0, False])
def test_a_marked_answer_is_read_without_loss(mark, value):
    messages = [*answer(**{mark: value}), QUESTION, {"role": "assistant", "content": "b", mark: 1}]
    assert learned(messages) == ["b", "<|im_end|>"]
    assert learned(answer(**{mark: None})) == learned(answer(**{mark: True})) == ["a", "<|im_end|>"]
    assert not is_learned({**QUESTION, mark: 1})
    with pytest.raises(ValueError, match="row 1: every answer is marked"):
        learned(answer(**{mark: value}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weight": 0.5}, "`weight` is 0.5"),
        ({"weight": "0"}, "`weight` is '0'"),
        ({"train": "no"}, "`train` is 'no'"),
        ({"loss": -1}, "`loss` is -1"),
        ({"reasoning_content": "x"}, "`reasoning_content`"),
        ({"reasoning": "x"}, "`reasoning`"),
        ({"thinking": "x"}, "`thinking`"),
        ({"loss_mask": 0}, "`loss_mask`"),
        ({"mask": True}, "`mask`"),
        ({"wieght": 1}, "`wieght`"),
        ({"name": "bob"}, "`name`"),
        ({"prefix": True}, "`prefix`"),
        ({"images": ["a.png"]}, "`images`"),
        ({"tool_calls": [{}]}, "call 1: needs a `name`"),
        ({"function_call": {"name": "f"}, "content": ""}, "function_call"),
        ({"content": None, "refusal": "no"}, "`refusal`"),
        ({"content": None}, "needs a `content` of text, not NoneType"),
        ({"content": [{"type": "text", "text": "a"}]}, "`content` must be text, not a list of parts"),
        ({"content": {"text": "a"}}, "needs a `content` of text, not dict"),
        ({"content": "<fim_prefix>a<fim_suffix>c<fim_middle>b"}, "fill-in-the-middle"),
        ({"content": "a<|im_end|>\n"}, "ends with a special token"),
        ({"content": "\t"}, "empty or blank"),
        ({"role": "gpt"}, "unknown role 'gpt'"),
    ],
)
def test_what_would_be_ignored_is_refused_with_its_row(keys, message):
    with pytest.raises(ValueError, match=f"row 1.*{message}"):
        learned(answer(**keys))


def test_empty_and_descriptive_keys_of_a_message_are_accepted():
    assert learned(answer(tool_calls=None, name="", function_call={}, images=[], id=3, timestamp="now", prefix=False))


@pytest.mark.parametrize("messages", [None, [], {}, "hi", ["hi"], [None], [{"from": "human", "value": "q"}]])
def test_messages_of_another_form_are_refused(messages):
    with pytest.raises(ValueError, match="row 1"):
        messages_of(messages, "row 1")


@pytest.mark.parametrize("column", ["system", "system_prompt", "functions", "images", "weight", "history"])
def test_columns_that_would_be_ignored_are_refused_unless_they_are_empty(column):
    row = {"messages": answer()}
    for empty in (None, "", [], {}):
        check_columns({**row, column: empty}, "conversation", "row 1")
    with pytest.raises(ValueError, match=f"row 1: the column `{column}` would be ignored"):
        check_columns({**row, column: "x"}, "conversation", "row 1")


@pytest.mark.parametrize("column", ["langauge", "Language", "formats_", "fromat", "repositry", "languag"])
def test_misspelled_columns_are_refused_with_the_right_name(column):
    row = {"text": "x", column: "y"}
    if column == "formats_":
        check_columns(row, "document", "row 1")
        return
    with pytest.raises(ValueError, match=rf"row 1: unknown column `{column}`.* Did you mean"):
        check_columns(row, "document", "row 1")


def test_columns_about_a_row_are_read():
    check_columns({"text": "x", "language": "c", "languages": ["c"], "label": 3, "meta": {"a": 1}}, "document", "row 1")
    check_columns({"messages": answer(), "prompt": "q", "prompt_id": "1", "metadata": {}}, "conversation", "row 1")


@pytest.mark.parametrize(
    "row",
    [
        {"text": None},
        {"text": ["x"]},
        {"text": 3},
        {"files": None},
        {"files": []},
        {"files": "a.py"},
        {"files": {"a.py": "x"}},
        {"files": ["x"]},
        {"files": [None]},
        {"files": [{"text": "x"}]},
        {"files": [{"path": None, "text": "x"}]},
        {"files": [{"path": "a.py", "text": None}, {"path": "b.py", "text": "x"}]},
        {"files": [{"path": "a.py", "text": "x"}, {"path": "b.py", "text": 1}]},
        {"files": [{"path": "a.py", "text": "x"}], "repository": 3},
        {"text": "x", "format": "fim"},
    ],
)
def test_documents_without_text_are_refused_with_their_row(row):
    with pytest.raises(ValueError, match="row 1: "):
        check_document(row, "row 1")


@pytest.mark.parametrize("files", [[{"path": "a.py", "text": None}], [None], {"a.py": "x"}])
def test_builders_do_not_read_null_as_text_either(files):
    with pytest.raises(ValueError, match="a repo-level document: "):
        document_text({"repository": "r", "files": files})


def test_columns_of_null_do_not_tell_the_kind():
    assert kind_of({"messages": None, "text": "x"}) == "document"
    assert kind_of({"chosen": None, "rejected": None, "messages": answer()}) == "conversation"
    assert kind_of({"prompt": "q", "tests": None}) == "task" and kind_of({"text": None}) == "document"


@pytest.mark.parametrize(
    "row", [{"conversations": []}, {"prompt": "q", "completion": "a"}, {"instruction": "q", "output": "a"}]
)
def test_rows_of_other_forms_are_refused_with_how_to_turn_them(row):
    with pytest.raises(ValueError, match=r"(?s)row 1: .*(ShareGPT|Turn `|Alpaca).*messages"):
        kind_of(row, "row 1")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<|im_start|>user\nhi<|im_end|>\n", "ChatML"),
        ("  <s>[INST] hi [/INST] a</s>", "INST"),
        ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>", "Llama 3"),
        ("<fim_suffix>b<fim_prefix>a<fim_middle>c", "fim"),
        ("<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>c", "fim"),
        ("<PRE> a <SUF>b <MID> c", "fim"),
        ("<repo_name>r<file_sep>a.py\nx", "StarCoder"),
        ("<|file_sep|>a.py\nx", "repo-level"),
        ('IM_START = "<|im_start|>"\nFIM = "<|fim_prefix|>", "<|fim_middle|>"\n', None),
        ("<html><pre>x</pre></html>", None),
        ("<|im_start|> is ChatML's first token", None),
        ("<PRE> is a tag", None),
        ("[1, 2]", None),
        ("[INST] alone", None),
        ("", None),
    ],
)
def test_texts_with_special_tokens_written_out_are_told_from_texts_that_name_them(text, name):
    rendered = rendered_format(text)
    assert rendered is None if name is None else name in rendered
