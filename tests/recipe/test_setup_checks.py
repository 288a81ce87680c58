"""What `make setup`, `make wheelhouse` and the Dockerfile do before and without a package index."""

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from alignment.export import engine_environment

ROOT = Path(__file__).resolve().parents[2]
CUDA = {
    "install": [{"metadata": {"name": name}} for name in ("torch", "nvidia-cublas-cu12", "nvidia-cudnn-cu12", "triton")]
}
CPU = {"install": [{"metadata": {"name": name}} for name in ("torch", "sympy", "filelock")]}


@pytest.fixture(scope="module")
def torch_build():
    spec = importlib.util.spec_from_file_location("torch_build", ROOT / "deploy" / "torch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cuda_is_not_downloaded_to_a_machine_without_a_gpu(torch_build):
    message = torch_build.refusal(CUDA, has_gpu=False)
    assert "2 packages of CUDA" in message and "PIP_EXTRA_INDEX_URL" in message and "CUDA=1" in message


def test_builds_that_fit_the_machine_are_installed(torch_build):
    assert torch_build.refusal(CUDA, has_gpu=True) == torch_build.refusal(CPU, has_gpu=False) == ""
    assert torch_build.refusal({"install": []}, has_gpu=False) == "", "torch is installed already"


@pytest.mark.parametrize(("report", "code"), [(json.dumps(CPU), 0), ("", 1)])
def test_the_script_reads_the_report_of_pip(report, code):
    command = [sys.executable, str(ROOT / "deploy" / "torch_build.py")]
    done = subprocess.run(command, input=report, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")


def test_make_setup_names_a_wrong_version_of_python_before_it_makes_anything(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python3.12"
    python.write_text('#!/bin/sh\ntest "$1" = --version && echo "Python 3.12.4" && exit 0\nexit 1\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and "is not Python 3.11 (Python 3.12.4)" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_pip_refuses_other_versions_of_python_too():
    """pip reads this before it resolves the dependencies."""
    allowed = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    assert "3.11.9" in allowed and "3.12.0" not in allowed and "3.10.14" not in allowed


@pytest.mark.skipif(shutil.which("hadolint", path=str(Path(sys.executable).parent)) is None, reason="needs hadolint")
def test_the_dockerfile_has_no_findings_and_no_root():
    file = ROOT / "deploy" / "Dockerfile"
    done = subprocess.run([str(Path(sys.executable).parent / "hadolint"), str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    lines = [line for line in file.read_text().splitlines() if line.startswith("USER")]
    assert lines == ["USER 10001:10001"], "the user of the manifests"


def toy_wheel(folder: Path) -> None:
    """Write the wheel of a package `toy` without dependencies."""
    info = "toy-1.0.dist-info"
    files = {
        "toy.py": "answer = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / "toy-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


@pytest.mark.slow
def test_an_engine_is_installed_from_the_wheelhouse_alone(tmp_path, monkeypatch):
    source, wheelhouse = tmp_path / "source", tmp_path / "wheelhouse"
    source.mkdir()
    toy_wheel(source)
    engine = engine_environment.EngineEnvironment("toy", ("toy==1.0",), resolve=False)
    monkeypatch.setattr(engine_environment, "ENGINES", {"toy": engine})
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(source),
        "ALIGN_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    engine_environment.write_wheels(wheelhouse)
    assert [file.name for file in wheelhouse.iterdir()] == ["toy-1.0-py3-none-any.whl"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheelhouse))
    python = engine_environment.engine_python("toy")
    code = "import toy, importlib.metadata as m; print(toy.answer, m.version('torch'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["42", importlib.metadata.version("torch")]


def test_wheels_that_can_not_be_had_are_an_error_of_one_line(tmp_path, monkeypatch):
    engine = engine_environment.EngineEnvironment("toy", ("no-such-package-anywhere==1.0",), resolve=False)
    monkeypatch.setattr(engine_environment, "ENGINES", {"toy": engine})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match=r"^the wheels of no-such-package.* can't be collected: ERROR: .*$"):
        engine_environment.write_wheels(tmp_path)
