"""Extraction of code from answers of many forms."""

import ast
import textwrap

import pytest

from alignment.evaluation.answer_blocks import fenced_blocks
from alignment.evaluation.benchmarks import evalplus
from alignment.evaluation.extraction import extract_code
from alignment.evaluation.problem import Problem, TextPrompt
from alignment.evaluation.python_code import longest_valid, trim_continuation
from alignment.evaluation.python_imports import add_imports
from alignment.evaluation.python_scripts import without_scripts


def defines(code, name):
    return name in {node.name for node in ast.parse(code).body if hasattr(node, "name")}


def run(code, name, *arguments):
    scope = {}
    exec(code, scope)
    return scope[name](*arguments)


def test_one_fenced_block_between_prose():
    answer = "Sure! Here it is:\n\n```python\ndef f(x):\n    return x + 1\n```\n\nIt adds one. Call `f(1)`."
    assert extract_code(answer, entry_point="f") == "def f(x):\n    return x + 1"


@pytest.mark.parametrize("tag", ["python", "Python", "py", "python3", ""])
def test_all_tags_of_python(tag):
    assert run(extract_code(f"```{tag}\ndef f():\n    return 7\n```", entry_point="f"), "f") == 7


def test_the_block_that_defines_the_entry_point_wins_over_a_longer_usage_example():
    usage = "print(f(1))\n" * 20
    answer = f"```python\ndef f(x):\n    return 2 * x\n```\nUsage:\n```python\n{usage}```"
    code = extract_code(answer, entry_point="f")
    assert run(code, "f", 3) == 6
    assert "print" not in code


def test_helpers_in_an_earlier_block_are_included():
    first = "First:\n```python\ndef helper(x):\n    return x + 1\n```\n"
    answer = first + "Then:\n```python\ndef f(x):\n    return helper(x)\n```"
    assert run(extract_code(answer, entry_point="f"), "f", 1) == 2


def test_of_two_versions_the_first_is_kept():
    answer = "```python\ndef f():\n    return 1\n```\nAlternatively:\n```python\ndef f():\n    return 2\n```"
    assert run(extract_code(answer, entry_point="f"), "f") == 1


def test_output_blocks_and_shell_blocks_are_not_code():
    answer = "```bash\npip install x\n```\n```python\ndef f():\n    return 1\n```\n```\n1\n```"
    assert extract_code(answer, entry_point="f") == "def f():\n    return 1"


def test_an_answer_cut_off_inside_its_block_keeps_what_parses():
    answer = "```python\ndef f(x):\n    return x\n\ndef g(x):\n    return (x +"
    code = extract_code(answer, entry_point="f")
    assert defines(code, "f")
    assert run(code, "f", 4) == 4


def test_an_answer_without_fences():
    assert run(extract_code("def f(x):\n    return x * x\n", entry_point="f"), "f", 3) == 9


def test_prose_around_bare_code():
    answer = "The function is simple.\n\ndef f(x):\n    return x - 1\n\nThis works because subtraction is easy."
    code = extract_code(answer, entry_point="f")
    assert run(code, "f", 3) == 2
    assert "simple" not in code


def test_an_indented_block_in_a_list():
    answer = "1. Do this:\n\n   ```python\n   def f(x):\n       return x\n   ```\n2. Done."
    assert run(extract_code(answer, entry_point="f"), "f", 5) == 5


def test_a_whole_answer_that_is_indented():
    answer = textwrap.indent("def f(x):\n    return x\n", "    ")
    assert run(extract_code(answer, entry_point="f"), "f", 5) == 5


def test_missing_imports_are_added():
    code = extract_code("```python\ndef f(x: List[int]) -> float:\n    return math.sqrt(sum(x))\n```", entry_point="f")
    assert run(code, "f", [4, 5]) == 3.0


@pytest.mark.parametrize(
    "code",
    [
        "import math\nprint(math.pi)",
        "def f(math):\n    return math.pi",
        "re = 3\nprint(re)",
        "for string in []:\n    print(string)",
    ],
)
def test_defined_names_get_no_import(code):
    assert add_imports(code) == code


def test_imports_go_behind_future_imports():
    code = add_imports("from __future__ import annotations\nx = Counter()\n")
    ast.parse(code)
    assert code.startswith("from __future__ import annotations\nfrom collections import Counter\n")


def test_tildes_and_longer_fences():
    assert fenced_blocks("~~~python\na\n~~~") == [("python", "a\n")]
    assert fenced_blocks("````md\n```python\nx\n```\n````") == [("md", "```python\nx\n```\n")]


def test_a_new_tagged_fence_ends_one_that_was_never_closed():
    assert [tag for tag, _ in fenced_blocks("```python\na = 1\n```java\nclass A {}\n```")] == ["python", "java"]


def test_code_in_other_languages_is_unchanged():
    answer = "Here:\n```java\nclass A {}\n```\n"
    assert extract_code(answer, language="java") == "class A {}\n"


def test_backticks_in_prose_open_no_block():
    assert fenced_blocks("Use `f` and ``g``; no code here.") == []


@pytest.mark.parametrize("answer", ["", "I can't do that.", "```python\n```", "```", "``` ```", "\x00", "(" * 500])
def test_answers_without_code_give_text_and_no_error(answer):
    assert isinstance(extract_code(answer, entry_point="f"), str)


def test_longest_valid_ends_before_the_broken_line():
    assert longest_valid("a = 1\nb = 2\nc = (") == "a = 1\nb = 2"
    assert longest_valid("def f():\n    return 1\n)") == "def f():\n    return 1"
    assert longest_valid("here comes prose") == ""


def test_a_continuation_is_cut_where_it_stops_parsing():
    prefix = "def f(x):\n"
    assert trim_continuation(prefix, "    return x\n\nThat was easy") == "    return x\n\n"
    assert trim_continuation(prefix, "    return x\n") == "    return x\n"
    assert trim_continuation(prefix, "nothing here parses (") == "nothing here parses ("


RIGHT = "def f(x):\n    if x > 1:\n        return x + 1\n    return 2"
MALFORMED = {
    "prints and input behind the function": f"```python\n{RIGHT}\n\nprint(f(3))\nx = int(input())\nprint(f(x))\n```",
    "a guard that runs tests": f"```python\n{RIGHT}\n\nif __name__ == '__main__':\n    input()\n```",
    "unittest ends the process": f"```python\n{RIGHT}\n\nimport unittest\nunittest.main()\n```",
    "asserts that are wrong": f"```python\n{RIGHT}\n\nassert f(1) == 'nonsense'\n```",
    "a loop that calls it": f"```python\n{RIGHT}\n\nfor i in range(3):\n    print(f(i))\n```",
    "a fence in the middle of a line": f"Use this: ```python\n{RIGHT}\n```",
    "a closing fence at the end of the last line": f"```python\n{RIGHT}```\nIt's done.",
    "code on the line of the fence": f"```python def f(x):\n{RIGHT.partition(chr(10))[2]}\n```",
    "a tag in braces": f"```{{python}}\n{RIGHT}\n```",
    "a tag with a title": f'```python title="a.py"\n{RIGHT}\n```',
    "a fence inside of a string": f"```python\nEXAMPLE = '''\n```\ntext\n```\n'''\n\n{RIGHT}\n```",
    "thoughts with another version": f"<think>\n```python\ndef f(x):\n    return None\n```\nno\n</think>\n```python\n{RIGHT}\n```",
    "a version that is then corrected": f"```python\ndef f(x):\n    return 0\n```\nThat is wrong. Corrected:\n```python\n{RIGHT}\n```",
    "a stub before the solution": f"```python\ndef f(x):\n    '''Doc.'''\n    pass\n```\n```python\n{RIGHT}\n```",
    "a quoted answer": "\n".join(f"> {line}" for line in f"```python\n{RIGHT}\n```".split("\n")),
    "Windows line ends": f"Here:\n```python\n{RIGHT}\n```".replace("\n", "\r\n"),
    "terminal colours": f"\x1b[32m```python\n{RIGHT}\n```\x1b[0m",
    "a special token at the end": f"```python\n{RIGHT}\n```<|im_end|>",
    "non-breaking blanks": f"```python\n{RIGHT}\n```".replace("    ", "\u00a0" * 4),
    "a byte-order mark": f"\ufeff```python\n{RIGHT}\n```",
    "HTML around it": f"<code>\n{RIGHT}\n</code>",
    "an open block with prose behind it": f"```python\n{RIGHT}\n\nThis function's right, isn't it?",
    "a session before the code": f"```python\n>>> f(1)\n2\n```\n```python\n{RIGHT}\n```",
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_answers_give_their_function(answer):
    code = extract_code(answer, entry_point="f")
    assert [run(code, "f", 0), run(code, "f", 3)] == [2, 4]


def test_settings_and_tables_outside_the_function_stay():
    code = without_scripts(
        "import sys\nsys.setrecursionlimit(99)\nT = {}\nT.update(a=1)\ndef f(): return T\nf()\n", "f"
    )
    assert "setrecursionlimit" in code and "T.update" in code
    assert not code.rstrip().endswith("f()")


def test_an_assignment_that_the_function_needs_stays_though_it_calls_it():
    assert without_scripts("def f(): return g\ng = f()\nh = f()\n", "f") == "def f(): return g\ng = f()\n"


PROMPT = {"task_id": "HumanEval/0", "entry_point": "f", "prompt": 'import math\n\ndef f(x):\n    """Doc."""\n'}


@pytest.mark.parametrize(
    "answer",
    [
        "    return math.floor(x)\n",
        "def f(x):\n    return math.floor(x)\n```\nIt rounds. Example:\n```python\nprint(f(1.5))",
        "```python\n    return math.floor(x)\n```",
        "```python\nreturn math.floor(x)\n```",
        "Sure:\n```\ndef f(x):\n    return math.floor(x)\n```",
        "The function is easy.\n\ndef f(x):\n    return math.floor(x)\n\nDone, isn't it?",
    ],
)
def test_evalplus_answers_continue_the_opened_block_or_open_their_own(answer):
    program = evalplus.chat_program(Problem("HumanEval/0", TextPrompt(""), row=PROMPT), answer)
    assert run(program, "f", 2.5) == 2
