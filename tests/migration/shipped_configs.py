from pathlib import Path

import mmdet
import mmseg
from mmengine.config import Config

from mmseg_m2f.config.load import load_config
from mmseg_m2f.migration import MigrationReport, migrate_config

SHIPPED = {
    name: Path(library.__file__).parent / ".mim/configs" for name, library in (("mmseg", mmseg), ("mmdet", mmdet))
}
SEMANTIC = SHIPPED["mmseg"] / "mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py"
MASKFORMER = SHIPPED["mmdet"] / "maskformer/maskformer_r50_ms-16xb1-75e_coco.py"


def migrate(tmp_path: Path, base: Path, changes: str = "", **options: bool) -> tuple[Config, MigrationReport]:
    """Our config for a user's one: `base` with some settings of their own."""
    source = tmp_path / "mine.py"
    source.write_text(f"_base_ = {str(base)!r}\n{changes}\n")
    report = migrate_config(source, tmp_path / "migrated.py", **options)
    return load_config(tmp_path / "migrated.py"), report


PANOPTIC = SHIPPED["mmdet"] / "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py"
INSTANCE = SHIPPED["mmdet"] / "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py"
