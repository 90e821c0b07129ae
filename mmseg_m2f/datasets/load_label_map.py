"""Label maps with the values that their files store."""

import io

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from numpy.typing import NDArray
from PIL import Image

from mmseg_m2f.datasets.stored_pixels import read_stored_pixels
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TRANSFORMS
from mmseg_m2f.structures import IGNORE_INDEX


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Reads a label map as it is stored: grey of 1 to 32 bits, or the indices of a palette.

    Takes the place of `mmseg.LoadAnnotations`, which keeps 8 bits of a value and multiplies those of 2 and 4 bits.
    Reads `seg_map_path`, `reduce_zero_label` and `label_map`, and gives the same as that transform for files of 8
    bits: `gt_seg_map` (H W, uint8; wider integers where a value needs them). Wrap it in `CheckedLoading`.

    Raises:
        ValueError: The file is a JPEG, whose compression changes labels, or a GIF, or has several pages, fractions or
            inverted grey.
    """

    def transform(self, results: dict) -> dict:
        """`results` with the label map."""
        labels = _read_labels(results["seg_map_path"])
        if results.get("reduce_zero_label"):
            labels = np.where((labels == 0) | (labels == IGNORE_INDEX), IGNORE_INDEX, labels - 1)
        label_map = results.get("label_map")
        if label_map is not None:
            stored = labels
            labels = stored.copy()
            for old, new in label_map.items():
                labels[stored == old] = new
        results["gt_seg_map"] = _narrowest(labels)
        results["seg_fields"].append("gt_seg_map")
        return results


def _read_labels(path: str) -> NDArray[np.int64]:
    """H W; H W C where the file has colours, which `CheckedLoading` refuses."""
    stored = read_stored_pixels(path)
    if stored is not None:
        check_label_file(path, keeps_bits=True)
    data = get(path)
    check_sums(data)
    with Image.open(io.BytesIO(data)) as picture:
        labels = np.asarray(picture).astype(np.int64)
    if stored is not None and stored.bits in (2, 4) and not stored.has_palette:
        labels //= 255 // (2**stored.bits - 1)  # Pillow spreads them over 0...255
    return labels


def check_sums(data: bytes) -> None:
    """Compare the checksums in a PNG file, which decoding alone may pass over.

    Raises:
        SyntaxError: as Pillow says that a file is broken; `CheckedLoading` names the file.
    """
    with Image.open(io.BytesIO(data)) as picture:
        picture.verify()


def check_label_file(path: object, *, keeps_bits: bool) -> None:
    """Refuse what cannot hold labels.

    Args:
        keeps_bits: Whether the loader keeps values of any number of bits.

    Raises:
        ValueError: A lossy format, GIF, several pages, fractions, inverted grey, or bits that the reader does not keep.
    """
    stored = read_stored_pixels(path)
    if stored is None:
        return
    fault = None
    if stored.is_lossy:
        fault = f"{stored.format}, whose compression changes values between classes. Export the labels anew as PNG"
    elif stored.format == "GIF":
        fault = "GIF, whose writers number the colours anew. Export the labels as PNG"
    elif stored.num_pages > 1:
        fault = f"{stored.num_pages} pages. Save the one that belongs to the image as PNG"
    elif stored.is_float:
        fault = "floating-point values. Save class indices as integers"
    elif stored.is_inverted:
        fault = "grey with white as 0, of which it is not known whether the labels are meant so. Save it as PNG"
    elif not keeps_bits and (stored.bits > 8 or (stored.bits in (2, 4) and not stored.has_palette)):
        fault = (
            f"{stored.bits} bits, which mmseg.LoadAnnotations does not keep. Load it with mmseg_m2f.LoadLabelMap, or "
            "save it with 8 bits"
        )
    if fault is not None:
        raise InvalidValueError(f"Label {path}: expected class indices as they were stored, got {fault}.")


def _narrowest(labels: NDArray[np.int64]) -> NDArray[np.integer]:
    """In the narrowest of the integers that transforms can move: uint8, uint16 or int32."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    return labels.astype(np.int32 if low < 0 or high >= 2**16 else np.uint16 if high >= 2**8 else np.uint8)
