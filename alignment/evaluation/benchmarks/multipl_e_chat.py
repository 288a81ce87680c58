"""MultiPL-E's chat answers as the code that its tests continue: imports put in, an own `main` and closing braces taken off.

The rules are those of `qwencoder-eval/instruct/multipl_e/chat/evaluate.py` (QwenLM/Qwen2.5-Coder), made to hold for
braces in text and comments, for classes of another name, and for code around the class.
"""

from __future__ import annotations

import re

from alignment.evaluation.extraction import fenced_blocks
from alignment.evaluation.problem import Row

INCLUDES = (
    "optional", "cassert", "stdlib.h", "algorithm", "cmath", "math.h", "numeric", "stdio.h", "vector", "set", "map",
    "queue", "stack", "list", "deque", "string", "climits", "cstring", "iostream", "sstream", "fstream",
)  # fmt: skip
"""What every C++ answer may use (the harness adds Boost's `any`, which no task needs)."""
USINGS = (
    "System", "System.Numerics", "System.Diagnostics", "System.Collections.Generic", "System.Linq", "System.Text",
    "System.Security.Cryptography",
)  # fmt: skip
STD_NAMES = ("unique", "max_element", "is_sorted", "exchange", "search")
"""C++ tasks whose function is called as one of the standard library: `using namespace std` makes them ambiguous."""
_LITERALS = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|//[^\n]*|/\*.*?\*/', re.DOTALL)
_MAIN = {
    "java": r"^[ \t]*public static void main\b",
    "cpp": r"^[ \t]*(?:int|auto|void) main\s*\(",
    "cs": r"^[ \t]*(?:(?:public|private|internal) )?static (?:async )?(?:void|Task|int) Main\b",
    "go": r"^func main\s*\(",
    "rs": r"^(?:pub )?fn main\s*\(",
}


def chat_code(answer: str, row: Row, short: str) -> str:
    """The code of an answer up to where the row's tests go on; the prompt's, where the answer only has its body."""
    code = _block_of(answer, row, short)
    if short == "php":
        code = re.sub(r"^\s*<\?php\s*|\s*\?>\s*$", "", code).replace("?>", "")
    if not _defines(code, row, short):
        prompt = row["prompt"] if row["prompt"].endswith("\n") else row["prompt"] + "\n"
        return _imports(row, code, short) + prompt + _without_closing(code, row, short, whole=False)
    if short in ("java", "cs"):
        code = _in_class_problem(_without_main(code, short), short)
    elif short in _MAIN:
        code = _without_main(code, short)
    if short == "cpp" and function_name(row) in STD_NAMES:
        code = re.sub(r"^\s*using namespace std;", "", code, flags=re.MULTILINE)
    if short == "go":
        package = re.match(r"package \w+", row["prompt"])
        code = (package[0] if package else "") + "\n" + _go_imports(re.sub(r"^\s*package \w+", "", code))
    return _imports(row, code, short) + _without_closing(code, row, short, whole=True)


def _block_of(answer: str, row: Row, short: str) -> str:
    """The first block that defines the function, else the first, else the answer."""
    blocks = [content for _, content in fenced_blocks(answer)]
    return next((block for block in blocks if _defines(block, row, short)), blocks[0] if blocks else answer)


def function_name(row: Row) -> str:
    """What the prompt's last line begins to define."""
    line = row["prompt"].strip().split("\n")[-1] if row["prompt"].strip() else ""
    if "my($" in line.replace(" ", ""):  # Perl unpacks its arguments on a line of their own
        line = row["prompt"].strip().split("\n")[-2]
    found = re.findall(r"(?:sub\s+(\w+)|(\w+)\s*(?:<-|=)?\s*(?:function)?\s*\()", line)
    return next((name for names in found for name in names if name), "")


def _defines(code: str, row: Row, short: str) -> bool:
    """Whether the function is there with a body; a mere call of it, as in an example of use, does not count."""
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
    if short == "cpp":
        return "".join(f"#include<{name}>\n" for name in INCLUDES)
    lines = re.findall(r"^(?:import .*;|using .*;)$", row["prompt"], re.MULTILINE) if short in ("java", "cs") else []
    lines += [f"using {name};" for name in USINGS] if short == "cs" else []
    present = {line.strip() for line in code.split("\n")}
    return "".join(f"{line}\n" for line in dict.fromkeys(lines) if line not in present)


def _go_imports(code: str) -> str:
    """What the tests need besides; Go wants every import once, and before all else."""
    own = re.findall(r'^import\s+(?:\w+\s+)?"([^"]+)"', code, re.MULTILINE)
    for group in re.findall(r"^import\s*\(([^)]*)\)", code, re.MULTILINE):
        own += re.findall(r'"([^"]+)"', group)
    code = re.sub(r'^import\s+(?:\([^)]*\)|(?:\w+\s+)?"[^"]+")[ \t]*\n?', "", code, flags=re.MULTILINE)
    used = [name for name in own if name not in ("fmt", "testing") and f"{name.split('/')[-1]}." in code]
    return "".join(f'import "{name}"\n' for name in ("testing", "fmt", *used)) + code


def _blank(code: str) -> str:
    """The code with text, characters and comments as blanks: braces in them open and close nothing."""
    return _LITERALS.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), code)


def _end_of_block(plain: str, start: int) -> int:
    """Behind the brace that closes the first one opened after `start`; the end of the text where none does."""
    depth = 0
    for index in range(start, len(plain)):
        depth += {"{": 1, "}": -1}.get(plain[index], 0)
        if plain[index] == "}" and depth == 0:
            return index + 1
    return len(plain)


def _without_main(code: str, short: str) -> str:
    """Cut an own `main`; the tests bring theirs."""
    plain = _blank(code)
    start = re.search(_MAIN[short], plain, re.MULTILINE)
    return code if start is None else code[: start.start()] + code[_end_of_block(plain, start.start()) :]


def _in_class_problem(code: str, short: str) -> str:
    """The class of the answer last and by the name that the tests know, other code before it, namespaces gone."""
    head = "".join(f"{line}\n" for line in re.findall(r"^\s*((?:import|using) [^(]*;)\s*$", code, re.MULTILINE))
    code = re.sub(
        r"^\s*(?:(?:import|using) [^(]*;|package [^(]*;|namespace [^({]*;)[ \t]*$", "", code, flags=re.MULTILINE
    )
    plain = _blank(code)
    space = re.search(r"^\s*namespace\s+[\w.]+\s*\{", plain, re.MULTILINE)
    if space:
        end = _end_of_block(plain, space.start())
        closed = plain[end - 1 : end] == "}"
        code = code[: space.start()] + code[space.end() : end - 1 if closed else end] + code[end:]
        plain = _blank(code)
    classes = list(
        re.finditer(
            r"^\s*(?:(?:public|static|final|sealed|internal|abstract) )*class\s+(\w+)[^{]*\{", plain, re.MULTILINE
        )
    )
    if not classes:
        return f"{head}class Problem {{\n{code.strip()}\n}}\n"
    chosen = next((found for found in classes if found[1] == "Problem"), classes[0])
    end = _end_of_block(plain, chosen.start())
    around = re.sub(r"\bpublic class\b", "class", f"{code[: chosen.start()]}{code[end:]}".strip())
    body = code[chosen.end() : end]
    return head + "\n".join([*([around] if around else []), f"class Problem {{{body}"])


def _without_closing(code: str, row: Row, short: str, *, whole: bool) -> str:
    """`code` without the braces at its end that the tests bring; what follows them, an example of use, goes too."""
    opens = 0 if not row["tests"].lstrip().startswith("}") else {"java": 2, "cs": 2}.get(short, 1)
    if not opens:
        return code.rstrip() + "\n"
    if short == "sh":  # braces of expansions and strings are no blocks: a line that is one brace is
        lines = code.rstrip().split("\n")
        closing = [index for index, line in enumerate(lines) if line.rstrip() == "}"]
        return "\n".join(lines[: closing[-1]] if closing else lines) + "\n"
    plain = _blank(code)
    left_open = plain.count("{") - plain.count("}") + (0 if whole else _blank(row["prompt"]).count("{"))
    for _ in range(opens - left_open):
        index = plain.rfind("}")
        if index < 0:
            break
        code, plain = code[:index], plain[:index]
    return code.rstrip() + "\n"
