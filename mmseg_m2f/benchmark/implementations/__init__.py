"""Models that can be measured side by side, each trained and asked the way its own library does it.

`Ours` is built from a config of this package, `Upstream` is mmseg's Mask2Former from the config shipped with it,
`HuggingFace` the one of transformers. All give label maps at the size of the images. Gradients are clipped and
AdamW steps as each library's recipe has it: same rates and decay for the weight matrices, groups of its own.
"""

from mmseg_m2f.benchmark.implementations.building import NAMES, build, build_all, check_names
from mmseg_m2f.benchmark.implementations.huggingface import HuggingFace
from mmseg_m2f.benchmark.implementations.interface import Implementation, Layer, Masks
from mmseg_m2f.benchmark.implementations.ours import COMPILED, GRAPHED, Ours
from mmseg_m2f.benchmark.implementations.upstream import Upstream

__all__ = [
    "COMPILED",
    "GRAPHED",
    "NAMES",
    "HuggingFace",
    "Implementation",
    "Layer",
    "Masks",
    "Ours",
    "Upstream",
    "build",
    "build_all",
    "check_names",
]
