"""Detect how a JavaScript repository runs tests: runner, test files, setup files, import aliases, transformation."""

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
"""Names of test runners that are not supported."""
SUPPORTED = "node:test, mocha, jest, vitest, tape, tap and uvu"
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
    """Whether a path looks like a test file, judged by the file name and the folders."""
    *folders, name = path.split("/")
    return name.endswith(SOURCE) and not name.endswith(".d.ts") and (
        any(fnmatch.fnmatch(name, pattern) for pattern in TEST_NAMES) or any(folder in TEST_FOLDERS for folder in folders)
    )  # fmt: skip


def has_tests(path: str, text: str) -> bool:
    """Whether a path looks like a test file, and the text defines tests. Other test files only contain helpers."""
    return is_js_test(path) and bool(_CALLS.search(text))


@dataclass(frozen=True)
class Packages:
    """All package.json files of a repository."""

    by_folder: Mapping[str, Mapping[str, Any]]
    """Maps a folder to the content of its package.json. The root folder is ""."""

    @property
    def root(self) -> Mapping[str, Any]:
        """The content of the package.json at the root, or {}."""
        return self.by_folder.get("", {})

    def depends_on(self, *names: str) -> list[str]:
        """Return the names among `names` that at least one package.json lists as a dependency."""
        dependencies = {name for package in self.by_folder.values() for part in ("dependencies", "devDependencies", "peerDependencies")
                  if isinstance(package.get(part), dict) for name in package[part]}  # fmt: skip
        return [name for name in names if name in dependencies]

    def is_es_module(self, path: str) -> bool:
        """Whether node loads a file as an ES module. The file name or `type` in the nearest package.json decides."""
        if path.endswith((".mjs", ".mts")):
            return True
        if path.endswith((".cjs", ".cts")):
            return False
        folder = posixpath.dirname(path)
        while folder and folder not in self.by_folder:
            folder = posixpath.dirname(folder)
        return self.by_folder.get(folder, {}).get("type") == "module"


def read_packages(texts: Mapping[str, str]) -> Packages:
    """Parse the package.json files of a repository. Invalid files are skipped."""
    by_folder = {}
    for path, text in texts.items():
        if posixpath.basename(path) == "package.json":
            try:
                content = json.loads(text)
            except ValueError:
                continue
            if isinstance(content, dict):
                by_folder[posixpath.dirname(path)] = content
    return Packages(by_folder)


def expect_library(known: Packages, tests: Collection[str]) -> str:
    """Return the library whose function `expect` the tests use: `vitest`, `jest`, or "" if they use neither.

    Args:
        known: the repository's package.json files.
        tests: texts of the test files.
    """
    text = "\n".join(tests)
    if known.depends_on("vitest") or re.search(r"""from\s*['"]vitest['"]""", text):
        return "vitest"
    return "jest" if known.depends_on("jest", "@jest/globals", "jest-cli", "ts-jest", "expect") else ""


def has_module_syntax(text: str) -> bool:
    """Whether a file has `import` or `export` statements."""
    return bool(_MODULE.search(text))


def reachable_files(texts: Mapping[str, str], tests: Collection[str]) -> set[str]:
    """Return the tests and all files that the tests import by relative imports, directly or indirectly.

    Args:
        texts: texts of all source files, keyed by path.
        tests: paths of the tests.
    """
    reached, waiting = set(tests), list(tests)
    while waiting:
        path = waiting.pop()
        for request in _RELATIVE.findall(texts[path]):
            base = posixpath.normpath(posixpath.join(posixpath.dirname(path), request))
            stem = re.sub(r"\.[mc]?jsx?$", "", base)
            candidates = [
                base,
                *(stem + ending for ending in SOURCE),
                *(f"{base}/index{ending}" for ending in SOURCE),
                *(f"index{ending}" for ending in SOURCE if base == "."),
            ]
            inner = next((item for item in candidates if item in texts and item.endswith(SOURCE)), None)
            if inner is not None and inner not in reached:
                reached.add(inner)
                waiting.append(inner)
    return reached


def needs_transform(known: Packages, texts: Mapping[str, str], library: str, strips_types: bool) -> bool:
    """Whether files must be transformed before node can load them.

    Args:
        known: the repository's package.json files.
        texts: texts of the tests and of all files that the tests import, keyed by path.
        library: result of `expect_library`. Tests of vitest are always transformed.
        strips_types: whether this version of node can load TypeScript by removing the types.
    """
    if library == "vitest":
        return True
    typed = [text for path, text in texts.items() if path.endswith(TYPED) and not path.endswith(".d.ts")]
    if typed:
        explicit = all(
            re.search(r"\.(?:[mc]?[jt]s|json)$", request) and request.removesuffix("js") + "ts" not in texts
            for text in typed
            for request in _RELATIVE.findall(text)
        )
        if not (strips_types and explicit and not any(path.endswith((".tsx", ".jsx")) for path in texts)):
            return True
    return any(
        has_module_syntax(text) for path, text in texts.items() if path.endswith(".js") and not known.is_es_module(path)
    )


def aliases(known: Packages, texts: Mapping[str, str]) -> list[list[Any]]:
    """Return import names that stand for files of the repository, as [pattern, [targets]].

    The names come from tsconfig.json, the settings of jest, vite and vitest, the packages that the repository defines,
    and the conventions `@/` and `~/` for `src`.
    """
    pairs: list[list[Any]] = []
    for name in ("tsconfig.json", "tsconfig.base.json", "jsconfig.json"):
        text = _COMMENT.sub(lambda match: match[1] or "", texts.get(name, ""))
        try:
            options = json.loads(re.sub(r",(\s*[}\]])", r"\1", text)).get("compilerOptions", {})
        except (ValueError, AttributeError):
            continue
        paths, base = options.get("paths"), options.get("baseUrl", ".")
        for pattern, targets in paths.items() if isinstance(paths, dict) else ():
            if isinstance(targets, list):
                pairs.append([pattern, [posixpath.join(str(base), str(target)) for target in targets]])
    for path, text in texts.items():
        if re.fullmatch(r"package\.json|(?:jest|vite|vitest)\.config\.\w+", path):
            pairs += [[f"{name}*", [f"{target}*"]] for name, target in _MAPPED.findall(text)]
            pairs += [[name, [target]] for name, target in _ALIAS.findall(text)]
            pairs += [[f"{name}/*", [f"{target}/*"]] for name, target in _ALIAS.findall(text)]
    for folder, package in known.by_folder.items():
        package_name = package.get("name")
        if isinstance(package_name, str):
            main = posixpath.normpath(posixpath.join(folder, str(package.get("main") or "index.js")))
            targets = [main] if main in texts else []
            pairs.append(
                [package_name, [*targets, posixpath.join(folder, "src/index"), posixpath.join(folder, "index")]]
            )
            pairs.append([f"{package_name}/*", [posixpath.join(folder, "src/*"), posixpath.join(folder, "*")]])
    return [*pairs, ["@/*", ["src/*"]], ["~/*", ["src/*"]]]


def setup_files(known: Packages, texts: Mapping[str, str]) -> list[str]:
    """Return the files and packages to load before the tests, from the settings of jest, vitest and mocha."""
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
    return list(dict.fromkeys(_loadable(named, texts)))


def _loadable(named: list[str], texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of existing files and of packages. Packages that only transform code are left out."""
    for name in named:
        path = posixpath.normpath(name.replace("<rootDir>/", "").removeprefix("./"))
        if any(path + ending in texts for ending in ("", *SOURCE)):
            yield path
        elif not name.startswith((".", "/")) and re.match(r"@?[a-z]", name) and not _TRANSFORMERS.search(name):
            yield name
