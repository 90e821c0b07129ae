"""Ships `configs/` inside the package, as `mmseg_m2f.configs`, and what `mim` looks for; all else is in pyproject.toml.

`mim search` reads `mmseg_m2f/model-index.yml`, `mim train` and `mim test` start `mmseg_m2f/.mim/tools`.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithIndex(build_py):
    """Copies the model index and the tools into the package that is built."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "mmseg_m2f"
        shutil.copy(ROOT / "model-index.yml", target)
        shutil.copytree(
            ROOT / "tools", target / ".mim/tools", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )


setup(
    packages=[*find_packages(include=["mmseg_m2f", "mmseg_m2f.*"]), "mmseg_m2f.configs"],
    package_dir={"mmseg_m2f.configs": "configs"},
    cmdclass={"build_py": BuildWithIndex},
)
