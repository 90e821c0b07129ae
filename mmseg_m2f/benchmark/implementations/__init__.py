"""Models that can be measured side by side, each trained and asked the way its own library does it.

`Ours` is built from a config of this package, `Upstream` is mmseg's Mask2Former from the config shipped with it,
`HuggingFace` the one of transformers. These give label maps at the size of the images. Beside an `Ours` that gives
objects stands `MmdetDino`, from mmdet's config. Gradients are clipped and AdamW steps as each library's recipe has it;
those of Mask2Former have the same rates and decay for the weight matrices, and groups of their own.
"""

from mmseg_m2f.benchmark.implementations.building import DEFAULT_NAMES, NAMES, build, build_all, check_names
from mmseg_m2f.benchmark.implementations.huggingface import HuggingFace
from mmseg_m2f.benchmark.implementations.interface import Implementation, LabelMapImplementation, Layer, Masks
from mmseg_m2f.benchmark.implementations.mmdet_dino import MmdetDino
from mmseg_m2f.benchmark.implementations.ours import COMPILED, GRAPHED, Ours
from mmseg_m2f.benchmark.implementations.upstream import Upstream

__all__ = [
    "COMPILED",
    "DEFAULT_NAMES",
    "GRAPHED",
    "NAMES",
    "HuggingFace",
    "Implementation",
    "LabelMapImplementation",
    "Layer",
    "Masks",
    "MmdetDino",
    "Ours",
    "Upstream",
    "build",
    "build_all",
    "check_names",
]
