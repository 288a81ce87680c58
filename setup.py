"""Build step that puts the recipes and the Accelerate config files of the checkout into the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPackage(build_py):
    """Copies `recipes` and `accelerate_configs` to `alignment/share`, where `alignment.installation` finds them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout reads its own folders
            return
        for name in ("recipes", "accelerate_configs"):
            target = Path(self.build_lib, "alignment", "share", name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("runs", "__pycache__"))


setup(cmdclass={"build_py": BuildPackage})
