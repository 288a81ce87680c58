"""Files that a build writes are added to a snapshot: from the installed package, from the working tree, or written anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_helpers import MakeRepository, git, write_files

from data_builders.repositories.sources import Repository, resolve
from data_builders.tasks.python.generated_files import generated_files, project_version, version_module
from data_builders.tasks.python.python_environment import Environment

SOURCE: dict[str, str | bytes] = {
    "pyproject.toml": '[project]\nname = "corner.shop"\ndynamic = ["version"]\n',
    "src/shop/__init__.py": "from shop._version import __version__\nfrom .tables import codes\n",
    "src/shop/rates/__init__.py": "import shop.rates._fast\n",
    "src/shop/rates/_fast.pyx": "def rate(x): return x\n",
    "src/shop/speed.py": "def f():\n    return 1\n",
}
BASES = ["", "src"]


def environment(*packages: Path, distributions: tuple[str, ...] = (), editable: tuple[str, ...] = ()) -> Environment:
    return Environment("/usr/bin/python3", "3.11", (), tuple(map(str, packages)), distributions, editable)


def added(source: Path, python: Environment) -> dict[str, bytes]:
    (repository,) = resolve([source])
    files = {path: content.encode() if isinstance(content, str) else content for path, content in SOURCE.items()}
    return generated_files(repository, files, BASES, python)


def test_modules_that_are_imported_and_compiled_files_come_from_the_installed_package(tmp_path: Path) -> None:
    write_files(tmp_path / "source", SOURCE)
    built: dict[str, str | bytes] = {
        "shop/_version.py": "__version__ = '2.5'\n", "shop/tables.py": "codes = [1]\n", "shop/old.py": "removed = True\n",
        "shop/rates/_fast.cpython-311-x86_64-linux-gnu.so": b"\x7fELF", "shop/speed.cpython-311.so": b"\x7fELF",
        "shop/speed.py": "def f():\n    return 2\n", "shop/locale/de.mo": b"\xde\x12", "shop/__pycache__/a.pyc": b"x",
        "shop/rates/_fast.c": "int x;", "shop/__init__.py": "installed = True\n",
    }  # fmt: skip
    write_files(tmp_path / "site", built)
    python = environment(tmp_path / "site", distributions=("corner_shop==2.5",))
    assert added(tmp_path / "source", python) == {
        "src/shop/_version.py": b"__version__ = '2.5'\n", "src/shop/tables.py": b"codes = [1]\n",
        "src/shop/rates/_fast.cpython-311-x86_64-linux-gnu.so": b"\x7fELF", "src/shop/locale/de.mo": b"\xde\x12",
    }  # fmt: skip


def test_files_that_git_ignores_come_from_the_working_tree_or_the_editable_installation(
    repository: MakeRepository, tmp_path: Path
) -> None:
    folder = repository({**SOURCE, ".gitignore": "_version.py\n*.so\n*.mo\ntables.py\n"})
    generated: dict[str, str | bytes] = {
        "src/shop/_version.py": "__version__ = '3.0'\n", "src/shop/rates/_fast.abi3.so": b"\x7fELF", "src/shop/de.mo": b"x",
    }  # fmt: skip
    write_files(folder, generated)
    expected = {"src/shop/_version.py": b"__version__ = '3.0'\n", "src/shop/rates/_fast.abi3.so": b"\x7fELF"}
    metadata = "corner_shop-0.0.0.dist-info/METADATA"
    result = added(folder, environment())
    assert {path: content for path, content in result.items() if path != metadata} == expected
    assert b"Name: corner.shop\nVersion: 0.0.0\n" in result[metadata]
    git(tmp_path, "clone", "-q", "--bare", str(folder), "bare.git")
    python = environment(distributions=("corner-shop==3.0",), editable=(str(folder),))
    assert added(tmp_path / "bare.git", python) == expected


def test_a_module_that_another_commit_holds_is_not_generated(repository: MakeRepository, tmp_path: Path) -> None:
    """The commit before the one that adds `tables.py` must not get the file from the working tree or the installation."""
    folder = repository({**SOURCE, "src/shop/tables.py": "codes = [1]\n", "src/shop/rates.json": "{}\n"})
    write_files(tmp_path / "site", {"shop/tables.py": "codes = [1]\n", "shop/rates.json": "{}\n", "shop/de.mo": b"x"})
    result = added(folder, environment(tmp_path / "site"))
    assert "src/shop/de.mo" in result and not {"src/shop/tables.py", "src/shop/rates.json"} & set(result)


def test_a_missing_version_module_is_written_with_the_version_of_the_last_tag(repository: MakeRepository) -> None:
    folder = repository(SOURCE)
    git(folder, "tag", "v4.1.2")
    module = added(folder, environment())["src/shop/_version.py"].decode()
    namespace: dict[str, object] = {}
    exec(module, namespace)
    assert namespace["__version__"] == namespace["version"] == "4.1.2" and namespace["version_tuple"] == (4, 1, 2)


def test_a_version_file_that_only_the_settings_name_is_written(repository: MakeRepository) -> None:
    settings = '[project]\nname = "shop"\n[tool.hatch.build.hooks.vcs]\nversion-file = "shop/_build_version.py"\n'
    folder = repository({"pyproject.toml": settings, "shop/__init__.py": ""})
    files = {"pyproject.toml": settings.encode(), "shop/__init__.py": b""}
    assert "shop/_build_version.py" in generated_files(resolve([folder])[0], files, [""], environment())


def test_a_complete_commit_of_an_installed_package_gets_no_files(tmp_path: Path) -> None:
    write_files(
        tmp_path / "source", {"setup.py": "setup(name='shop')", "shop/__init__.py": "import shop.a\n", "shop/a.py": ""}
    )
    files = {
        "setup.py": b"setup(name='shop')",
        "shop/__init__.py": b"import shop.a, os.path\nfrom . import a\n",
        "shop/a.py": b"",
    }
    python = environment(distributions=("shop==1.0",))
    assert generated_files(resolve([tmp_path / "source"])[0], files, [""], python) == {}


@pytest.mark.parametrize(
    ("files", "distributions", "version"),
    [
        ({"pyproject.toml": b'[project]\nname = "Corner_Shop"\nversion = "1.0"\n'}, ("corner-shop==2.0",), "2.0"),
        ({"pyproject.toml": b'[project]\nname = "shop"\nversion = "1.0"\n'}, (), "1.0"),
        ({"pyproject.toml": b'[tool.poetry]\nname = "shop"\nversion = "1.5"\n'}, (), "1.5"),
        ({"setup.cfg": b"[metadata]\nname = shop\n"}, ("shop==7",), "7"),
        ({"setup.py": b"setup(name='shop')"}, ("shop==8.1",), "8.1"),
        ({"pyproject.toml": b"not toml ["}, (), "0.0.0"),
        ({}, (), "0.0.0"),
    ],
)
def test_the_version_is_that_of_the_installation_or_of_the_settings(
    files: dict[str, bytes], distributions: tuple[str, ...], version: str, tmp_path: Path
) -> None:
    python = environment(distributions=distributions)
    assert project_version(Repository("shop", tmp_path, "", ""), files, python) == version


def test_a_version_module_defines_the_names_that_are_imported() -> None:
    namespace: dict[str, object] = {}
    exec(version_module("1.2.dev3+abc", {"full_version", "version", "*"}), namespace)
    assert namespace["full_version"] == "1.2.dev3+abc" and namespace["version_tuple"] == (1, 2, "dev3", "abc")
