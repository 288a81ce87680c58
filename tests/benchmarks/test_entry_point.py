"""`python -m benchmarks`: lists the measurements and passes options on to one of them."""

import subprocess
import sys

import pytest

from benchmarks.__main__ import MEASUREMENTS, main


def test_help_lists_every_measurement(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in MEASUREMENTS)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_measurement_has_its_own_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m benchmarks {name}" in capsys.readouterr().out


def test_options_reach_the_measurement_and_its_exit_code_comes_back(tmp_path, capsys):
    assert main(["builder-speed", str(tmp_path), "--megabytes", "1"]) == 2
    assert "holds no source file" in capsys.readouterr().err


def test_an_unknown_measurement_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["speed"])
    assert ended.value.code == 2
    assert "sandbox-speed" in capsys.readouterr().err


def test_the_gpu_check_starts_before_its_packages_are_installed():
    code = (
        "import sys; sys.modules['pydantic'] = sys.modules['torch'] = sys.modules['trl'] = None\n"
        "from benchmarks import gpu_check; gpu_check.parse(['--smoke'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
