"""Find the files of a repository that a file imports (Python, JavaScript/TypeScript, JVM languages, Go, Rust, C/C++).

Imports are found with regular expressions and resolved to paths of the repository. Imports from outside the repository
are ignored. Not supported: path aliases of bundlers, include paths of a build system (a C include is matched by the end
of its path), Java types of the same package (which are used without an import), and Rust's `#[path]`.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable

_PYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)|import[ \t]+([\w., \t]+))", re.MULTILINE
)
_SCRIPT = re.compile(
    r"""(?:\bfrom\s*|\brequire\s*\(\s*|\bimport\s*\(\s*|\bimport\s+)["']([^"'\n]+)["']"""
)  # fmt: skip
_JVM = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?(\w+(?:\.\w+)*(?:\.\*)?)", re.MULTILINE)
_GO_BLOCK = re.compile(r"^import[ \t]*(?:\(([^)]*)\)|([^\n]*))", re.MULTILINE)
_QUOTED = re.compile(r'"([^"\n]+)"')
_RUST = re.compile(
    r"^[ \t]*(?:pub(?:\([\w ]+\))?[ \t]+)?(?:mod[ \t]+(\w+)[ \t]*;|use[ \t]+((?:crate|super|self)(?:::\w+)+))",
    re.MULTILINE,
)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)

_SCRIPT_LANGUAGES = {"javascript", "typescript", "vue"}
_JVM_LANGUAGES = {"java", "kotlin", "scala", "groovy"}
_C_FAMILY = {"c", "c++", "cuda", "objectc++"}
_SCRIPT_ENDINGS = ("", ".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".vue", ".json",
                   "/index.ts", "/index.tsx", "/index.js", "/index.jsx", "/index.mjs")  # fmt: skip


def imports(language: str, text: str) -> list[str]:
    """Return the imported names as written in a file, in order, without repetitions.

    The list is empty for a language that this module does not support.
    """
    names: list[str] = []
    if language == "python":
        for match in _PYTHON.finditer(text):
            module, members, modules = match.groups()
            if modules is not None:
                names += [part.split()[0] for part in modules.split(",") if part.split()]
            elif module:
                members = members.strip("() \t").replace("\n", " ")
                parts = [part.split()[0] for part in members.split(",") if part.split()]
                prefix = module if module.endswith(".") else f"{module}."
                names += [f"{prefix}{part}" for part in parts if part != "*" and part.isidentifier()]
                names.append(module)
    elif language in _SCRIPT_LANGUAGES:
        names = _SCRIPT.findall(text)
    elif language in _JVM_LANGUAGES:
        names = _JVM.findall(text)
    elif language == "go":
        names = [name for block, line in _GO_BLOCK.findall(text) for name in _QUOTED.findall(block or line)]
    elif language == "rust":
        names = [f"mod {module}" if module else path for module, path in _RUST.findall(text)]
    elif language in _C_FAMILY:
        names = _INCLUDE.findall(text)
    return list(dict.fromkeys(names))


class Resolver:
    """Resolves imports within one repository.

    Args:
        paths: the paths of all files of the repository.
        repository: name of the repository. Go imports without a host start with this name.
    """

    def __init__(self, paths: Iterable[str], repository: str = "") -> None:
        self.paths = set(paths)
        self.repository = repository
        self.folders: dict[str, list[str]] = defaultdict(list)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        self.modules: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.paths):
            self.folders[posixpath.dirname(path)].append(path)
            self.by_name[posixpath.basename(path)].append(path)
        for path in sorted(self.paths):
            if path.endswith((".py", ".pyi")):
                for name in self._python_names(path):
                    self.modules[name].append(path)

    def dependencies(self, path: str, language: str, names: Iterable[str]) -> list[str]:
        """Return the files of the repository that a file imports.

        Args:
            path: path of the importing file.
            language: language of this file.
            names: imported names, from `imports`.

        Returns:
            Sorted paths, without `path` itself.
        """
        files: set[str] = set()
        for name in names:
            if language == "python":
                files.update(self._python(path, name))
            elif language in _SCRIPT_LANGUAGES:
                files.update(self._script(path, name))
            elif language in _JVM_LANGUAGES:
                files.update(self._jvm(name))
            elif language == "go":
                files.update(self._go(name))
            elif language == "rust":
                files.update(self._rust(path, name))
            elif language in _C_FAMILY:
                files.update(self._include(path, name))
        return sorted(files - {path})

    def _python_names(self, path: str) -> set[str]:
        """Return the dotted names by which a file can be imported: from its top package, the root, or `src`."""
        parts = path.rsplit(".", 1)[0].split("/")
        root = len(parts) - 1
        while root and f"{'/'.join(parts[:root])}/__init__.py" in self.paths:
            root -= 1
        starts = {root, 0, *([1] if parts[0] in {"src", "lib", "python"} else [])}
        names = set()
        for start in starts:
            dotted = parts[start:]
            if dotted[-1] == "__init__":
                dotted = dotted[:-1]
            names.add(".".join(dotted))
        return names - {""}

    def _python(self, path: str, name: str) -> list[str]:
        if not name.startswith("."):
            return self._nearest(path, self.modules.get(name, []))
        level = len(name) - len(name.lstrip("."))
        folder = posixpath.dirname(path)
        for _ in range(level - 1):
            folder = posixpath.dirname(folder)
        target = posixpath.join(folder, *[part for part in name.lstrip(".").split(".") if part])
        candidates = (f"{target}.py", f"{target}/__init__.py", f"{target}.pyi")
        return [candidate for candidate in candidates if candidate in self.paths][:1]

    def _script(self, path: str, name: str) -> list[str]:
        if not name.startswith("."):
            return []
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        candidates = [f"{target}{ending}" for ending in _SCRIPT_ENDINGS]
        if target.endswith((".js", ".jsx", ".mjs")):  # TypeScript imports name the compiled file
            stem = target.rsplit(".", 1)[0]
            candidates += [f"{stem}.ts", f"{stem}.tsx", f"{stem}.mts"]
        return [candidate for candidate in candidates if candidate in self.paths][:1]

    def _jvm(self, name: str) -> list[str]:
        if name.endswith(".*"):
            ending = name[:-2].replace(".", "/")
            folders = [folder for folder in self.folders if folder == ending or folder.endswith(f"/{ending}")]
            return [
                path for folder in folders for path in self.folders[folder] if path.endswith((".java", ".kt", ".scala"))
            ]
        parts = name.split(".")
        for length in (len(parts), len(parts) - 1):  # `import static a.b.C.method` names a member
            stem = parts[length - 1] if length > 0 else ""
            for ending in (".java", ".kt", ".scala", ".groovy"):
                wanted = f"{'/'.join(parts[:length])}{ending}"
                matches = [
                    path
                    for path in self.by_name.get(f"{stem}{ending}", [])
                    if path == wanted or path.endswith(f"/{wanted}")
                ]
                if matches:
                    return matches[:1]
        return []

    def _go(self, name: str) -> list[str]:
        parts = name.split("/")
        if "." not in parts[0] and parts[0] != self.repository:
            return []  # the standard library
        for start in range(len(parts)):
            folder = "/".join(parts[start:])
            if folder in self.folders:
                return self._go_files(folder)
        last = parts[-2] if re.fullmatch(r"v\d+", parts[-1]) and len(parts) > 1 else parts[-1]
        return self._go_files("") if last == self.repository else []

    def _go_files(self, folder: str) -> list[str]:
        return [path for path in self.folders[folder] if path.endswith(".go") and not path.endswith("_test.go")]

    def _rust(self, path: str, name: str) -> list[str]:
        folder, file = posixpath.split(path)
        is_root = file in {"mod.rs", "lib.rs", "main.rs"}
        module = folder if is_root else posixpath.join(folder, file.removesuffix(".rs"))  # the folder of the submodules
        if name.startswith("mod "):
            return self._rust_file(posixpath.join(module, name[4:]))
        head, *parts = name.split("::")
        if head == "crate":
            source = f"/{path}".rfind("/src/")
            base = path[: source + 3] if source >= 0 else folder
        elif head == "super":
            base = posixpath.dirname(module)
        else:
            base = module
        while parts and parts[0] == "super":
            base, parts = posixpath.dirname(base), parts[1:]
        for length in range(len(parts), 0, -1):
            if files := self._rust_file(posixpath.join(base, *parts[:length])):
                return files
        return []

    def _rust_file(self, target: str) -> list[str]:
        return [candidate for candidate in (f"{target}.rs", f"{target}/mod.rs") if candidate in self.paths][:1]

    def _include(self, path: str, name: str) -> list[str]:
        name = posixpath.normpath(name)
        relative = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        if relative in self.paths:
            return [relative]
        ending = name.lstrip("./")
        matches = [
            other for other in self.by_name.get(posixpath.basename(name), []) if f"/{other}".endswith(f"/{ending}")
        ]
        return self._nearest(path, matches)

    @staticmethod
    def _nearest(path: str, candidates: list[str]) -> list[str]:
        """Return a list that contains only the candidate that shares the most leading folders with `path`.

        If several candidates share the same number of folders, the shortest path is chosen. Among paths of the same
        length, the first in alphabetical order is chosen.
        """
        if len(candidates) < 2:
            return candidates
        return [
            min(
                candidates,
                key=lambda other: (-len(posixpath.commonprefix([path, other]).split("/")), len(other), other),
            )
        ]
