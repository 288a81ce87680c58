"""Where a filled-in body ends: blocks, strings, brackets, comments, and what follows the body."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.evaluation import catalogue, evaluate
from alignment.evaluation.benchmark_request import parse_request
from alignment.evaluation.body_end import cut_at_body_end

FOLLOWING = "\n\ndef next_one():\n    return 2\n"


@pytest.mark.parametrize(
    ("prefix", "body", "rest"),
    [
        ("def f():\n", "    x = 1\n    return x\n", FOLLOWING),
        ("def f():\n    ", "x = 1\n    return x\n", FOLLOWING),
        ("class A:\n    def f(self):\n        ", "return 1\n", "\n    def g(self):\n        return 2\n"),
        ("def f():\n    ", "if a:\n        return 1\n    return 2\n", "print(f())\n"),
        ("def f():\n    ", 'x = """\nnot indented\n"""\n    return x\n', FOLLOWING),
        ("def f():\n    ", "x = [\n1,\n]\n    return x\n", FOLLOWING),
        ("def f():\n    ", "x = 1  # one\n# a comment at the margin\n    return x\n", FOLLOWING),
        ("def f():\n    ", "return 1\n", "# what follows\n\nclass B:\n    pass\n"),
        ("def f():\n    x = ", "1\n    return x\n", FOLLOWING),
        ("class A:\n    def f(self):\n        ", "return 1\n", "  strange = 1\n"),
        ("def f():\n    ", "return 1\n", "\n@decorated\ndef g(): ...\n"),
    ],
)
def test_python_bodies_end_where_a_statement_is_indented_less(prefix, body, rest):
    assert cut_at_body_end(prefix, body + rest, "python") == body
    assert cut_at_body_end(prefix, body, "python") == body


@pytest.mark.parametrize(
    "completion",
    ["", "    ", "x = (1,", 'x = """never closed\ndef g():', "    return 1", "\x00", "x = $\n", "return 1\n\n"],
)
def test_python_completions_without_an_end_are_unchanged(completion):
    assert cut_at_body_end("def f():\n    ", completion, "python") == completion


def test_the_top_level_of_a_file_has_no_end():
    assert cut_at_body_end("import os\n", "x = 1\n\ndef f(): ...\n", "python") == "x = 1\n\ndef f(): ...\n"


@pytest.mark.parametrize(
    ("language", "body"),
    [
        ("javascript", "  if (a) { return '}'; }\n  return `}${x}`;\n"),
        ("java", "  String s = \"}\";\n  char c = '}';\n  // }\n  for (;;) { break; }\n"),
        ("rust", '  let x: &\'a str = "}";\n  match x { _ => {} }\n'),
        ("go", '  s := `}`\n  /* } */\n  if s == "" { return }\n'),
        ("c++", "  int a[] = {1, 2};\n"),
    ],
)
def test_bodies_in_braces_end_before_the_brace_that_they_did_not_open(language, body):
    assert cut_at_body_end("f() {\n", body + "}\n\nvoid g() {}\n", language) == body
    assert cut_at_body_end("f() {\n", body, language) == body


def test_languages_with_other_blocks_are_unchanged():
    assert cut_at_body_end("def f\n", "  1\nend\n\ndef g\nend\n", "ruby") == "  1\nend\n\ndef g\nend\n"


@settings(deadline=None)
@given(
    st.text(alphabet="ab \n:#'\"()[]{}=\t\\", max_size=80), st.sampled_from(["python", "javascript", "rust", "ruby"])
)
def test_the_result_is_the_beginning_of_any_completion(completion, language):
    cut = cut_at_body_end("def f():\n    ", completion, language)
    assert (completion + "\n").startswith(cut)
    assert cut_at_body_end("def f():\n    ", cut, language).rstrip() == cut.rstrip()


ROW = {
    "id": "t", "prefix": "def f():\n    ", "suffix": "\ndef last(): ...\n", "middle": "x = 1\n    return x\n",
    "language": "python", "kind": "asserts", "tests": '{"code": "assert f() == 1"}',
}  # fmt: skip


def test_fim_takes_completions_as_given_and_fim_body_cuts_them(write_rows):
    data = str(write_rows([ROW]))
    given_benchmark, cut_benchmark = (
        catalogue.load(parse_request({"name": name, "benchmark": name, "data": data})) for name in ("fim", "fim-body")
    )
    text = ROW["middle"] + FOLLOWING
    (problem,) = given_benchmark.problems
    assert given_benchmark.assemble(problem, text) == ROW["prefix"] + text + ROW["suffix"]
    assert cut_benchmark.assemble(problem, text) == ROW["prefix"] + ROW["middle"] + ROW["suffix"]
    assert given_benchmark.stop_rate and cut_benchmark.stop_rate
    scores = given_benchmark.score(problem, text)
    assert scores["exact_match"] == 0 and scores["edit_similarity"] < 0.6
    assert scores["content_similarity"] == scores["first_line_match"] == 1


def test_the_stop_rate_counts_completions_that_end_by_themselves(write_rows, tiny_checkpoint, tmp_path):
    rows = [{"id": f"t{n}", "prefix": f"x = {n}", "suffix": "\n", "middle": "1"} for n in range(8)]
    entry = {"name": "own", "benchmark": "fim", "data": str(write_rows(rows)), "max_new_tokens": 4}
    metrics = {figure["metric"]: figure["value"] for figure in evaluate(tiny_checkpoint, [entry], tmp_path / "out")}
    lines = (tmp_path / "out" / "completions.jsonl").read_text().splitlines()
    stopped = [json.loads(line)["finish"] == "stop" for line in lines]
    assert len(stopped) == 8 and metrics["stop_rate"] == pytest.approx(100 * sum(stopped) / 8)
