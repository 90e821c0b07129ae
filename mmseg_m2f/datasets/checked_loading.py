"""Loading an image and its label, with errors that name the file."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
from mmcv.transforms import BaseTransform
from PIL import Image
from torch.utils.data import get_worker_info

from mmseg_m2f.datasets.load_label_map import check_label_file
from mmseg_m2f.datasets.stored_pixels import StoredPixels, read_stored_pixels
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.registry import TRANSFORMS

Loader: TypeAlias = Callable[[dict], dict | None]

# What Pillow and OpenCV raise on a broken file. OpenCV may also give None: mmcv asserts on that, and mmseg takes
# an attribute of it.
_DECODE_ERRORS = (OSError, SyntaxError, cv2.error, MemoryError, Image.DecompressionBombError)
_NONE_ERRORS = (AssertionError, AttributeError)
_NONE_SIGNS = ("failed to load image", "'NoneType' object")
_TAIL_BYTES = 4096
_ORIENTATION_KEY = "unclear_exif_orientation"  # in the sample, from its image to its label
_END_MARKS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


@TRANSFORMS.register_module()
class CheckedLoading(BaseTransform):
    """Runs the loading transforms and says which file is missing, truncated or of the wrong kind.

    OpenCV decodes a truncated JPEG to an image that is grey from some row on; such a file is refused as well,
    at the price of reading its last 4 KB twice. Files on remote storage are checked for what their decoders say.
    Images of 16 bits are read as their upper bytes (value // 256) by OpenCV; the dark images that 12 bits or fewer give
    are warned about once. `LoadBands` among the transforms keeps all bits and channels.

    Args:
        transforms: The loading transforms, as configs or callables; the image before its label.

    Raises:
        FileNotFoundError: The image or the label is missing.
        ValueError: A file cannot be decoded; the image has another size than its annotation says (`height`, `width`
            of the sample), several pages, floating-point or 32-bit values, 16 bits that its decoder cuts off, or an
            EXIF orientation of which the annotation does not tell whether it is meant for the stored or the upright
            image; or the label has colours instead of class indices, a lossy format or another size than the image.
    """

    def __init__(self, transforms: Sequence[Mapping[str, object] | Loader]) -> None:
        self.transforms = [t if callable(t) else TRANSFORMS.build(t) for t in transforms]
        self._said_dark = False

    def transform(self, results: dict) -> dict:
        """`results` with what the loading transforms add: `img` (H W 3), `gt_seg_map` (H W)."""
        loads_image, loads_label = "img" not in results, "gt_seg_map" not in results
        stored = read_stored_pixels(results.get("img_path")) if loads_image else None
        for loader in self.transforms:
            if "img" not in results:
                _check_bits(loader, stored, results.get("img_path"))
            elif type(loader).__name__ == "LoadAnnotations":
                check_label_file(results.get("seg_map_path"), keeps_bits=False)
            results = _load(loader, results)
            if loads_image and "img" in results and _ORIENTATION_KEY not in results:
                results[_ORIENTATION_KEY] = _unclear_orientation(loader, stored, results)
        if loads_image:
            _check_complete("image", results.get("img_path"))
            self._warn_if_dark(stored, results)
            _check_image(results)
        if loads_label and "gt_seg_map" in results:
            _check_complete("label", results.get("seg_map_path"))
            _check_label(results)
        return results

    def _warn_if_dark(self, stored: StoredPixels | None, results: Mapping) -> None:
        """Warn about 16-bit files that use the lower 12 bits alone, as cameras and microscopes write them."""
        pixels, worker = results["img"], get_worker_info()
        if self._said_dark or (worker is not None and worker.id):  # the first of several workers speaks
            return
        if stored is None or stored.bits != 16 or pixels.dtype != "uint8" or pixels.max(initial=0) >= 16:
            return
        self._said_dark = True
        warnings.warn(
            f"Image {results.get('img_path')} has 16 bits but no value above 4095, and is read as value // 256, almost "
            "black; others may be as dark. Save such images with 8 bits, all scaled by the same factor.",
            stacklevel=3,
        )

    def __repr__(self) -> str:
        return f"CheckedLoading(transforms={self.transforms})"


def _load(loader: Loader, results: dict) -> dict:
    kind, key = ("label", "seg_map_path") if "img" in results else ("image", "img_path")
    path = results.get(key)
    try:
        loaded = loader(results)
    except FileNotFoundError as error:
        raise MissingFileError(_missing_message(kind, path, results)) from error
    except _DECODE_ERRORS as error:
        raise InvalidValueError(_undecodable_message(kind, path, str(error))) from error
    except _NONE_ERRORS as error:
        if not any(sign in str(error) for sign in _NONE_SIGNS):
            raise
        raise InvalidValueError(_undecodable_message(kind, path, "the decoder gave no image")) from error
    if loaded is None:
        raise InvalidValueError(_undecodable_message(kind, path, f"{type(loader).__name__} gave nothing"))
    return loaded


def _check_complete(kind: str, path: object) -> None:
    """Raise where a local JPEG or PNG lacks its end, although a decoder took it."""
    if not isinstance(path, (str, Path)) or not os.path.isfile(path):
        return
    end_mark = _END_MARKS.get(Path(path).suffix.lower())
    if end_mark is None:
        return
    with open(path, "rb") as file:
        file.seek(max(os.path.getsize(path) - _TAIL_BYTES, 0))
        if end_mark in file.read():
            return
    # Without its end in the last bytes, the file is truncated or has a long appendix: Pillow decides.
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError) as error:
        raise InvalidValueError(_undecodable_message(kind, path, str(error))) from error


def _check_bits(loader: Loader, stored: StoredPixels | None, path: object) -> None:
    """Raise where the decoder would cut values off instead of scaling them."""
    if stored is None or getattr(loader, "keeps_bits", False):
        return
    if stored.format == "TIFF" and stored.num_pages > 1 and type(loader).__name__ == "LoadImageFromFile":
        raise InvalidValueError(
            f"Image {path}: expected one picture, got a TIFF file with {stored.num_pages} pages, of which the first "
            "alone would be read. Save each page that you mean as a file of its own."
        )
    cut_off = getattr(loader, "imdecode_backend", None) == "pillow" and stored.bits == 16 and stored.is_grey
    if stored.is_float or stored.bits > 16 or cut_off:
        kind = "floating-point" if stored.is_float else "integer"
        by_decoder = (
            ', or read their upper bytes with imdecode_backend="cv2"' if cut_off and not stored.is_float else ""
        )
        raise InvalidValueError(
            f"Image {path}: expected channels of 8 bits, got {stored.bits} bits {kind}, which the decoder cuts off at "
            f"255. Save the images with 8 bits, all scaled by the same factor{by_decoder}."
        )


def _check_image(results: Mapping) -> None:
    """Raise where a dataset with a list of images gives another size than the file has."""
    path = results.get("img_path")
    if "instances" in results or "segments_info" in results:
        _check_orientation(results)
    if "height" not in results or "width" not in results:
        return
    size, annotated = results["img"].shape[:2], (results["height"], results["width"])
    if size != annotated:
        raise InvalidValueError(
            f"Image {path} is {_size(size)}, but its annotation is for {_size(annotated)}; expected the same height "
            f"and width.{_rotation_hint(path)} Annotate the image in this size, or correct height and width."
        )


def _unclear_orientation(loader: Loader, stored: StoredPixels | None, results: Mapping) -> int:
    """The EXIF orientation of a turned image whose size does not tell what an annotation is meant for; else 1."""
    as_stored = "ignore_orientation" in str(getattr(loader, "color_type", "")) or getattr(loader, "keeps_bits", False)
    if stored is None or as_stored:
        return 1
    height, width = results["img"].shape[:2]
    return 1 if stored.is_sideways and height != width else stored.orientation


def _check_orientation(results: Mapping) -> None:
    orientation = results.get(_ORIENTATION_KEY, 1)
    if orientation != 1:
        raise InvalidValueError(
            f"Image {results.get('img_path')} has EXIF orientation {orientation}; expected 1 (upright), because it is "
            "loaded upright, and its size does not tell whether its annotation was made so or for the pixels as they "
            "are stored. Annotated upright (as viewers show it): save the image anew with Pillow's "
            "ImageOps.exif_transpose. Annotated as stored: remove the tag, or give mmengine.LoadImageFromFile "
            "color_type='color_ignore_orientation'."
        )


def _rotation_hint(path: object) -> str:
    """What to say about an image whose EXIF tag says that it is stored rotated."""
    stored = read_stored_pixels(path)
    if stored is None or stored.orientation == 1:
        return ""
    return (
        f" The file is stored rotated (EXIF orientation {stored.orientation}): loading turns it upright, unless "
        "mmengine.LoadImageFromFile has color_type='color_ignore_orientation'. Choose what was annotated."
    )


def _check_label(results: Mapping) -> None:
    label, path = results["gt_seg_map"], results.get("seg_map_path")
    if label.ndim != 2:
        raise InvalidValueError(
            f"Label {path}: expected one channel of class indices (H W), got shape {tuple(label.shape)}. It is "
            "probably drawn in colours: convert it to indices 0...K-1 (single-channel or palette PNG)."
        )
    size = results.get("ori_shape")  # as loaded: the image may have been resized since
    if size is not None and label.shape == tuple(size[:2]):
        _check_orientation(results)
    elif size is not None:
        raise InvalidValueError(
            f"Label {path} is {_size(label.shape)}, but image {results.get('img_path')} is {_size(size)}; "
            f"expected the same height and width.{_rotation_hint(results.get('img_path'))} Check that the two belong "
            "together, or resize the label with nearest neighbour."
        )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]} (height x width)"


def _missing_message(kind: str, path: object, results: Mapping) -> str:
    partner = f" for image {results.get('img_path')}" if kind == "label" else ""
    return (
        f"{kind.capitalize()} {path}{partner} does not exist (working directory {os.getcwd()}); expected a file. "
        "Check data_root, data_prefix and the suffixes in the dataset config."
    )


def _undecodable_message(kind: str, path: object, reason: str) -> str:
    exists = isinstance(path, (str, Path)) and os.path.isfile(path)
    size = f"{os.path.getsize(path):,} bytes" if exists else "size unknown"  # type: ignore[arg-type]
    reason = reason.partition("\n")[0].rstrip(". ")
    return (
        f"{kind.capitalize()} {path} ({size}) cannot be decoded: {reason}. Expected a complete image file; it is "
        "truncated or of another format. Copy it again, or remove it and its partner from the dataset."
    )
