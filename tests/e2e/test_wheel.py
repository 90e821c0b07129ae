"""The installed package: configs by name from any folder, without the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mmseg_m2f.config.finding import published_configs
from tests.command_line import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
BUILD = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed from the wheel that is built of the source archive."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("mmseg_m2f", "configs", "tools"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "model-index.yml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    archive = build("sdist", source, folder)
    shutil.unpack_archive(folder / archive, folder / "unpacked")
    wheel = build("wheel", folder / "unpacked" / archive.removesuffix(".tar.gz"), folder)
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(folder / wheel)], check=True, capture_output=True)
    return target


def build(kind: str, source: Path, target: Path) -> str:
    """The name of the sdist or wheel."""
    command = [sys.executable, "-W", "ignore", "-c", BUILD.format(kind, str(target))]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def run(site: Path, folder: Path, *arguments: str) -> str:
    """What `mmseg_m2f ARGUMENTS` prints, run in a folder outside the checkout."""
    paths = os.pathsep.join([str(site), *(p for p in sys.path if "site-packages" in p)])
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=paths)
    command = [sys.executable, str(site / "bin/mmseg_m2f"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert str(ROOT) not in done.stdout + done.stderr
    return done.stdout


def test_wheel__has_every_config(site: Path) -> None:
    shipped = {path.relative_to(site / "mmseg_m2f/configs") for path in (site / "mmseg_m2f/configs").rglob("*.py")}
    assert shipped == {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.py")}


def test_wheel__has_what_mim_reads(site: Path) -> None:
    package = site / "mmseg_m2f"
    imports = yaml.safe_load((package / "model-index.yml").read_text())["Import"]
    models = [model for name in imports for model in yaml.safe_load((package / name).read_text())["Models"]]
    assert {model["Name"] for model in models} == set(published_configs())
    assert all((package / model["Config"]).is_file() for model in models)
    shipped = {path.name for path in (package / ".mim/tools").glob("*.py")}
    assert shipped == {path.name for path in (ROOT / "tools").glob("*.py")}


def test_wheel__trains_and_predicts_by_name(site: Path, tmp_path: Path) -> None:
    name = "mask2former_r18_shapes_debug"
    run(site, tmp_path, "train", name, "--cfg-options", "max_iters=2", "default_hooks.checkpoint.interval=2")
    checkpoint = f"work_dirs/{name}/iter_2.pth"
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "image.png")
    run(site, tmp_path, "predict", name, checkpoint, "image.png")
    assert (tmp_path / "predictions/labels/image.png").is_file()


def test_wheel__ingredients_and_a_leaf_of_ones_own(site: Path, tmp_path: Path) -> None:
    base = run(site, tmp_path, "config", "mask2former_r18_shapes_debug")
    (tmp_path / "base.py").write_text(base)
    (tmp_path / "mine.py").write_text('_base_ = "base.py"\nmax_iters = 30\nbackbone = "mscan_t"\n')
    assert run(site, tmp_path, "config", "base.py", "--diff", "mask2former_r18_shapes_debug") == "nothing differs\n"
    found = run(site, tmp_path, "config", "mine.py", "--diff", "base.py").splitlines()
    assert "train_cfg.max_iters: 30 -> 40" in found
    assert any(line.startswith("model.backbone.type: 'mmseg.MSCAN'") for line in found)


def test_wheel__compares_heads_by_name(site: Path, tmp_path: Path) -> None:
    name = "mask2former_r18_shapes_debug"
    shorten = ["--iterations", "1", "--validations", "1", "--images", "1", "--data", "shapes"]
    small = ["--cfg-options", "val_dataloader.dataset.length=2", "test_dataloader.dataset.length=2"]
    printed = run(site, tmp_path, "benchmark", "heads", name, *shorten, *small)
    assert name in printed
    assert (tmp_path / "work_dirs/heads/heads.html").is_file()
