"""Settings and configs that measure themselves in a second."""

from pathlib import Path

from mmseg_m2f.benchmark.setting import Setting

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/mask2former/mask2former_r18_shapes_debug.py")
SETTING = Setting(size=64, objects=3, queries=10, classes=5, points=64)


def write_variant(path: Path, **head: object) -> str:
    """A config that differs from `CONFIG` in keys of the head."""
    path.write_text(f"_base_ = {CONFIG!r}\nmodel = dict(decode_head=dict(**{head!r}))\n")
    return str(path)
