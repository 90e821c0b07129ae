"""Loading images of any number of channels and bits in a pipeline."""

from collections.abc import Mapping

from mmcv.transforms import BaseTransform

from mmseg_m2f.datasets.band_files import read_bands
from mmseg_m2f.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadBands(BaseTransform):
    """Reads an image with all its channels and bits: NPY, TIFF and whatever else GDAL reads.

    Takes the place of `mmengine.LoadImageFromFile`, which gives 8 bits of three channels. Reads `img_path`, adds `img`
    (H W C, float32, the values and the order of channels in the file), `img_shape` and `ori_shape`. Wrap it in
    `CheckedLoading`.

    Args:
        channels: that each image must have.
        backend_args: of mmengine's file client, for files that are not local.

    Raises:
        ValueError, TypeError: see `read_bands`.
    """

    keeps_bits = True
    """Read by `CheckedLoading`: no value is cut off, and no picture is turned."""

    def __init__(self, *, channels: int, backend_args: Mapping[str, object] | None = None) -> None:
        self.channels = channels
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """`results` with the image."""
        image = read_bands(results["img_path"], channels=self.channels, backend_args=self.backend_args)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results
