"""mmseg's preprocessor for images of any number of channels."""

from collections.abc import Sequence

from mmseg.models.data_preprocessor import SegDataPreProcessor

from mmseg_m2f.models.segmentors.channel_values import check_batch, set_channel_values
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class BandSegPreProcessor(SegDataPreProcessor):
    """Normalises and pads images of `num_channels` channels, for segmentors. The order of the channels stays.

    Args:
        num_channels: of the images, and so of the backbone's first convolution.
        mean: of each channel, in the values that the images are loaded with; without it, batches are refused.
        std: standard deviation of each channel.
        shown: channels that pictures show as red, green and blue, or one for grey; the first three unless given.
        size: height and width that training images are padded to; the others as in `mmseg.SegDataPreProcessor`.

    Raises:
        ValueError: see `set_channel_values`; later, images of another number of channels.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        mean: Sequence[float | int] | None = None,
        std: Sequence[float | int] | None = None,
        shown: Sequence[int] | None = None,
        size: tuple[int, int] | None = None,
        size_divisor: int | None = None,
        pad_val: float | int = 0,
        seg_pad_val: int = 255,
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            size=size, size_divisor=size_divisor, pad_val=pad_val, seg_pad_val=seg_pad_val, test_cfg=test_cfg
        )
        set_channel_values(self, num_channels=num_channels, mean=mean, std=std, shown=shown)

    def forward(self, data: dict, training: bool = False) -> dict:
        """The batch as tensors B C H W with their samples."""
        check_batch(self, data["inputs"])
        return super().forward(data, training)
