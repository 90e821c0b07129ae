"""Simple feature pyramid of ViTDet (arXiv 2203.16527, section 3): maps of several strides from one map.

Written from the paper and the layer sizes of the release. Deviation: no fifth map, which serves region proposals alone.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.channel_norm import ChannelNorm
from mmseg_m2f.registry import MODELS

_EPS = 1e-6


@MODELS.register_module()
class SimplePyramid(nn.Module):
    """Resamples the last map of a plain vision transformer to several strides; there are no lateral connections.

    Each scale: transposed convolutions 2×2 (×2: one, ×4: two with norm and GELU between), nothing, or max pooling 2×2;
    then a convolution 1×1 and one 3×3, each with a norm over the channels. On an odd grid the map of scale ½ has
    ⌊h/2⌋ × ⌊w/2⌋ cells.

    Args:
        in_channels: D, of the backbone's last map; a multiple of 4.
        channels: C, of all maps returned.
        scales: sides of the maps relative to the backbone's map, descending, out of 4, 2, 1 and ½.
    """

    def __init__(
        self, in_channels: int, *, channels: int = 256, scales: Sequence[int | float] = (4.0, 2.0, 1.0, 0.5)
    ) -> None:
        super().__init__()
        if in_channels % 4:
            raise InvalidValueError(
                f"model.neck (SimplePyramid): in_channels is halved twice, expected a multiple of 4, got {in_channels}."
            )
        check_scales(scales, known=(4, 2, 1, 0.5), neck="SimplePyramid")
        self.in_channels = in_channels
        self.stages = nn.ModuleList(_stage(in_channels, channels, scale) for scale in scales)

    def forward(self, inputs: Sequence[Float[Tensor, "B _ _ _"]]) -> tuple[Float[Tensor, "B C _ _"], ...]:
        """One map per scale, from the last of the backbone's maps.

        Raises:
            ValueError: the map has another number of channels.
        """
        channels = inputs[-1].shape[1]
        if channels != self.in_channels:
            raise InvalidValueError(
                f"model.neck (SimplePyramid): expected maps of in_channels={self.in_channels}, got {channels} from the "
                f"backbone. Set model.neck.in_channels={channels}."
            )
        return tuple(stage(inputs[-1]) for stage in self.stages)


def check_scales(scales: Sequence[int | float], *, known: Sequence[int | float] | None, neck: str) -> None:
    """Refuse scales that do not descend, are not positive, or are not among the known ones."""
    wrong = not scales or list(scales) != sorted(set(scales), reverse=True) or scales[-1] <= 0
    if wrong or (known is not None and not set(scales) <= set(known)):
        allowed = "numbers above 0" if known is None else ", ".join(f"{scale:g}" for scale in known)
        raise InvalidValueError(
            f"model.neck ({neck}): expected scales in descending order out of {allowed}, got {tuple(scales)}."
        )


def _stage(in_channels: int, channels: int, scale: int | float) -> nn.Sequential:
    resampling, width = _resampling(in_channels, scale)
    return nn.Sequential(
        *resampling,
        nn.Conv2d(width, channels, 1, bias=False),
        ChannelNorm(channels, eps=_EPS),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        ChannelNorm(channels, eps=_EPS),
    )


def _resampling(channels: int, scale: int | float) -> tuple[list[nn.Module], int]:
    """The layers that change the size of a map, and its channels afterwards."""
    if scale == 0.5:
        return [nn.MaxPool2d(2)], channels
    if scale == 1:
        return [], channels
    half, quarter = channels // 2, channels // 4
    double: list[nn.Module] = [nn.ConvTranspose2d(channels, half, 2, stride=2)]
    if scale == 2:
        return double, half
    more = [ChannelNorm(half, eps=_EPS), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, stride=2)]
    return [*double, *more], quarter
