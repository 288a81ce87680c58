"""Extraction from answers whose code looks like mark-up, whose text names versions, or whose top level is needed."""

import contextlib
import io
import json
import sys
import threading
import types

import pytest

from alignment.evaluation.answer_versions import Version, version_of
from alignment.evaluation.extraction import extract_code
from alignment.evaluation.python_imports import add_imports

GOOD = "def f(x):\n    return x * x\n"
BLOCK = f"```python\n{GOOD}```\n"
BAD = "```python\ndef f(x):\n    return x + x\n```\n"
SQUARES = "assert f(3) == 9"


def execute(code, check):
    """Run a program as a module without input and arguments, and a check in its scope."""
    module = types.ModuleType("answer")
    sys.modules["answer"] = module  # dataclasses look their module up
    limit = sys.getrecursionlimit()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, "answer", "exec"), module.__dict__)
            exec(check, module.__dict__)
    finally:
        # Answers raise both. With such a limit, deeply nested JSON in a later test overflows the stack of the process.
        sys.setrecursionlimit(limit)
        threading.stack_size(0)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>", "</think>"])
@pytest.mark.parametrize(
    "answer",
    [
        "```python\ndef f(x):\n    return x.split('TOKEN')[0]\n```",
        "```python\ndef f(x):\n    return x.split('TOKEN')[0]\n",
        "Here it is:\n\ndef f(x):\n    return x.split('TOKEN')[0]\n\nThat's all, isn't it?",
        "The token `TOKEN` is cut.\n```python\ndef f(x):\n    # drop TOKEN and the rest\n    return x.split('TOKEN')[0]\n```",
        "def f(x):\n    # drop TOKEN and the rest\n    return x.split('TOKEN')[0]\n\nDone.",
        '```python\ndef f(x):\n    """\n    Cuts at\n    TOKEN\n    """\n    return x.split(\'TOKEN\')[0]\n```',
        'Sure:\n\ndef f(x):\n    """\n    Cuts at\n    TOKEN\n    """\n    return x.split(\'TOKEN\')[0]\n\nDone.',
    ],
)
def test_tags_and_tokens_in_strings_and_comments_are_code(answer, token):
    code = extract_code(answer.replace("TOKEN", token), entry_point="f")
    execute(code, f"assert f('a{token}b') == 'a'")


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>"])
@pytest.mark.parametrize(
    "answer",
    [
        BLOCK.rstrip() + "TOKEN\n<|im_start|>user\n" + BAD,
        "```python\n" + GOOD.rstrip() + "TOKEN\n<|im_start|>user\nmore\n```",
        GOOD.rstrip() + "TOKEN\nuser\nmore",
    ],
)
def test_what_follows_the_end_of_the_turn_is_cut(answer, token):
    code = extract_code(answer.replace("TOKEN", token), entry_point="f")
    execute(code, SQUARES)
    assert "more" not in code and "x + x" not in code


THOUGHTS = {
    "two": f"<think>a</think>\n<think>b {BAD}</think>\n{BLOCK}",
    "end tag quoted in the thought": f"<think>cut `</think>` off, as in '</think>'\n{BAD}</think>\n\n{BLOCK}",
    "opened by the prompt": f"First I try\n{BAD}no.\n</think>\n{BLOCK}",
    "opened by the prompt, with an unclosed draft": f"I try\n```python\ndef f(x):\n    return 0\n</think>\n{BLOCK}",
    "another tag": f"<thinking>\n{BAD}</thinking>\n{BLOCK}",
    "bare code behind": f"<think>hm</think>{GOOD}",
}
FORMS = {
    "highlighted": "```python\n\x1b[34mdef\x1b[0m f(x):\n    \x1b[34mreturn\x1b[0m x * x\n```",
    "zero width": "```python\ndef f(x):\n\xa0\xa0\xa0\xa0return x\u200b * x\n```",
    "doc fence": '```python\ndef f(x):\n    """Doc.\n\n    ```\n    f(1)\n    ```\n    """\n    return x * x\n```\nDone.',
    "doc fence tagged": '```python\ndef f(x):\n    """Doc.\n\n    ```python\n    f(1)\n    ```\n    """\n    return x * x\n```\nDone.\n```\n9\n```',
    "comment fence": "```python\ndef f(x):\n    # Wrapped in ```\n    return x * x\n```",
    "comment fence 2": "```python\nA = 1  # wrapped in ```\ndef f(x):\n    return x * x\n```\n",
    "longer": "````python\ndef f(x):\n    return x * x\n````\nText",
    "longer with inner": '````python\ndef f(x):\n    """\n```\n1\n```\n    """\n    return x * x\n````',
    "mismatched close": "````python\ndef f(x):\n    return x * x\n```\nThis squares.",
    "md outer 4": "````markdown\n# Title\n```python\ndef f(x):\n    return x * x\n```\nMore\n````\n",
    "md outer same": "```markdown\n# Title\n```python\ndef f(x):\n    return x * x\n```\nMore\n```\n",
    "tilde outer": '~~~python\ndef f(x):\n    """```\n    f\n    ```"""\n    return x * x\n~~~',
    "bare with fence doc": 'def f(x):\n    """Doc.\n\n    ```\n    f(1)\n    ```\n    """\n    return x * x\n',
    "prose bare fence doc": 'Sure.\n\ndef f(x):\n    """Doc.\n\n    ```\n    f(1)\n    ```\n    """\n    return x * x\n\nDone.',
    "trunc doc then again": "```python\ndef f(x):\n    '''Doc\n```\nSorry, in full:\n```python\ndef f(x):\n    '''Doc.'''\n    return x * x\n```",
    "one-line fence": "```python def f(x): return x * x```",
    "crlf": "```python\r\ndef f(x):\r\n    return x * x\r\n```\r\n",
    "quote block": "Words\n\n> ```python\n> def f(x):\n>     return x * x\n> ```\n",
    "inline": "The function is `f = lambda x: x * x`, easy.",
    "inline 2": "Use ``def f(x): return x * x`` or `f`.",
    "diff": "```diff\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n def f(x):\n-    return x + x\n+    return x * x\n```",
    "diff in python tag": "```python\n def f(x):\n-    return x + x\n+    return x * x\n```",
    "diff + output": "```diff\n-def f(x):\n-    return x + x\n+def f(x):\n+    return x * x\n```\nOutput:\n```\n9\n```",
    "session": "```python\n>>> def f(x):\n...     return x * x\n... \n>>> f(3)\n9\n```",
    "ipython": "```ipython\nIn [1]: def f(x):\n   ...:     return x * x\n   ...:\n\nIn [2]: f(3)\nOut[2]: 9\n```",
    "bare session": "Like this:\n\n>>> def f(x):\n...     return x * x\n...\n>>> f(3)\n9\n",
    "nums10": "```python\n 1 def f(x):\n 2     x = x\n 3     x = x\n 4     x = x\n 5     x = x\n 6     x = x\n 7     x = x\n 8     x = x\n 9     x = x\n10     x = x\n11     x = x\n12     return x * x\n```",
    "nums left": "```python\n1 def f(x):\n2     x = x\n3     x = x\n4     x = x\n5     x = x\n6     x = x\n7     x = x\n8     x = x\n9     x = x\n10     x = x\n11     x = x\n12     return x * x\n```",
    "nums left fixed": "```python\n1   def f(x):\n2       x = x\n3       x = x\n4       x = x\n5       x = x\n6       x = x\n7       x = x\n8       x = x\n9       x = x\n10      x = x\n11      x = x\n12      return x * x\n```",
    "nums colon": "```python\n1: def f(x):\n2:     return x * x\n```",
    "nums pipe": "```python\n1 | def f(x):\n2 |     y = x\n3 |\n4 |     return x * y\n```",
    "nums blank": "```python\n1  def f(x):\n2\n3      return x * x\n```",
    "star": "```python\nfrom math import *\n```\n```python\ndef f(x):\n    return x * x\n```\n",
}


@pytest.mark.parametrize("answer", [*THOUGHTS.values(), *FORMS.values()], ids=[*THOUGHTS, *FORMS])
def test_the_function_is_found(answer):
    execute(extract_code(answer, entry_point="f"), SQUARES)


def test_examples_in_the_docstring_of_incomplete_code_are_no_session():
    code = extract_code(
        'def f(x):\n    """Doc.\n\n    >>> f(1)\n    1\n    """\n    y = x * x\n    return y\n    if (', entry_point="f"
    )
    execute(code, SQUARES)


def test_lines_of_blanks_in_strings_stay():
    answer = '```python\ndef f():\n    return """a\n    \nb"""\n```'
    execute(extract_code(answer, entry_point="f"), r"assert f() == 'a\n    \nb'")


@pytest.mark.parametrize(
    ("answer", "check"),
    [
        ('```python\ndef f(s):\n    return f"\x1b[1m{s}\x1b[0m"\n```', "assert f('a')=='\\x1b[1ma\\x1b[0m'"),
        ("```python\ndef f(x):\n    return x.replace('\xa0', '')\n```", "assert f('a\xa0b')=='ab'"),
        (
            '```python\ndef f(x):\n    t = """\n```python\nx\n```\n"""\n    return t\n```\nDone.',
            "assert f(1)=='\\n```python\\nx\\n```\\n'",
        ),
        ('```python\ndef f(x):\n    return "```" + x + "```"\n```', "assert f('a')=='```a```'"),
        (
            '```python\nimport re\ndef f(x):\n    return re.findall(r"```(.*?)```", x)\n```',
            "assert f('```a```')==['a']",
        ),
        ("```python\ndef f(x):\n    return x.startswith('```') and x.endswith('```')\n```", "assert f('```a```')"),
    ],
)
def test_strings_keep_their_characters(answer, check):
    execute(extract_code(answer, entry_point="f"), check)


WRONG = [
    "A common mistake is:",
    "A common mistake is to write",
    "A common pitfall:",
    "Do not write it like this:",
    "Don't use this version, though it looks improved:",
    "The incorrect version:",
    "Wrong:",
    "**Wrong**",
    "Avoid the following:",
    "Never do this:",
    "This would be wrong:",
    "Instead of:",
    "The buggy version, for comparison:",
    "How not to do it:",
    "Here is an example of a bug:",
    "An alternative that should not be used:",
    "Note that the following final version would fail for 3:",
    "A typical wrong fix is:",
    "An anti-pattern:",
    "compare this with",
]
WRONG_FIRST = ["A common mistake is:", "The wrong way:", "Here's the buggy version:", "Don't do this:", "Incorrect:"]
CORRECTIONS = [
    "That is wrong. Corrected:",
    "Wait, that has a bug. Here is the fix:",
    "Oops, I made a mistake.",
    "The first version fails for 3, so:",
    "Here is the corrected version:",
    "Fixed version:",
    "Final answer:",
    "It should be:",
    "There is a bug in the above. Use this instead:",
    "That doesn't work for 3.",
    "Sorry, this is the revised code:",
    "To avoid the bug, the improved version:",
    "This version fixes the bug:",
    "The version above is incorrect.",
]


@pytest.mark.parametrize("words", WRONG)
def test_a_block_that_the_text_calls_wrong_does_not_replace_the_answer(words):
    assert version_of(words) is Version.WRONG
    execute(extract_code(f"{BLOCK}\n{words}\n\n{BAD}", entry_point="f"), SQUARES)


@pytest.mark.parametrize("end", ["The right way:", "Use this:"])
@pytest.mark.parametrize("words", WRONG_FIRST)
def test_a_wrong_example_before_the_answer_is_left_out(words, end):
    execute(extract_code(f"{words}\n{BAD}\n{end}\n{BLOCK}", entry_point="f"), SQUARES)


@pytest.mark.parametrize("words", CORRECTIONS)
@pytest.mark.parametrize("between", ["", "```bash\nls\n```\n"])
def test_a_correction_replaces_the_block_before(words, between):
    assert version_of(words) is Version.CORRECTION
    execute(extract_code(f"{BAD}\n{words}\n\n{between}{BLOCK}", entry_point="f"), SQUARES)


def test_comments_at_the_start_of_a_block_count_as_its_text():
    wrong, right = BAD.replace("def", "# Wrong\ndef"), BLOCK.replace("def", "# Correct\ndef")
    execute(extract_code(wrong + right, entry_point="f"), SQUARES)
    execute(extract_code(right + wrong, entry_point="f"), SQUARES)


@pytest.mark.parametrize("words", ["", "Alternatively:", "To avoid recursion, a loop may be used."])
def test_text_that_does_not_judge_a_block_gives_a_plain_version(words):
    assert version_of(words) is Version.PLAIN


NEEDED = {
    "loop fills": "TABLE = {}\nfor i in range(10):\n    TABLE[i] = i * i\ndef f(x):\n    return TABLE[x]\n",
    "while fills": "TABLE = []\ni = 0\nwhile i < 10:\n    TABLE.append(i*i)\n    i += 1\ndef f(x):\n    return TABLE[x]\n",
    "call with arg": "TABLE = []\ndef fill(t):\n    for i in range(10):\n        t.append(i*i)\nfill(TABLE)\ndef f(x):\n    return TABLE[x]\n",
    "call nested": "TABLE = []\ndef inner():\n    TABLE.extend(i*i for i in range(10))\ndef outer():\n    inner()\nouter()\ndef f(x):\n    return TABLE[x]\n",
    "global rebind": "TABLE = None\ndef init():\n    global TABLE\n    TABLE = [i*i for i in range(10)]\ninit()\ndef f(x):\n    return TABLE[x]\n",
    "heapify": "import heapq\nH = [9, 1]\nheapq.heapify(H)\ndef f(x):\n    return H[0] * x * x\n",
    "object method": "class S:\n    def __init__(self): self.t = []\n    def build(self): self.t = [i*i for i in range(10)]\nS0 = S()\nS0.build()\ndef f(x):\n    return S0.t[x]\n",
    "with": "TABLE = []\nfrom contextlib import suppress\nwith suppress(IndexError):\n    for i in range(10): TABLE.append(i*i)\ndef f(x):\n    return TABLE[x]\n",
    "if not": "TABLE = []\nif not TABLE:\n    TABLE.extend(i*i for i in range(10))\ndef f(x):\n    return TABLE[x]\n",
    "try const": "try:\n    LIMIT = int('9')\nexcept ValueError:\n    LIMIT = 5\ndef f(x):\n    return LIMIT\n",
    "register": "HANDLERS = {}\ndef register(name, fn):\n    HANDLERS[name] = fn\nregister('sq', lambda x: x * x)\ndef f(x):\n    return HANDLERS['sq'](x)\n",
    "decorator registry": "H = {}\ndef reg(g):\n    H['a'] = g\n    return g\n@reg\ndef sq(x): return x * x\ndef f(x): return H['a'](x)\n",
    "setitem after use": "def f(x):\n    return TABLE[x]\nTABLE = [0]*10\nfor i in range(10):\n    TABLE[i] = i*i\nprint(f(3))",
    "comp stmt": "TABLE = []\n[TABLE.append(i*i) for i in range(10)]\ndef f(x):\n    return TABLE[x]\n",
    "singledispatch": "from functools import singledispatch\n@singledispatch\ndef f(x):\n    return 0\nf.register(int, lambda x: x * x)\n",
}
EXAMPLES = {
    "chain": "def f(x):\n    return x * x\nresult = f(4)\nother = result + 1\nthird = [other]\nprint(third)\nthird.append(5)\nfor t in third:\n    assert t == 0",
    "unpack": "def f(x):\n    return x * x\na, b = f(1), f(2)\nc = a + b\nc += 1\nassert c == 99",
    "bad example": "def f(x):\n    return x * x\nitems = [1, 2]\nfor i in items:\n    print(f(i))\nr = [f(i) for i in items]\nprint(1/0)",
    "argparse": "import argparse\ndef f(x):\n    return x * x\nparser = argparse.ArgumentParser()\nparser.add_argument('n')\nargs = parser.parse_args()\nprint(f(args.n))",
    "stdin": "import sys\ndef f(x):\n    return x * x\ndata = sys.stdin.read().split()\nn = int(data[0])\nprint(f(n))",
    "stdin main": "import sys\ndef f(x):\n    return x * x\ndef main():\n    n = int(sys.stdin.readline())\n    print(f(n))\nmain()\n",
    "main assigns": "def f(x):\n    return x * x\ndef main():\n    return int(input())\nn = main()\nprint(n)",
    "unittest": "def f(x):\n    return x * x\nimport unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(3), 0)\nunittest.main()\n",
    "pytest fn": "def f(x):\n    return x * x\ndef test_f():\n    assert f(2) == 5\ntest_f()\n",
    "check fn": "def f(x):\n    return x * x\ndef check(g):\n    assert g(2) == 5\ncheck(f)\n",
    "sys exit": "import sys\ndef f(x):\n    return x * x\nsys.exit(f(3))",
    "try main": "def f(x):\n    return x * x\ndef main():\n    print(f(int(input())))\ntry:\n    main()\nexcept EOFError:\n    raise\n",
    "timing": "import time\ndef f(x):\n    return x * x\nstart = time.time()\nf(3)\nend = time.time()\nprint(end - start)\nassert end - start < -1",
    "class entry": "class f:\n    def __new__(cls, x): return x * x\ns = f(3)\ns.run()\nprint(s)",
    "memo self": "memo = {}\ndef f(x):\n    if x not in memo: memo[x] = x * x\n    return memo[x]\nprint(memo)\nfor k in memo:\n    assert k == 100\nf(2)\n",
    "logging": "import logging\nlogging.basicConfig(level=10)\nlog = logging.getLogger()\ndef f(x):\n    return x * x\nlog.info(f(3))",
    "reclimit": "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\ndef f(x):\n    return x * x\n",
    "random": "import random\nrandom.seed(0)\nP = [3, 3]\nrandom.shuffle(P)\ndef f(x): return P[0] * x\n",
    "stdin alias": "import sys\ninput = sys.stdin.readline\ndef f(x):\n    return x * x\nn = int(input())\n",
    "decorated lines": "import functools\n\n@functools.lru_cache\ndef f(x):\n    return x * x\nf(2); print(f(2))",
}


@pytest.mark.parametrize("code", [*NEEDED.values(), *EXAMPLES.values()], ids=[*NEEDED, *EXAMPLES])
def test_needed_statements_stay_and_examples_go(code, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["answer"])
    execute(extract_code(f"```python\n{code}\n```", entry_point="f"), SQUARES)


@pytest.mark.parametrize(
    "expression",
    [
        "next(islice(cycle([x * x]), 1))",
        "prod([x, x])",
        "int(log2(2)) * x * x",
        "comb(x, 1) * x",
        "list(starmap(mul, [(x, x)]))[0]",
        "x * x if isclose(pi, 3.14159265, rel_tol=1e-3) else 0",
        "reduce(lambda a, b: a * b, [x, x])",
        "len(list(pairwise(range(x * x + 1))))",
        "mean([x * x])",
        "(lambda p: p.x)(SimpleNamespace(x=x * x))",
        "itemgetter(0)([x * x])",
        "len(StringIO('a' * x * x).read())",
        "partial(lambda a, b: a * b, x)(x)",
        "copy([x * x])[0]",
        "bisect([0, 1], 5) and x * x",
        "bisect.bisect([0, 1], 5) and x * x",
        "copy.copy([x * x])[0]",
        "timedelta(days=x * x).days",
        "(datetime(2020, 1, 10) - datetime(2020, 1, 1)).days",
        "(datetime.datetime(2020, 1, 10) - datetime.datetime(2020, 1, 1)).days",
        "x * x if isinstance(datetime.now(), object) else 0",
        "namedtuple('P', 'x')(x * x).x",
        "ChainMap({1: x * x})[1]",
        "sum(repeat(x, x))",
    ],
)
def test_missing_imports_of_an_expression_are_added(expression):
    execute(add_imports(f"def f(x):\n    return {expression}\n"), SQUARES)


IMPORTS = {
    "protocol": "class P(Protocol):\n    def g(self) -> int: ...\ndef f(x):\n    return x * x\n",
    "abc": "class A(ABC):\n    @abstractmethod\n    def g(self): ...\ndef f(x):\n    return x * x\n",
    "typeddict": "class A(TypedDict):\n    x: int\ndef f(x):\n    return x * x\n",
    "literal": "def f(x: Literal[3]) -> Final:\n    return x * x\n",
    "intenum auto": "class A(IntEnum):\n    B = auto()\ndef f(x):\n    return x * x\n",
    "shadow": "def g(field):\n    return field\n@dataclass\nclass A:\n    x: list = field(default_factory=list)\ndef f(x):\n    return x * x\n",
    "ctx": "@contextmanager\ndef g():\n    yield\ndef f(x):\n    return x * x\n",
    "future doc": '"""Doc."""\nfrom __future__ import annotations\n@dataclass\nclass A:\n    x: int\ndef f(x):\n    return x * x\n',
}


@pytest.mark.parametrize("code", IMPORTS.values(), ids=IMPORTS)
def test_missing_imports_are_added_by_scope(code):
    execute(extract_code(f"```python\n{code}```", entry_point="f"), SQUARES)


LONG = "```text\nf is long and longer than everything else that is here, much longer\n```\n"


@pytest.mark.parametrize(
    "tag",
    [
        "python3.11",
        "Python 3",
        "py3",
        "python:main.py",
        "main.py",
        "src/main.py",
        "python,linenos",
        "{.python}",
        "language-python",
        "python{1,3}",
        "py3.12",
        "ipython",
        "PYTHON",
        'python title="x.py"',
    ],
)
def test_versions_names_and_options_in_tags_of_python(tag):
    execute(extract_code(f"{LONG}```{tag}\n{GOOD}```", entry_point="f"), SQUARES)


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("c++17", "cpp"),
        ("c++20", "cpp"),
        ("cpp20", "cpp"),
        ("c11", "cpp"),
        ("java17", "java"),
        ("es6", "javascript"),
        ("nodejs", "javascript"),
        ("rust-2021", "rust"),
        ("main.rs", "rust"),
        ("Go", "go"),
        ("c#", "csharp"),
        ("php8.2", "php"),
    ],
)
def test_versions_and_names_in_tags_of_other_languages(tag, language):
    program = "int f(int x) { return x * x; }\n"
    assert extract_code(f"{LONG}```{tag}\n{program}```", language=language, entry_point="f") == program


@pytest.mark.parametrize(
    ("language", "answer", "has", "lacks"),
    [
        (
            "javascript",
            "```js\nconst t = `\n```\nx\n```\n`;\nfunction f(x) { return x * x; }\n```\nDone",
            ["return x * x"],
            ["Done"],
        ),
        (
            "java",
            "```java\nclass S { static int f(int x) { return Helper.g(x) * x; } }\n```\n```java\nclass Helper { static int g(int x) { return x; } }\n```",
            ["class Helper", "class S"],
            [],
        ),
        (
            "javascript",
            "```js\nconst g = x => x;\n```\n```js\nfunction f(x) { return g(x) * x; }\n```\n```js\nconsole.log(f(3));\n```",
            ["const g", "function f"],
            ["console"],
        ),
        (
            "go",
            '```go\nimport "math"\n```\n```go\nfunc f(x int) int { return int(math.Abs(float64(x))) }\n```',
            ['import "math"', "func f"],
            [],
        ),
        (
            "cpp",
            "```cpp\n#include <vector>\nusing namespace std;\n```\n```cpp\nint f(int x) { return x * x; }\n```\n```cpp\nint main() { f(3); }\n```",
            ["#include", "return x * x"],
            ["main"],
        ),
        (
            "rust",
            "```rust\nstruct P { x: i32 }\n```\n```rust\nfn f(p: P) -> i32 { p.x }\n```",
            ["struct P", "fn f"],
            [],
        ),
    ],
)
def test_helpers_and_imports_of_other_blocks_belong_to_programs_in_other_languages(language, answer, has, lacks):
    code = extract_code(answer, language=language, entry_point="f")
    assert all(text in code for text in has) and not any(text in code for text in lacks)


@pytest.mark.parametrize(
    ("answer", "has", "lacks"),
    [
        (
            "```python\ndef f(x):\n    return x * x\n```\n```python\nprint(f(3))\nprint('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')\n```",
            ["def f"],
            [],
        ),
        (
            "```python\ndef solve(x):\n    return x * x\n```\nThen\n```python\nn = int(input())\nprint(solve(n))\n```",
            ["def solve", "input()"],
            [],
        ),
        (
            "```python\ndef main():\n    print(int(input()) ** 2)\n```\nCall it:\n```python\nmain()\n```",
            ["def main", "\nmain()"],
            [],
        ),
        (
            "```python\nfrom collections import *\n```\n```python\ndef f(x):\n    return deque([x * x])[0]\n```",
            ["def f"],
            [],
        ),
        (
            "```python\nn = int(input())\nprint(n + n)\nprint('longer longer longer')\n```\nThat is wrong. Corrected:\n```python\nn = int(input())\nprint(n * n)\n```",
            ["n * n"],
            ["n + n"],
        ),
        (
            "```python\nn = int(input())\nprint(n * n)\n```\nA common mistake:\n```python\nn = int(input())\nprint(n + n)\nprint('longer longer')\n```",
            ["n * n"],
            ["n + n"],
        ),
    ],
)
def test_programs_without_an_entry_point(answer, has, lacks):
    code = extract_code(answer)
    assert all(text in code for text in has) and not any(text in code for text in lacks)


BODY = "    y = x * x\n    return y"


@pytest.mark.parametrize("answer", [f"{BODY}\n", f"The body:\n\n{BODY}\n\nDone.", f"{BODY}\n\nIt squares."])
def test_the_body_of_a_function_keeps_an_indentation(answer):
    assert extract_code(answer, entry_point="f") == BODY


def test_recorded_cases_give_their_right_result(data_dir, monkeypatch):
    """Answers in the folder `cases` beside the reference data; skipped where it is absent."""
    path = data_dir.parent / "cases" / "train" / "extraction.jsonl"
    if not path.is_file():
        pytest.skip(f"no recorded answers at {path}")
    monkeypatch.setattr(sys, "argv", ["answer"])
    for line in path.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        source, right = case["input"], case["right"]
        code = extract_code(source["answer"], language=source["language"], entry_point=source["entry_point"])
        assert all(text in code for text in right["has"]), source["id"]
        assert not any(text in code for text in right["lacks"]), source["id"]
        if right["runs"]:
            execute(code, right["runs"])
