"""What the parts hand to each other, and the axis letters used in every signature.

`B` images, `Q` queries, `K` classes, `K1` the same plus "no object" last, `G` segments of one image,
`C` channels, `H W` height and width, `N` tokens or matched pairs, `L` levels or supervised layers,
`P` sampled points, `M` attention heads, `S` slices of a segment map. Coordinates are `xy` in [0, 1] unless the name
says `_px`.
"""

from mmseg_m2f.structures.features import FeatureSpec, PixelFeatures, PixelSpec, TokenBlock, TokenStream
from mmseg_m2f.structures.mask_targets import (
    BACKGROUND,
    CROWD,
    IGNORE_INDEX,
    VOID,
    Assignment,
    MaskReadings,
    MaskSums,
    MaskTarget,
    TargetBatch,
)
from mmseg_m2f.structures.predictions import (
    BoxPrediction,
    Denoising,
    MaskMaker,
    MaskPrediction,
    Prediction,
    TrainingPredictions,
    boxes_of,
    in_float32,
    predicted_boxes,
    share_mask_features,
)
from mmseg_m2f.structures.protocols import (
    Assigner,
    BackboneQueryDecoder,
    Criterion,
    ExtraLoss,
    MaskSampling,
    NeedsExtraLoss,
    PixelDecoder,
    QueryDecoder,
    TrainingQueryDecoder,
)

__all__ = [
    "BACKGROUND",
    "CROWD",
    "IGNORE_INDEX",
    "VOID",
    "Assigner",
    "Assignment",
    "BackboneQueryDecoder",
    "BoxPrediction",
    "Criterion",
    "Denoising",
    "ExtraLoss",
    "FeatureSpec",
    "MaskMaker",
    "MaskPrediction",
    "MaskReadings",
    "MaskSampling",
    "MaskSums",
    "MaskTarget",
    "NeedsExtraLoss",
    "PixelDecoder",
    "PixelFeatures",
    "PixelSpec",
    "Prediction",
    "QueryDecoder",
    "TargetBatch",
    "TokenBlock",
    "TokenStream",
    "TrainingPredictions",
    "TrainingQueryDecoder",
    "boxes_of",
    "in_float32",
    "predicted_boxes",
    "share_mask_features",
]
