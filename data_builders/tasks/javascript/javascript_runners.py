"""How a JavaScript repository tests: its runner, its test files, what runs before them, and what its source needs."""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SOURCE = (".js", ".cjs", ".mjs", ".jsx", ".ts", ".mts", ".cts", ".tsx")
TYPED = (".ts", ".mts", ".cts", ".tsx", ".jsx")
TEST_NAMES = ("*.test.*", "*.spec.*", "*-test.*", "*_test.*", "*.tests.*", "*-spec.*", "test.*", "tests.*", "test-*.*")
TEST_FOLDERS = frozenset({"test", "tests", "__tests__", "spec", "specs", "__test__"})
FOREIGN = ("ava", "jasmine", "qunit", "qunitjs", "@japa/runner", "lab", "@hapi/lab", "karma", "cypress", "@playwright/test", "@web/test-runner",
           "bun-types", "jasmine-core", "nodeunit", "testem", "intern", "japa", "brittle", "zora", "baretest", "tapzero")  # fmt: skip
"""Runners that aren't supported."""
OURS = "node:test, mocha, jest, vitest, tape, tap and uvu"
_CALLS = re.compile(
    r"\b(?:test|it|describe|suite|specify|context)(?:\.\w+)*\s*(?:\(|`)|\bt\.test\(|\b(?:test|suite)\b.*\.run\(\)"
)
_MODULE = re.compile(r"^\s*(?:import\s*(?:[\w${*'\"]|type\b)|export\s*(?:[{*]|(?:default|const|let|var|function|class|async|type|interface|enum)\b))", re.MULTILINE)  # fmt: skip
_RELATIVE = re.compile(r"""(?:\bfrom|\bimport|\brequire)\s*\(?\s*['"](\.[^'"]*)['"]""")
_MAPPED = re.compile(r"""['"]\^([^'"()]*)\(\.\*\)\$?['"]\s*:\s*['"]<rootDir>/([^'"$]*)\$1['"]""")
_ALIAS = re.compile(
    r"""['"]?([@~#$\w][\w/-]*)['"]?\s*:\s*(?:\w+\.)?(?:resolve|join|fileURLToPath)\([^'"\n]*['"]\.?/?([\w./-]+)['"]"""
)
_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRANSFORMERS = re.compile(r"register|ts-node|tsx|esm$|source-map|dotenv|swc|sucrase|esbuild|babel|nyc|jsdom")


def is_js_test(path: str) -> bool:
    """Whether a path looks like a test's, by its name or its folder."""
    *folders, name = path.split("/")
    return name.endswith(SOURCE) and not name.endswith(".d.ts") and (
        any(fnmatch.fnmatch(name, pattern) for pattern in TEST_NAMES) or any(folder in TEST_FOLDERS for folder in folders)
    )  # fmt: skip


def has_tests(path: str, text: str) -> bool:
    """Whether a file has tests, and does not only help others."""
    return is_js_test(path) and bool(_CALLS.search(text))


@dataclass(frozen=True)
class Packages:
    """What all package.json of a repository say together."""

    found: Mapping[str, Mapping[str, Any]]
    """By folder."""

    @property
    def root(self) -> Mapping[str, Any]:
        return self.found.get("", {})

    def wants(self, *names: str) -> list[str]:
        """Those of these packages that are named as a dependency, or in a script."""
        wanted = {name for package in self.found.values() for part in ("dependencies", "devDependencies", "peerDependencies")
                  if isinstance(package.get(part), dict) for name in package[part]}  # fmt: skip
        return [name for name in names if name in wanted]

    def module(self, path: str) -> bool:
        """Whether node takes this file for an ES module."""
        if path.endswith((".mjs", ".mts")):
            return True
        if path.endswith((".cjs", ".cts")):
            return False
        folder = posixpath.dirname(path)
        while folder and folder not in self.found:
            folder = posixpath.dirname(folder)
        return self.found.get(folder, {}).get("type") == "module"


def packages(texts: Mapping[str, str]) -> Packages:
    found = {}
    for path, text in texts.items():
        if posixpath.basename(path) == "package.json":
            try:
                read = json.loads(text)
            except ValueError:
                continue
            if isinstance(read, dict):
                found[posixpath.dirname(path)] = read
    return Packages(found)


def library_of(known: Packages, tests: Collection[str]) -> str:
    """Whose `expect` test files find: ``vitest``, ``jest``, or nobody's."""
    text = "\n".join(tests)
    if known.wants("vitest") or re.search(r"""from\s*['"]vitest['"]""", text):
        return "vitest"
    return "jest" if known.wants("jest", "@jest/globals", "jest-cli", "ts-jest", "expect") else ""


def is_module(text: str) -> bool:
    return bool(_MODULE.search(text))


def reached(texts: Mapping[str, str], tests: Collection[str]) -> set[str]:
    """The files that tests import, directly or not, as far as relative imports tell; the tests among them."""
    found, waiting = set(tests), list(tests)
    while waiting:
        path = waiting.pop()
        for request in _RELATIVE.findall(texts[path]):
            base = posixpath.normpath(posixpath.join(posixpath.dirname(path), request))
            stem = re.sub(r"\.[mc]?jsx?$", "", base)
            tried = [
                base,
                *(stem + ending for ending in SOURCE),
                *(f"{base}/index{ending}" for ending in SOURCE),
                *(f"index{ending}" for ending in SOURCE if base == "."),
            ]
            inner = next((item for item in tried if item in texts and item.endswith(SOURCE)), None)
            if inner is not None and inner not in found:
                found.add(inner)
                waiting.append(inner)
    return found


def needs_transform(known: Packages, texts: Mapping[str, str], library: str, strips_types: bool) -> bool:
    """Whether node can't load these files, those that tests reach, as they are.

    strips_types: whether this node can leave types out by itself.
    """
    if library == "vitest":
        return True
    typed = [text for path, text in texts.items() if path.endswith(TYPED) and not path.endswith(".d.ts")]
    if typed:
        explicit = all(
            re.search(r"\.(?:[mc]?[jt]s|json)$", found) and found.removesuffix("js") + "ts" not in texts
            for text in typed
            for found in _RELATIVE.findall(text)
        )
        if not (strips_types and explicit and not any(path.endswith((".tsx", ".jsx")) for path in texts)):
            return True
    return any(is_module(text) for path, text in texts.items() if path.endswith(".js") and not known.module(path))


def aliases(known: Packages, texts: Mapping[str, str]) -> list[list[Any]]:
    """Names that stand for files of the repository: [pattern, [targets]], from tsconfig.json, the settings of jest, vite
    and vitest, the repository's own packages, and the usual names for ``src``."""
    found: list[list[Any]] = []
    for name in ("tsconfig.json", "tsconfig.base.json", "jsconfig.json"):
        text = _COMMENT.sub(lambda found: found[1] or "", texts.get(name, ""))
        try:
            options = json.loads(re.sub(r",(\s*[}\]])", r"\1", text)).get("compilerOptions", {})
        except (ValueError, AttributeError):
            continue
        paths, base = options.get("paths"), options.get("baseUrl", ".")
        for pattern, targets in paths.items() if isinstance(paths, dict) else ():
            if isinstance(targets, list):
                found.append([pattern, [posixpath.join(str(base), str(target)) for target in targets]])
    for path, text in texts.items():
        if re.fullmatch(r"package\.json|(?:jest|vite|vitest)\.config\.\w+", path):
            found += [[f"{name}*", [f"{target}*"]] for name, target in _MAPPED.findall(text)]
            found += [[name, [target]] for name, target in _ALIAS.findall(text)]
            found += [[f"{name}/*", [f"{target}/*"]] for name, target in _ALIAS.findall(text)]
    for folder, package in known.found.items():
        own = package.get("name")
        if isinstance(own, str):
            main = posixpath.normpath(posixpath.join(folder, str(package.get("main") or "index.js")))
            targets = [main] if main in texts else []
            found.append([own, [*targets, posixpath.join(folder, "src/index"), posixpath.join(folder, "index")]])
            found.append([f"{own}/*", [posixpath.join(folder, "src/*"), posixpath.join(folder, "*")]])
    return [*found, ["@/*", ["src/*"]], ["~/*", ["src/*"]]]


def setup_files(known: Packages, texts: Mapping[str, str]) -> list[str]:
    """What runs before the tests: of the repository, or a package."""
    named: list[str] = []
    jest, mocha, scripts = (known.root.get(key) for key in ("jest", "mocha", "scripts"))
    for settings, keys in ((jest, ("setupFiles", "setupFilesAfterEnv")), (mocha, ("require", "file"))):
        for key in keys if isinstance(settings, dict) else ():
            value = settings.get(key) if isinstance(settings, dict) else None
            named += [value] if isinstance(value, str) else [str(item) for item in value or ()]
    for path, text in texts.items():
        base = posixpath.basename(path)
        if "/" in path:
            continue
        if re.fullmatch(r"(?:jest|vitest|vite)\.config\.\w+", base):
            for inner in re.findall(r"setupFiles(?:AfterEnv)?\s*:\s*(\[[^\]]*\]|['\"][^'\"]*['\"])", text):
                named += re.findall(r"['\"]([^'\"]+)['\"]", inner)
        elif base.startswith(".mocharc") or base == "mocha.opts":
            for inner in re.findall(r"(?:\brequire\b|\bfile\b)['\"]?\s*:\s*(\[[^\]]*\]|(?:\s*-\s*.+\n?)+|.+)", text):
                named += re.findall(r"['\"]?([@\w./-]+)['\"]?", inner)
    for script in scripts.values() if isinstance(scripts, dict) else ():
        if "mocha" in str(script):
            named += re.findall(r"(?:--require|-r|--file)[ =]([@\w./-]+)", str(script))
    return list(dict.fromkeys(_local(named, texts)))


def _local(named: list[str], texts: Mapping[str, str]) -> Iterator[str]:
    for name in named:
        path = posixpath.normpath(name.replace("<rootDir>/", "").removeprefix("./"))
        if any(path + ending in texts for ending in ("", *SOURCE)):
            yield path
        elif not name.startswith((".", "/")) and re.match(r"@?[a-z]", name) and not _TRANSFORMERS.search(name):
            yield name
