"""Feature reconstruction of ECENet (arXiv 2308.12894, section 3.4), after the released inference code (Apache-2.0).

The paper describes a squeeze-and-excitation block; the released gate has no sigmoid. `gate_act="sigmoid"` adds it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from mmcv.cnn import build_norm_layer
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.channel_norm import ChannelNorm
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class FeatureReconstruction(BaseModule):
    """Replaces each map x by `norm(fuse([g(d) · d, y]))` of the same shape.

    y is a projection of x to half its channels, d a depth-wise convolution of y, and g a gate per channel, computed
    from the mean of d. `SpatialDiversityLoss` on `g(d) · d`, the second maps of `reconstruct`, trains the channels to
    differ; `ExplicitClassHead` applies it. As a neck alone the module gets no such loss.

    Args:
        in_channels: of the maps, fine to coarse; multiples of 4.
        gate_act: "sigmoid" bounds the gate of the channels; None leaves it linear, as released.
        norm_cfg: batch norm unless given.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        gate_act: str | None = None,
        norm_cfg: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__()
        if any(channels % 4 for channels in in_channels):
            raise InvalidValueError(
                f"FeatureReconstruction: in_channels are halved twice, expected multiples of 4, got {[*in_channels]}. "
                "Put a neck with such channels in front, for instance mmseg.FPN."
            )
        if gate_act not in (None, "sigmoid"):
            raise InvalidValueError(f"FeatureReconstruction: gate_act must be 'sigmoid' or None, got {gate_act!r}.")
        norm_cfg = norm_cfg or dict(type="BN")
        self.levels = nn.ModuleList(_Reconstruction(channels, gate_act, norm_cfg) for channels in in_channels)

    def forward(self, inputs: Sequence[Float[Tensor, "B _ _ _"]]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The rebuilt maps."""
        return tuple(rebuilt for rebuilt, _ in self.reconstruct(inputs))

    def reconstruct(
        self, inputs: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[tuple[Float[Tensor, "B C H W"], Float[Tensor, "B C2 H W"]]]:
        """For each map, the rebuilt one and its diverse half `g(d) · d`."""
        return [level(x) for level, x in zip(self.levels, inputs, strict=True)]


class _Reconstruction(nn.Module):
    def __init__(self, channels: int, gate_act: str | None, norm_cfg: ConfigDict | dict) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.intrinsic = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), build_norm_layer(norm_cfg, half)[1])
        self.diverse = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1, groups=half), build_norm_layer(norm_cfg, half)[1]
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(half, quarter, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(quarter, half, 1, bias=False),
            nn.Sigmoid() if gate_act else nn.Identity(),
        )
        self.fuse = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = ChannelNorm(channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B C2 H W"]]:
        intrinsic = self.intrinsic(x)
        diverse = self.diverse(intrinsic)
        diverse = self.gate(diverse) * diverse
        return self.norm(self.fuse(torch.cat([diverse, intrinsic], 1))), diverse
