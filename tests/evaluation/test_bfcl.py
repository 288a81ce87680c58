"""The benchmark `tools` on rows of BFCL: the check of calls, the categories, and tools as JSON schemas."""

import json

import pytest

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.function_calling_check import calls_match, tool_of

PARAMETERS = {
    "type": "dict",
    "properties": {
        "city": {"type": "string", "description": "The city."},
        "days": {"type": "integer"},
        "limit": {"type": "float"},
        "names": {"type": "array", "items": {"type": "string"}},
        "ids": {"type": "array", "items": {"type": "integer"}},
        "point": {"type": "tuple", "items": {"type": "float"}},
        "options": {"type": "dict", "properties": {"unit": {"type": "string"}}},
        "stops": {"type": "array", "items": {"type": "dict"}},
        "loud": {"type": "boolean"},
    },
    "required": ["city"],
}
FUNCTIONS = [{"name": "weather.get", "description": "Weather.", "parameters": PARAMETERS},
             {"name": "map", "description": "A map.", "parameters": PARAMETERS}]  # fmt: skip


def answer(name="weather.get", **values):
    return {name: {"city": ["San Francisco", "SF"], **values}}


def call(name="weather.get", **arguments):
    return {"name": name, "arguments": {"city": "San Francisco", **arguments}}


@pytest.mark.parametrize(
    ("expected", "made", "right"),
    [
        ([answer()], [call()], True),
        ([answer()], [call(city="san-francisco.")], True),
        ([answer()], [call(city="Oakland")], False),
        ([answer()], [call(city=["SF"])], False),
        ([answer()], [call("map")], False),
        ([answer()], [call(), call()], False),
        ([answer()], [], False),
        ([answer(days=[3])], [call(days=3)], True),
        ([answer(days=[3])], [call(days=3.0)], False),
        ([answer(days=[3])], [call(days="3")], False),
        ([answer(days=[3])], [call()], False),
        ([answer(days=["", 3])], [call()], True),
        ([answer(days=["", 3])], [call(days=4)], False),
        ([answer(days=["n"])], [call(days="n")], True),
        ([answer(days=["n"])], [call(days="N")], False),
        ([answer()], [call(days=3)], False),
        ([answer(limit=[3.0])], [call(limit=3)], True),
        ([answer(limit=[3.5])], [call(limit="3.5")], False),
        ([answer(loud=[True])], [call(loud=1)], False),
        ([answer(names=[["a b", "c"]])], [call(names=["A-B", "c"])], True),
        ([answer(names=[["a b", "c"]])], [call(names=["c", "a b"])], False),
        ([answer(names=[["a"]])], [call(names=[1])], False),
        ([answer(point=[[1.0, 2.0]])], [call(point=[1.0, 2.0])], True),
        ([answer(point=[[1, 2]])], [call(point=[1, 2])], True),
        ([answer(point=[[1, 2]])], [call(point=[1, 2.0])], True),
        ([answer(ids=[[1, 2]])], [call(ids=[1, 2])], True),
        ([answer(ids=[[1, 2]])], [call(ids=[1, 2.0])], False),
        ([answer(options=[{"unit": ["C", ""]}])], [call(options={})], True),
        ([answer(options=[{"unit": ["C"]}])], [call(options={"unit": "c"})], True),
        ([answer(options=[{"unit": ["C"]}])], [call(options={"unit": "C", "x": 1})], False),
        ([answer(options=[{"unit": ["C"]}])], [call(options={})], False),
        ([answer(stops=[[{"unit": ["C"]}]])], [call(stops=[{"unit": "C"}])], True),
        ([answer(stops=[[{"unit": ["C"]}]])], [call(stops=[{"unit": "C"}, {"unit": "C"}])], False),
        ([answer(), answer("map")], [call("map"), call()], True),
        ([answer(days=[1]), answer(days=[2])], [call(days=2), call(days=1)], True),
        ([answer(days=[1]), answer(days=[2])], [call(days=2), call(days=2)], False),
    ],
)
def test_calls_match_acceptable_answers(expected, made, right):
    assert calls_match(made, FUNCTIONS, expected) is right


def test_tools_are_json_schemas():
    parameters = tool_of(FUNCTIONS[0])["function"]["parameters"]
    assert parameters["type"] == "object" and parameters["properties"]["limit"]["type"] == "number"
    assert parameters["properties"]["point"] == {"type": "array", "items": {"type": "number"}}
    assert parameters["properties"]["options"]["properties"]["unit"]["type"] == "string"


def write(folder, category, rows, answers=None):
    file = folder / f"BFCL_v4_{category}.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if answers is not None:
        (folder / "possible_answer").mkdir(exist_ok=True)
        (folder / "possible_answer" / file.name).write_text("".join(json.dumps(row) + "\n" for row in answers))
    return file


def question(number):
    return {"id": f"q_{number}", "question": [[{"role": "user", "content": "Weather?"}]], "function": FUNCTIONS[:1]}


def load(path):
    return catalogue.load(BenchmarkRequest("tools", data=str(path)))


def test_a_folder_gives_four_categories_with_a_score_each(tmp_path):
    for number, category in enumerate(("simple_python", "multiple", "parallel", "parallel_multiple")):
        write(tmp_path, category, [question(number)], [{"id": f"q_{number}", "ground_truth": [answer()]}])
    write(tmp_path, "multi_turn_base", [question(9)])
    benchmark = load(tmp_path)
    assert len(benchmark.problems) == 4
    right = f"<tool_call>\n{json.dumps(call())}\n</tool_call>"
    assert benchmark.score(benchmark.problems[2], right) == {"ast_check": 1.0, "ast_check_parallel": 1.0}
    assert benchmark.score(benchmark.problems[2], right + "<tool_call>\n{")["ast_check"] == 0.0
    assert benchmark.problems[0].prompt.tools[0]["function"]["parameters"]["type"] == "object"


def test_irrelevant_questions_are_answered_without_a_call(tmp_path):
    benchmark = load(write(tmp_path, "irrelevance", [question(0)]))
    assert benchmark.score(benchmark.problems[0], "No tool helps.")["ast_check"] == 1.0
    assert benchmark.score(benchmark.problems[0], f"<tool_call>{json.dumps(call())}</tool_call>")["ast_check"] == 0.0


def test_missing_answers_and_other_categories_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the answers are missing"):
        load(write(tmp_path, "multiple", [question(0)]))
    with pytest.raises(ValueError, match="only categories with calls of Python functions"):
        load(write(tmp_path, "simple_java", [question(0)]))
    with pytest.raises(ValueError, match="has no file of the category simple_python"):
        load(tmp_path)
