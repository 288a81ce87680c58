"""The supported languages: how each language is compiled and run, and where its toolchain is installed.

Launch shims (rustup, pyenv, nvm) in a home folder do not work in the sandbox, because programs do not see home folders.
Therefore the toolchain is run once to print its real folder, and programs see that folder, read-only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

JAVA_SMALL = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss64m", "-XX:-UsePerfData")
JAVATUPLES = "/usr/share/java/javatuples.jar"


@dataclass(frozen=True)
class Language:
    """Describes how a language is compiled and run.

    Placeholders in commands: ``{tool}`` is the toolchain's path, ``{folder}`` its folder, ``{node}`` the path of node,
    ``{file}`` the source's name, ``{name}`` the source's name without suffix.
    """

    name: str
    file: str
    tool: str
    """Name of the program whose path and version identify the toolchain."""
    run: tuple[str, ...]
    packages: tuple[str, ...]
    """Debian packages that provide the toolchain."""
    probe: str
    """Source text of a program that prints ``42``, with which the toolchain is checked in the sandbox."""
    compile: tuple[str, ...] = ()
    collect: tuple[str, ...] = ()
    """File name patterns of the compiled files that the program needs."""
    environment: dict[str, str] = field(default_factory=dict)
    version: tuple[str, ...] = ("--version",)
    home: tuple[str, ...] = ()
    """Command that prints the toolchain's folder. Set if `tool` may be a shim."""
    home_tool: str = ""
    """Path of the tool, relative to the folder that the command `home` prints."""
    address_space: bool = True
    """See `Program.address_space`."""
    reserved_bytes: int = 1 << 30
    """Memory that a program of the language must be able to reserve, in bytes. See `Program.reserved_bytes`."""
    compile_seconds: float = 20.0
    """Limit of the compiler's CPU time and wall time, in seconds."""
    home_levels: int = 1
    """Number of levels by which the toolchain's folder is above `tool`. Only used for toolchains outside /usr, since
    programs always see /usr."""


LANGUAGES: dict[str, Language] = {
    language.name: language
    for language in (
        Language("python", "program.py", "python3", ("{tool}", "{file}"), ("python3",), "print(6 * 7)"),
        Language(
            "javascript", "program.js", "node", ("{tool}", "{file}"), ("nodejs",), "console.log(6 * 7)",
            home=("node", "-p", "require('path').dirname(process.execPath)"), home_tool="node",
            address_space=False, reserved_bytes=2 << 30,
        ),
        Language(
            "typescript", "program.ts", "tsc", ("{node}", "{name}.js"), ("nodejs", "node-typescript"),
            "const answer: number = 6 * 7; console.log(answer);",
            compile=("{node}", "{tool}", "--skipLibCheck", "{file}"), collect=("*.js",), address_space=False,
            reserved_bytes=2 << 30, home_levels=2,
        ),
        Language(
            "java", "Main.java", "javac", ("{folder}/java", "-ea", *JAVA_SMALL, "-cp", f".:{JAVATUPLES}", "{name}"),
            ("default-jdk-headless", "libjavatuples-java"),
            "public class Main { public static void main(String[] a) { System.out.println(6 * 7); } }",
            compile=("{tool}", *(f"-J{flag}" for flag in JAVA_SMALL), "-proc:none", "-nowarn", "-encoding", "UTF-8", "-cp", JAVATUPLES, "{file}"),
            collect=("*.class",), version=("-version",), address_space=False, reserved_bytes=2 << 30,
            home_levels=2,
        ),
        Language(
            "c", "program.c", "gcc", ("./program",), ("gcc", "libc6-dev"),
            '#include <stdio.h>\nint main(void) { printf("%d\\n", 6 * 7); }',
            compile=("{tool}", "-O1", "-std=gnu17", "-w", "{file}", "-lm", "-o", "program"), compile_seconds=10, collect=("program",),
        ),
        Language(
            "cpp", "program.cpp", "g++", ("./program",), ("g++",),
            "#include <iostream>\nint main() { std::cout << 6 * 7 << std::endl; }",
            compile=("{tool}", "-std=c++17", "-w", "{file}", "-o", "program"), compile_seconds=30, collect=("program",),
        ),
        Language(
            "go", "program.go", "go", ("./program",), ("golang-go",),
            'package main\nimport "fmt"\nfunc main() { fmt.Println(6 * 7) }',
            compile=("{tool}", "build", "-o", "program", "{file}"), compile_seconds=60, collect=("program",), version=("version",),
            environment={"GOCACHE": "/tmp/gocache", "GOPATH": "/tmp/gopath", "GOFLAGS": "-p=2", "GO111MODULE": "off",
                         "GOTOOLCHAIN": "local", "GOTELEMETRY": "off", "CGO_ENABLED": "0"},
            home=("go", "env", "GOROOT"), home_tool="bin/go", address_space=False, reserved_bytes=2 << 30,
        ),
        Language(
            "rust", "program.rs", "rustc", ("./program",), ("rustc",), 'fn main() { println!("{}", 6 * 7); }',
            compile=("{tool}", "--edition", "2021", "-A", "warnings", "{file}", "-o", "program"), compile_seconds=10, collect=("program",),
            home=("rustc", "--print", "sysroot"), home_tool="bin/rustc",
        ),
        Language("bash", "program.sh", "bash", ("{tool}", "{file}"), ("bash",), "echo $((6 * 7))"),
        Language("php", "program.php", "php", ("{tool}", "{file}"), ("php-cli",), "<?php echo 6 * 7;"),
        Language("ruby", "program.rb", "ruby", ("{tool}", "{file}"), ("ruby",), "puts 6 * 7"),
        Language("lua", "program.lua", "lua5.4", ("{tool}", "{file}"), ("lua5.4",), "print(6 * 7)", version=("-v",)),
        Language("perl", "program.pl", "perl", ("{tool}", "{file}"), ("perl",), "print 6 * 7;"),
        Language(
            "csharp", "Program.cs", "mcs", ("{folder}/mono", "{name}.exe"),
            ("mono-mcs", "mono-runtime", "libmono-system-core4.0-cil", "libmono-system-numerics4.0-cil"),
            "class Program { static void Main() { System.Console.WriteLine(6 * 7); } }",
            compile=("{tool}", "-d:DEBUG", "-r:System.Numerics.dll", "-out:Program.exe", "{file}"), collect=("*.exe",),
            environment={"MONO_TRACE_LISTENER": "Console.Error"}, address_space=False, reserved_bytes=2 << 30,
        ),
    )
}  # fmt: skip
ALIASES = {"js": "javascript", "ts": "typescript", "c++": "cpp", "sh": "bash", "shell": "bash", "cs": "csharp", "c#": "csharp",
           "golang": "go", "rs": "rust", "rb": "ruby", "pl": "perl", "py": "python"}  # fmt: skip


def language_of(name: str) -> Language:
    """Return the language with this name or alias. Raises ValueError if the name is unknown."""
    key = name.strip().lower()
    language = LANGUAGES.get(ALIASES.get(key, key))
    if language is None:
        raise ValueError(f"unknown language {name!r}: it must be one of {', '.join(LANGUAGES)}")
    return language


class NoToolchain(RuntimeError):
    """Raised if the toolchain of a language is not installed, or does not work in the sandbox."""


@dataclass(frozen=True)
class Toolchain:
    """Describes the installed toolchain of a language."""

    language: Language
    tool: str
    """Path of the toolchain's main program."""
    shown: tuple[str, ...]
    """Folders outside /usr that programs must see."""
    version: str
    identity: str
    """Hash of the toolchain's path, version and settings. It is part of the cache key of compiled programs."""

    def command(self, template: tuple[str, ...], file: str) -> list[str]:
        """Return a command of the language with all placeholders filled in."""
        values = {"tool": self.tool, "file": file, "name": Path(file).stem, "folder": str(Path(self.tool).parent)}
        if "{node}" in template:
            values["node"] = toolchain("javascript").tool
        return [part.format(**values) if "{" in part else part for part in template]


@cache
def toolchain(name: str) -> Toolchain:
    """Return the toolchain of a language. Raises NoToolchain if the toolchain is not installed."""
    language = LANGUAGES[name]
    executable = shutil.which(language.tool)
    if executable is None:
        raise NoToolchain(f"{language.tool} is not installed; install it with: {install_command(language)}")
    tool = os.path.realpath(executable)
    home = _output_of([executable, *language.home[1:]]) if language.home else ""
    if home and language.home_tool:
        tool = os.path.realpath(Path(home) / language.home_tool)
    installed = str(Path(tool).parents[language.home_levels - 1])
    shown = {folder for folder in (home, installed) if folder and not folder.startswith("/usr")}
    version = _output_of([tool, *language.version]).splitlines()
    stat = Path(tool).stat()
    identity = hashlib.sha256(f"{tool}|{version}|{stat.st_size}|{stat.st_mtime_ns}|{language}".encode()).hexdigest()
    return Toolchain(language, tool, tuple(sorted(shown)), version[0] if version else "", identity)


def install_command(language: Language) -> str:
    """Return the command that installs a language's toolchain on Debian and Ubuntu."""
    return f"apt-get install {' '.join(language.packages)}"


def _output_of(command: list[str]) -> str:
    """Return the output of a command. Empty if the command cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip()


def shown_folders() -> tuple[str, ...]:
    """Return, for all toolchains of this machine together, the folders outside /usr that programs must see."""
    folders: dict[str, None] = {}
    for name, language in LANGUAGES.items():
        if name != "python" and shutil.which(language.tool):
            folders.update(dict.fromkeys(toolchain(name).shown))
    return tuple(folders)


def file_name(language: Language, source: str) -> str:
    """Return the name of the source file. For Java, use the name of the public class, or of the class with `main`."""
    if language.name != "java":
        return language.file
    main = re.search(r"\bstatic\s+(?:public\s+)?(?:final\s+)?void\s+main\b", source)
    before = source[: main.start()] if main else source
    public = re.search(r"\bpublic\s+(?:final\s+|abstract\s+)?class\s+(\w+)", source)
    classes = re.findall(r"^\s*(?:public\s+)?(?:final\s+)?(?:abstract\s+)?class\s+(\w+)", before, re.MULTILINE)
    return f"{public.group(1) if public else classes[-1] if classes else 'Main'}.java"
