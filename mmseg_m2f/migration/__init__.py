"""Configs of mmseg's and mmdet's Mask2Former and MaskFormer rewritten as ours."""

from mmseg_m2f.migration.config_migration import migrate_config
from mmseg_m2f.migration.reading import MigrationReport

__all__ = ["MigrationReport", "migrate_config"]
