"""Hostile programs in other languages than Python: none gets a reward, none reaches the machine."""

import json
import shutil
from collections.abc import Iterator

import pytest

from alignment.grading import Grader, Limits, Verdict
from alignment.sandbox.toolchains import LANGUAGES

QUICK = ("javascript", "bash", "php", "ruby", "lua", "perl", "c")
"""Languages whose toolchains start in a fraction of a second. Tests of the others are slow."""

EXIT_ZERO = {
    "javascript": "process.exit(0)",
    "typescript": "declare var process: any; process.exit(0);",
    "java": "public class Main { public static void main(String[] a) { System.exit(0); } }",
    "c": "#include <stdlib.h>\nint main(void) { exit(0); }",
    "cpp": "#include <cstdlib>\nint main() { std::_Exit(0); }",
    "go": 'package main\nimport "os"\nfunc main() { os.Exit(0) }',
    "rust": "fn main() { std::process::exit(0); }",
    "bash": "exit 0",
    "php": "<?php exit(0);",
    "ruby": "exit!(true)",
    "lua": "os.exit(0, false)",
    "perl": "exit 0;",
    "csharp": "class Program { static void Main() { System.Environment.Exit(0); } }",
}
RIGHT_THEN_FAILS = {
    "javascript": "console.log(42); process.exitCode = 3",
    "java": "public class Main { public static void main(String[] a) { System.out.println(42); throw new RuntimeException(); } }",
    "c": '#include <stdio.h>\n#include <stdlib.h>\nint main(void) { printf("42\\n"); fflush(stdout); abort(); }',
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println(42); panic("x") }',
    "rust": 'fn main() { println!("42"); panic!(); }',
    "bash": "echo 42; exit 3",
    "php": "<?php echo 42; exit(3);",
    "ruby": "puts 42; abort",
    "lua": "print(42); error('x')",
    "perl": "print 42; die;",
    "csharp": "class Program { static void Main() { System.Console.WriteLine(42); throw new System.Exception(); } }",
}
EXIT_BEFORE_TESTS = {
    "javascript": "function f() { process.exit(0) }\nf()\nif (1 !== 2) throw new Error()",
    "php": "<?php\nfunction f() { exit(0); }\nf();\nthrow new Exception();\n?>",
    "bash": "f() { exit 0; }\nf\nfalse || exit 1",
    "ruby": "def f() exit 0 end\nf\nraise 'x'",
    "lua": "function f() os.exit(0) end\nf()\nerror('x')",
    "perl": "sub f { exit 0 }\nf();\ndie;",
    "cpp": "#include <cassert>\n#include <cstdlib>\n#include <cstdio>\nvoid f() { exit(0); }\nint main() {\n f();\n assert(false);\n}\n",
}
SECRET = {
    "javascript": "const fs = require('fs'); let s = ''; for (const p of ['/etc/shadow', '/root/.ssh', '/proc/1/environ']) { try { s += fs.readFileSync(p) } catch (e) { } }\nconsole.log(Object.keys(process.env).some(k => k.includes('SECRET')) || s.includes('SECRET') || s.includes('root:') ? 'WON' : 'contained')",
    "bash": "if env | grep -q SECRET || cat /etc/shadow 2>/dev/null | grep -q : || grep -qa SECRET /proc/*/environ 2>/dev/null; then echo WON; else echo contained; fi",
    "php": "<?php $s = @file_get_contents('/etc/shadow') . @file_get_contents('/proc/1/environ'); echo getenv('SECRET_TOKEN') || str_contains($s, 'SECRET') || str_contains($s, 'root:') ? 'WON' : 'contained';",
    "ruby": "s = ['/etc/shadow', '/proc/1/environ'].map { |p| File.read(p) rescue '' }.join\nputs (ENV.keys.any? { |k| k.include?('SECRET') } || s.include?('SECRET') || s.include?('root:')) ? 'WON' : 'contained'",
    "perl": "my $s = ''; for my $p ('/etc/shadow', '/proc/1/environ') { if (open(my $f, '<', $p)) { local $/; $s .= <$f> } }\nprint((grep { /SECRET/ } keys %ENV) || $s =~ /SECRET|root:/ ? 'WON' : 'contained');",
    "c": '#include <stdio.h>\n#include <stdlib.h>\nint main(void) { FILE *f = fopen("/etc/shadow", "r"); puts(getenv("SECRET_TOKEN") || f ? "WON" : "contained"); }',
    "lua": "local f = io.open('/etc/shadow'); print((os.getenv('SECRET_TOKEN') or f) and 'WON' or 'contained')",
}
NETWORK = {
    "javascript": "require('net').connect(22, '127.0.0.1').on('connect', () => { console.log('WON'); process.exit() }).on('error', () => console.log('contained'))",
    "bash": "if (exec 3<>/dev/tcp/127.0.0.1/22) 2>/dev/null; then echo WON; else echo contained; fi",
    "php": "<?php echo @fsockopen('127.0.0.1', 22, $a, $b, 1) ? 'WON' : 'contained';",
    "ruby": "require 'socket'\nbegin; TCPSocket.new('127.0.0.1', 22); puts 'WON'; rescue SystemCallError; puts 'contained'; end",
    "perl": "use Socket; print socket(my $s, PF_INET, SOCK_STREAM, 0) ? 'WON' : 'contained';",
    "c": '#include <stdio.h>\n#include <sys/socket.h>\nint main(void) { puts(socket(AF_INET, SOCK_STREAM, 0) < 0 ? "contained" : "WON"); }',
}
ENDLESS = {
    "javascript": "while (true) {}",
    "bash": "trap '' TERM; while :; do :; done",
    "php": "<?php while (true) {}",
    "ruby": "trap('TERM') {}\nloop {}",
    "lua": "while true do end",
    "perl": "$SIG{TERM} = 'IGNORE'; while (1) {}",
    "c": "int main(void) { for (;;); }",
}
MEMORY = {
    "javascript": "const x = []; while (true) x.push(Buffer.alloc(1 << 26, 1))",
    "bash": "x=x; while :; do x=$x$x; done",
    "php": "<?php ini_set('memory_limit', -1); $x = []; while (true) $x[] = str_repeat('x', 1 << 24);",
    "ruby": "x = []; loop { x << 'x' * (1 << 24) }",
    "lua": "local x = {}; while true do x[#x + 1] = string.rep('x', 1 << 24) .. #x end",
    "perl": "my @x; while (1) { push @x, 'x' x (1 << 24) }",
    "c": "#include <sys/mman.h>\n#include <string.h>\n#include <unistd.h>\nint main(void) { for (int n = 0; n < 16; n++) if (!fork()) { void *m = mmap(0, 400 << 20, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0); if (m != MAP_FAILED) memset(m, 1, 400 << 20); pause(); } pause(); }",
}
PROCESSES = {
    "javascript": "for (let n = 0; n < 1000; n++) require('child_process').spawn('/bin/sleep', ['100']); setTimeout(() => {}, 100000)",
    "bash": "b() { b | b & }; b; wait; sleep 100",
    "perl": "fork while 1;",
    "ruby": "loop { fork rescue nil }",
    "c": "#include <unistd.h>\nint main(void) { for (;;) fork(); }",
}
FLOOD = {
    "javascript": "while (true) require('fs').writeSync(1, 'x'.repeat(65536))",
    "bash": "yes",
    "php": "<?php while (true) echo str_repeat('x', 65536);",
    "ruby": "loop { print 'x' * 65536 }",
    "lua": "while true do io.write(string.rep('x', 65536)) end",
    "perl": "print 'x' x 65536 while 1;",
    "c": '#include <stdio.h>\nint main(void) { for (;;) puts("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"); }',
}
COMPILERS = {
    "include_of_a_secret": ("c", '#include "/etc/shadow"\nint main(void) { return 0; }'),
    "include_of_an_endless_device": ("c", '#include "/dev/zero"\nint main(void) { return 0; }'),
    "assembler_reads_a_file": ("c", '__asm__(".incbin \\"/etc/shadow\\"");\nint main(void) { return 0; }'),
    "include_of_itself": ("c", '#include __FILE__\nint main(void) { return 0; }'),
    "macros_without_end": ("c", "#define A(x) B(x) B(x)\n#define B(x) C(x) C(x)\n#define C(x) D(x) D(x)\n" + "".join(f"#define {chr(68 + n)}(x) {chr(69 + n)}(x) {chr(69 + n)}(x)\n" for n in range(21)) + "#define Y(x) x\nint main(void) { A(1;) }"),
    "array_without_end": ("c", "char x[1L << 40] = {1};\nint main(void) { return x[0]; }"),
    "nothing": ("c", ""),
    "null_bytes": ("c", "\0\0\0"),
    "no_text": ("c", "\ud800"),
}  # fmt: skip

LONG = ("include_of_an_endless_device", "macros_without_end")  # they run into the compiler's limit of a minute


def _pairs(programs: dict[str, str], stdout: str, names: tuple[str, ...]) -> list[tuple[dict[str, object], str]]:
    tests = json.dumps({"cases": [{"stdin": "", "stdout": stdout}]})
    return [({"kind": "stdio", "language": name, "tests": tests}, programs[name]) for name in programs if name in names]


@pytest.fixture(scope="module")
def toolchains() -> Iterator[Grader]:
    with Grader(workers=2, limits=Limits(cpu_seconds=2, wall_seconds=2)) as started:
        yield started


def _graded(
    grader: Grader, programs: dict[str, str], stdout: str, names: tuple[str, ...] = QUICK
) -> dict[str, Verdict]:
    here = {name: text for name, text in programs.items() if shutil.which(LANGUAGES[name].tool)}
    if not here:
        pytest.skip("none of these toolchains is on this machine")
    pairs = _pairs(here, stdout, names)
    return {str(task["language"]): verdict for (task, _), verdict in zip(pairs, grader.grade_many(pairs), strict=True)}


@pytest.mark.parametrize(
    "programs", [EXIT_ZERO, RIGHT_THEN_FAILS, ENDLESS, MEMORY, PROCESSES, FLOOD],
    ids=["exit_zero", "right_then_fails", "endless", "memory", "processes", "flood"],
)  # fmt: skip
def test_no_language_gets_a_reward(toolchains: Grader, programs: dict[str, str]) -> None:
    verdicts = _graded(toolchains, programs, "42")
    assert {name: verdict.status for name, verdict in verdicts.items()} == dict.fromkeys(verdicts, "failed")


@pytest.mark.parametrize("programs", [SECRET, NETWORK], ids=["secret", "network"])
def test_no_language_reaches_the_machine(toolchains: Grader, programs: dict[str, str]) -> None:
    verdicts = _graded(toolchains, programs, "contained")
    assert {name: (verdict.status, verdict.detail) for name, verdict in verdicts.items()} == dict.fromkeys(
        verdicts, ("passed", "")
    )


@pytest.mark.parametrize("language", EXIT_BEFORE_TESTS)
def test_a_program_that_exits_before_its_tests_fails(toolchains: Grader, language: str) -> None:
    if shutil.which(LANGUAGES[language].tool) is None:
        pytest.skip(f"no {LANGUAGES[language].tool} on this machine")
    task = {"kind": "program", "language": language, "tests": json.dumps({"marker": True})}
    (verdict,) = toolchains.grade_many([(task, EXIT_BEFORE_TESTS[language])])
    assert (verdict.status, verdict.reason) == ("failed", "exit")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in COMPILERS]
)
def test_a_hostile_source_fails_and_the_next_program_compiles(toolchains: Grader, name: str) -> None:
    language, source = COMPILERS[name]
    task = {"kind": "stdio", "language": language, "tests": json.dumps({"cases": [{"stdin": "", "stdout": "42"}]})}
    first, second = toolchains.grade_many([(task, source), (task, LANGUAGES[language].probe)])
    assert (first.status, second.status) == ("failed", "passed"), (first, second)
    assert "root:" not in first.detail


@pytest.mark.slow
@pytest.mark.parametrize("programs", [EXIT_ZERO, RIGHT_THEN_FAILS], ids=["exit_zero", "right_then_fails"])
def test_no_slow_language_gets_a_reward(programs: dict[str, str]) -> None:
    slow = tuple(name for name in programs if name not in QUICK)
    with Grader(workers=2, limits=Limits(cpu_seconds=30, wall_seconds=30)) as grader:
        verdicts = _graded(grader, programs, "42", slow)
    assert {name: verdict.status for name, verdict in verdicts.items()} == dict.fromkeys(verdicts, "failed")
