"""Mask classification for OpenMMLab: Mask2Former and its relatives as config-assembled parts.

Importing this package is cheap: no torch, mmcv, mmdet or mmseg. The parts register themselves when a
config names one (`type="mmseg_m2f.MaskHead"`), through `mmseg_m2f.registry`.
"""

from mmseg_m2f import compat

__version__ = "0.2.0"

compat.install()
