"""Extract code from chat answers to MultiPL-E, so that the tests can be appended.

Imports are added. The answer's `main`, and closing braces that the tests contain, are removed. The rules are those of
`qwencoder-eval/instruct/multipl_e/chat/evaluate.py` (QwenLM/Qwen2.5-Coder), and in addition handle braces in strings
and comments, classes with another name, and code around the class.
"""

from __future__ import annotations

import re

from alignment.evaluation.answer_blocks import fenced_blocks
from alignment.evaluation.problem import Row

INCLUDES = (
    "optional", "cassert", "stdlib.h", "algorithm", "cmath", "math.h", "numeric", "stdio.h", "vector", "set", "map",
    "queue", "stack", "list", "deque", "string", "climits", "cstring", "iostream", "sstream", "fstream",
)  # fmt: skip
"""Headers that are included in every C++ program. The harness also includes Boost's `any`, which no task needs."""
USINGS = (
    "System", "System.Numerics", "System.Diagnostics", "System.Collections.Generic", "System.Linq", "System.Text",
    "System.Security.Cryptography",
)  # fmt: skip
STD_NAMES = ("unique", "max_element", "is_sorted", "exchange", "search")
"""Functions of C++ tasks that the standard library has too. `using namespace std` would make their calls ambiguous."""
_LITERALS = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|//[^\n]*|/\*.*?\*/', re.DOTALL)
_MAIN = {
    "java": r"^[ \t]*public static void main\b",
    "cpp": r"^[ \t]*(?:int|auto|void) main\s*\(",
    "cs": r"^[ \t]*(?:(?:public|private|internal) )?static (?:async )?(?:void|Task|int) Main\b",
    "go": r"^func main\s*\(",
    "rs": r"^(?:pub )?fn main\s*\(",
}


def chat_code(answer: str, row: Row, short: str) -> str:
    """Return the code of an answer, in a form to which the row's tests can be appended.

    If the answer has only the function's body, the code is the prompt and the body.

    Args:
        answer: the model's answer.
        row: the row of the benchmark.
        short: the short name of the language.
    """
    code = _block_of(answer, row, short)
    if short == "php":
        code = re.sub(r"^\s*<\?php\s*|\s*\?>\s*$", "", code).replace("?>", "")
    if not _defines(code, row, short):
        prompt = row["prompt"] if row["prompt"].endswith("\n") else row["prompt"] + "\n"
        return _imports(row, code, short) + prompt + _without_closing(code, row, short, complete=False)
    if short in ("java", "cs"):
        code = _in_class_problem(_without_main(code, short), short)
    elif short in _MAIN:
        code = _without_main(code, short)
    if short == "cpp" and function_name(row) in STD_NAMES:
        code = re.sub(r"^\s*using namespace std;", "", code, flags=re.MULTILINE)
    if short == "go":
        package = re.match(r"package \w+", row["prompt"])
        code = (package[0] if package else "") + "\n" + _go_imports(re.sub(r"^\s*package \w+", "", code))
    return _imports(row, code, short) + _without_closing(code, row, short, complete=True)


def _block_of(answer: str, row: Row, short: str) -> str:
    """Return the first code block that defines the function, or else the first block, or else the answer."""
    blocks = [content for _, content in fenced_blocks(answer)]
    return next((block for block in blocks if _defines(block, row, short)), blocks[0] if blocks else answer)


def function_name(row: Row) -> str:
    """Return the name of the function that the prompt's last line begins to define, or "" if it is not recognised."""
    line = row["prompt"].strip().split("\n")[-1] if row["prompt"].strip() else ""
    if "my($" in line.replace(" ", ""):  # Perl unpacks its arguments on a line of their own
        line = row["prompt"].strip().split("\n")[-2]
    matches = re.findall(r"(?:sub\s+(\w+)|(\w+)\s*(?:<-|=)?\s*(?:function)?\s*\()", line)
    return next((name for names in matches for name in names if name), "")


def _defines(code: str, row: Row, short: str) -> bool:
    """Whether the code defines the row's function with a body, instead of only calling it."""
    name = re.escape(function_name(row))
    if not name:
        return True
    if short in ("java", "cs", "cpp"):
        return bool(re.search(rf"[\w>\]&*]\s+{name}\s*\([^;]*?\)[^;{{]*\{{", _blank(code)))
    kinds = {
        "sh": rf"(?:function\s+{name}\b|\b{name}\s*\(\s*\))", "pl": rf"\bsub\s+{name}\b", "r": rf"\b{name}\s*(?:<-|=)\s*function",
        "js": rf"(?:function\s*\*?\s*{name}\b|\b{name}\s*=)", "ts": rf"(?:function\s*\*?\s*{name}\b|\b{name}\s*(?::[^=\n]*)?=)",
    }  # fmt: skip
    return bool(re.search(kinds.get(short, rf"\b(?:def|fn|func|function)\s+{name}\b|\b{name}\s*=\s*function"), code))


def _imports(row: Row, code: str, short: str) -> str:
    """Return the imports that the prompt has or the tests need, and that the code lacks."""
    if short == "cpp":
        return "".join(f"#include<{name}>\n" for name in INCLUDES)
    lines = re.findall(r"^(?:import .*;|using .*;)$", row["prompt"], re.MULTILINE) if short in ("java", "cs") else []
    lines += [f"using {name};" for name in USINGS] if short == "cs" else []
    present = {line.strip() for line in code.split("\n")}
    return "".join(f"{line}\n" for line in dict.fromkeys(lines) if line not in present)


def _go_imports(code: str) -> str:
    """Add the imports that the tests need. Go requires that every import occurs once, before all other code."""
    imported = re.findall(r'^import\s+(?:\w+\s+)?"([^"]+)"', code, re.MULTILINE)
    for group in re.findall(r"^import\s*\(([^)]*)\)", code, re.MULTILINE):
        imported += re.findall(r'"([^"]+)"', group)
    code = re.sub(r'^import\s+(?:\([^)]*\)|(?:\w+\s+)?"[^"]+")[ \t]*\n?', "", code, flags=re.MULTILINE)
    used = [name for name in imported if name not in ("fmt", "testing") and f"{name.split('/')[-1]}." in code]
    return "".join(f'import "{name}"\n' for name in ("testing", "fmt", *used)) + code


def _blank(code: str) -> str:
    """Replace strings, characters and comments in the code by blanks, so that braces in them are not counted."""
    return _LITERALS.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), code)


def _end_of_block(plain: str, start: int) -> int:
    """Return the index after the brace that closes the first block after `start`, or the end of the text."""
    depth = 0
    for index in range(start, len(plain)):
        depth += {"{": 1, "}": -1}.get(plain[index], 0)
        if plain[index] == "}" and depth == 0:
            return index + 1
    return len(plain)


def _without_main(code: str, short: str) -> str:
    """Remove `main` from the code, since the tests contain a `main`."""
    plain = _blank(code)
    start = re.search(_MAIN[short], plain, re.MULTILINE)
    return code if start is None else code[: start.start()] + code[_end_of_block(plain, start.start()) :]


def _in_class_problem(code: str, short: str) -> str:
    """Rename the class to `Problem` and move it to the end, as the tests expect, and remove namespaces."""
    head = "".join(f"{line}\n" for line in re.findall(r"^\s*((?:import|using) [^(]*;)\s*$", code, re.MULTILINE))
    code = re.sub(
        r"^\s*(?:(?:import|using) [^(]*;|package [^(]*;|namespace [^({]*;)[ \t]*$", "", code, flags=re.MULTILINE
    )
    plain = _blank(code)
    namespace = re.search(r"^\s*namespace\s+[\w.]+\s*\{", plain, re.MULTILINE)
    if namespace:
        end = _end_of_block(plain, namespace.start())
        closed = plain[end - 1 : end] == "}"
        code = code[: namespace.start()] + code[namespace.end() : end - 1 if closed else end] + code[end:]
        plain = _blank(code)
    classes = list(
        re.finditer(
            r"^\s*(?:(?:public|static|final|sealed|internal|abstract) )*class\s+(\w+)[^{]*\{", plain, re.MULTILINE
        )
    )
    if not classes:
        return f"{head}class Problem {{\n{code.strip()}\n}}\n"
    chosen = next((match for match in classes if match[1] == "Problem"), classes[0])
    end = _end_of_block(plain, chosen.start())
    around = re.sub(r"\bpublic class\b", "class", f"{code[: chosen.start()]}{code[end:]}".strip())
    body = code[chosen.end() : end]
    return head + "\n".join([*([around] if around else []), f"class Problem {{{body}"])


def _without_closing(code: str, row: Row, short: str, *, complete: bool) -> str:
    """Remove the closing braces that the tests contain, and all text after them.

    `complete` is True if the code has the function's header, and False if it has only the body.
    """
    opens = 0 if not row["tests"].lstrip().startswith("}") else {"java": 2, "cs": 2}.get(short, 1)
    if not opens:
        return code.rstrip() + "\n"
    if short == "sh":  # only a line that is a single brace closes a block; other braces are expansions or text
        lines = code.rstrip().split("\n")
        closing = [index for index, line in enumerate(lines) if line.rstrip() == "}"]
        return "\n".join(lines[: closing[-1]] if closing else lines) + "\n"
    plain = _blank(code)
    left_open = plain.count("{") - plain.count("}") + (0 if complete else _blank(row["prompt"]).count("{"))
    for _ in range(opens - left_open):
        index = plain.rfind("}")
        if index < 0:
            break
        code, plain = code[:index], plain[:index]
    return code.rstrip() + "\n"
