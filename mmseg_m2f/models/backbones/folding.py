"""Convolution and batch norm as one convolution, for inference."""

from collections import Counter
from collections.abc import Sequence

import torch
from mmengine.utils.dl_utils.parrots_wrapper import SyncBatchNorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.matrix_products import PointwiseConv
from mmseg_m2f.models.backbones.frozen_norm import FrozenBN

# Exactly these: a subclass may do more than its base; timm's norms, for example, may end in an activation.
_CONVS = (nn.Conv2d, PointwiseConv)
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm, FrozenBN)
_PROBE_SIZE = 64


@torch.no_grad()
def fold_norms(backbone: nn.Module) -> int:
    """Fold batch norms into the convolutions before them, in place: `W' = W · γ / σ`, `b' = (b - μ) · γ / σ + β`.

    One run on noise records which convolution feeds which norm. Outputs stay the same up to rounding. The backbone must
    be in evaluation mode; it cannot be trained afterwards, and its weights contain no norms.

    Returns:
        How many norms were folded.

    Raises:
        ValueError: outputs change, for example because another module also reads the convolution's output; the backbone
            is left as it was.
    """
    if not any(type(module) in _NORMS for module in backbone.modules()):
        return 0
    like = next(backbone.parameters())
    channels = next(module.in_channels for module in backbone.modules() if isinstance(module, nn.Conv2d))
    noise = torch.randn(1, channels, _PROBE_SIZE, _PROBE_SIZE, generator=torch.Generator().manual_seed(0)).to(like)
    pairs, expected = _fed_norms(backbone, noise)
    parents = {child: (parent, name) for parent in backbone.modules() for name, child in parent.named_children()}
    for conv, norm in pairs:
        _replace(parents, conv, fuse_conv_bn_eval(conv, norm))
        _replace(parents, norm, nn.Identity())
    if not _are_close(backbone(noise), expected):
        for module in (module for pair in pairs for module in pair):
            _replace(parents, module, module)
        raise InvalidValueError(
            f"fold_norms: {type(backbone).__name__} returns other maps after folding: not only a norm reads the "
            "output of a convolution. Leave fold_norms out."
        )
    return len(pairs)


def _fed_norms(backbone: nn.Module, images: Tensor) -> tuple[list[tuple[nn.Conv2d, _BatchNorm]], Sequence[Tensor]]:
    """Pairs of a convolution and the norm that reads its output, each called once; and the backbone's maps."""
    # The tensors are kept, so that no other gets their id; the version tells those that were changed in place.
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []
    calls: Counter[nn.Module] = Counter()

    def after_conv(conv: nn.Conv2d, _: tuple, output: Tensor) -> None:
        made[id(output)] = (conv, output, output._version)
        calls[conv] += 1

    def before_norm(norm: _BatchNorm, inputs: tuple) -> None:
        conv, _, version = made.get(id(inputs[0]), (None, None, None))
        if conv is not None and inputs[0]._version == version:
            pairs.append((conv, norm))
        calls[norm] += 1

    handles = [module.register_forward_hook(after_conv) for module in backbone.modules() if type(module) in _CONVS]
    handles += [
        module.register_forward_pre_hook(before_norm) for module in backbone.modules() if type(module) in _NORMS
    ]
    try:
        maps = backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if all(calls[module] == 1 for module in pair)], maps


def _replace(parents: dict[nn.Module, tuple[nn.Module, str]], module: nn.Module, replacement: nn.Module) -> None:
    parent, name = parents[module]
    parent._modules[name] = replacement


def _are_close(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all((a - e).norm() <= 1e-4 * e.norm() for a, e in zip(actual, expected, strict=True))
