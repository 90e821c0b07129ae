"""mmdet's preprocessor for images of any number of channels."""

from collections.abc import Sequence

from mmdet.models.data_preprocessors import DetDataPreprocessor

from mmseg_m2f.models.segmentors.channel_values import check_batch, set_channel_values
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class BandDetPreprocessor(DetDataPreprocessor):
    """Normalises and pads images of `num_channels` channels, for detectors. The order of the channels stays.

    Args:
        num_channels: of the images, and so of the backbone's first convolution.
        mean: of each channel, in the values that the images are loaded with; without it, batches are refused.
        std: standard deviation of each channel.
        shown: channels that pictures show as red, green and blue, or one for grey; the first three unless given.
        pad_size_divisor: height and width become multiples of it; the others as in `mmdet.DetDataPreprocessor`.

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
        pad_size_divisor: int = 1,
        pad_value: float | int = 0,
        pad_mask: bool = False,
        mask_pad_value: int = 0,
        pad_seg: bool = False,
        seg_pad_value: int = 255,
        boxtype2tensor: bool = True,
        batch_augments: list[dict] | None = None,
    ) -> None:
        super().__init__(
            pad_size_divisor=pad_size_divisor,
            pad_value=pad_value,
            pad_mask=pad_mask,
            mask_pad_value=mask_pad_value,
            pad_seg=pad_seg,
            seg_pad_value=seg_pad_value,
            boxtype2tensor=boxtype2tensor,
            batch_augments=batch_augments,
        )
        set_channel_values(self, num_channels=num_channels, mean=mean, std=std, shown=shown)

    def forward(self, data: dict, training: bool = False) -> dict:
        """The batch as tensors B C H W with their samples."""
        check_batch(self, data["inputs"])
        return super().forward(data, training)
