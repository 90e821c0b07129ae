"""What the name of a file of weights says about the backbone that it belongs to."""

import re
from collections.abc import Mapping

from mmseg_m2f.config.nodes import short_type

_SIZES = {"tiny": "t", "small": "s", "base": "b", "large": "l", "medium": "m"}
#: Family -> (pattern of names, whose group is the size, and what the sizes set in the backbone's config).
_FAMILIES: dict[str, tuple[str, dict[str, dict[str, object]]]] = {
    "SwinTransformer": (
        r"swin_?(tiny|small|base|large|t|s|b|l)(?![a-z])",
        {
            "t": dict(embed_dims=96, depths=[2, 2, 6, 2]),
            "s": dict(embed_dims=96, depths=[2, 2, 18, 2]),
            "b": dict(embed_dims=128, depths=[2, 2, 18, 2]),
            "l": dict(embed_dims=192, depths=[2, 2, 18, 2]),
        },
    ),
    "MSCAN": (
        r"mscan_?(tiny|small|base|large|t|s|b|l)(?![a-z])",
        {
            "t": dict(embed_dims=[32, 64, 160, 256], depths=[3, 3, 5, 2]),
            "s": dict(embed_dims=[64, 128, 320, 512], depths=[2, 2, 4, 2]),
            "b": dict(embed_dims=[64, 128, 320, 512], depths=[3, 3, 12, 3]),
            "l": dict(embed_dims=[64, 128, 320, 512], depths=[3, 5, 27, 3]),
        },
    ),
    "MixVisionTransformer": (
        r"mit_?b([0-5])",
        {
            "0": dict(embed_dims=32, num_layers=[2, 2, 2, 2]),
            "1": dict(embed_dims=64, num_layers=[2, 2, 2, 2]),
            "2": dict(embed_dims=64, num_layers=[3, 4, 6, 3]),
            "3": dict(embed_dims=64, num_layers=[3, 4, 18, 3]),
            "4": dict(embed_dims=64, num_layers=[3, 8, 27, 3]),
            "5": dict(embed_dims=64, num_layers=[3, 6, 40, 3]),
        },
    ),
    "VisionTransformer": (
        r"vit_?(tiny|small|base|large)(?![a-z])",
        {
            "t": dict(embed_dims=192, num_layers=12),
            "s": dict(embed_dims=384, num_layers=12),
            "b": dict(embed_dims=768, num_layers=12),
            "l": dict(embed_dims=1024, num_layers=24),
        },
    ),
    "ContextCluster": (r"coc_?(tiny|small|medium)(?![a-z])", {s[0]: dict(arch=s) for s in ("tiny", "small", "medium")}),
}
_RESNETS = ("ResNet", "ResNetV1c", "ResNetV1d", "ResNeXt", "ResNeSt", "Res2Net")
_LAYERS = r"(?:resne[xs]?t|res2net)(\d+)"


def find_misfit(backbone: Mapping[str, object], file: str) -> str | None:
    """What the name of a file contradicts in a backbone's config; None where it says nothing, or nothing else.

    Args:
        file: A path, an address, or an entry of a model zoo such as `torchvision://resnet50`.
    """
    name, kind = file.replace("-", "_").lower(), short_type(backbone)
    if kind in _RESNETS:
        found = re.findall(_LAYERS, name.rpartition("/")[2]) or re.findall(_LAYERS, name)
        depth = backbone.get("depth")
        if found and depth is not None and str(depth) not in found:
            return f"it is of {found[-1]} layers, the backbone has depth={depth}"
        return None
    pattern, sizes = _FAMILIES.get(kind, (None, {}))
    found = re.findall(pattern, name.rpartition("/")[2]) if pattern else []
    if not found:
        return None
    expected = sizes.get(_SIZES.get(found[0], found[0]), {})
    for key, value in expected.items():
        given = backbone.get(key)
        if given is not None and not _agrees(given, value):
            return f"it has {key}={value}, the backbone {key}={given}"
    return None


def _agrees(given: object, value: object) -> bool:
    """Whether a setting is the expected one; stages behind those of the weights are free."""
    if isinstance(given, (list, tuple)) and isinstance(value, list):
        return list(given[: len(value)]) == value
    return given == value
