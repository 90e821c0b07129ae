"""Maps of several blocks of a plain vision transformer, resized to several strides (Rein, arXiv 2312.04265)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.necks.simple_pyramid import check_scales
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class ResizedPyramid(nn.Module):
    """Resizes each map bilinearly by a scale of its own; learns nothing.

    Args:
        scales: sides of the maps returned relative to the backbone's, descending. The backbone gives one map for each
            scale, or a single one for all.
    """

    def __init__(self, scales: Sequence[int | float] = (4.0, 2.0, 1.0, 0.5)) -> None:
        super().__init__()
        check_scales(scales, known=None, neck="ResizedPyramid")
        self.scales = tuple(scales)

    def forward(self, inputs: Sequence[Float[Tensor, "B _ _ _"]]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """One map per scale, rounded down to whole cells.

        Raises:
            ValueError: the backbone gives another number of maps.
        """
        if len(inputs) not in (1, len(self.scales)):
            raise InvalidValueError(
                f"model.neck (ResizedPyramid): expected one map for each of the scales {self.scales}, or one for all, "
                f"got {len(inputs)}. Set model.backbone.out_indices to {len(self.scales)} blocks."
            )
        maps = list(inputs) * (len(self.scales) // len(inputs))
        return tuple(
            resize_maps(x, (int(x.shape[-2] * scale), int(x.shape[-1] * scale)))
            for x, scale in zip(maps, self.scales, strict=True)
        )
