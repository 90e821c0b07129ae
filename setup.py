"""Ships `configs/` inside the package, as `mmseg_m2f.configs`; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mmseg_m2f", "mmseg_m2f.*"]), "mmseg_m2f.configs"],
    package_dir={"mmseg_m2f.configs": "configs"},
)
