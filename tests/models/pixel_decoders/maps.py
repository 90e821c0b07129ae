"""Maps that the tests of pixel decoders decode."""

import torch

from mmseg_m2f.structures import FeatureSpec

R50 = FeatureSpec((256, 512, 1024, 2048), (4, 8, 16, 32))
SMALL = FeatureSpec((8, 16, 24, 32), (4, 8, 16, 32))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def feature_maps(spec: FeatureSpec, size: tuple[int, int] = (64, 96)) -> list[torch.Tensor]:
    height, width = size
    levels = zip(spec.channels, spec.strides, strict=True)
    return [torch.randn(2, c, -(-height // stride), -(-width // stride)) for c, stride in levels]
