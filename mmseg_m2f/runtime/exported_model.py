"""An exported file that is ready to run, and what it refuses."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.runtime.export_record import ExportRecord
from mmseg_m2f.runtime.sessions import open_session

#: Of exported files: ONNX, torch.export, OpenVINO.
SUFFIXES = (".onnx", ".pt2", ".xml")


def is_exported(path: object) -> bool:
    """Whether a path names an exported file, by its suffix."""
    return isinstance(path, str | os.PathLike) and Path(path).suffix.lower() in SUFFIXES


class ExportedModel:
    """A file of `tools/export.py` as a function of arrays.

    Args:
        path: `.onnx`, `.pt2` or `.xml` (OpenVINO, with its `.bin` beside it).
        device: "cpu", or "cuda" where the runtime has it.
        threads: Of the runtime; its own choice unless given.

    Attributes:
        record: What the file says about itself.

    Raises:
        FileNotFoundError: There is no such file, or the weights of an OpenVINO file are missing.
        ValueError: Another suffix, no file of `tools/export.py`, or the runtime is missing.
    """

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cpu", threads: int | None = None) -> None:
        self.path = Path(path)
        if not is_exported(self.path):
            raise InvalidValueError(f"{path}: expected an exported file ({', '.join(SUFFIXES)}). Correct the path.")
        if not self.path.is_file():
            raise MissingFileError(
                f"Exported file {path} does not exist (working directory {os.getcwd()}). Correct the path."
            )
        self._session = open_session(self.path, device=device, threads=threads)
        self.record = ExportRecord.from_json(self._session.metadata, file=str(path))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return self._session.outputs

    def __call__(self, images: NDArray, valid: NDArray | None = None) -> dict[str, NDArray]:
        """The outputs by their names.

        Args:
            images: B C H W; float32, normalised and padded, for files of logits, or uint8 BGR for full ones.
            valid: B H W, True for pixels of the image; all by default.

        Raises:
            ValueError: Another type, layout, number of channels or size than the file takes, or padding that a file
                without the input `valid` would take for image.
            RuntimeError: The runtime fails, for example for lack of memory.
        """
        self._check_images(images)
        if valid is not None:
            self._check_valid(images, valid)
        arrays = dict(images=np.ascontiguousarray(images))
        if self.record.reads_valid:
            arrays["valid"] = np.ones((images.shape[0], *images.shape[2:]), np.bool_) if valid is None else valid
        return self._session(arrays)

    def _check_valid(self, images: NDArray, valid: NDArray) -> None:
        record, wanted = self.record, (images.shape[0], *images.shape[2:])
        if valid.dtype != np.bool_ or valid.shape != wanted:
            raise InvalidValueError(
                f"{self.path}: valid: expected bool of shape {wanted}, got {valid.dtype} of shape {valid.shape}. Give "
                "True for each pixel of the images and False for padding."
            )
        if not (record.reads_valid or record.ignores_padding or valid.all()):
            raise InvalidValueError(
                f"{self.path}: expected images without padding, because the file has no input `valid` and would take "
                f"padding for image, got {1 - valid.mean():.1%} padding. Give images of one size at a time, or export "
                "the MaskDetector that reads `valid`."
            )

    def _check_images(self, images: NDArray) -> None:
        record = self.record
        wanted = np.float32 if record.output == "logits" else np.uint8
        where = f"{self.path}: images"
        if images.dtype != wanted:
            raise InvalidValueError(
                f"{where}: expected {np.dtype(wanted)}, got {images.dtype}. Files of logits take "
                "normalised float32, full "
                "files take uint8 as read from disk."
            )
        if images.ndim != 4 or images.shape[1] != record.input_channels:
            raise InvalidValueError(
                f"{where}: expected B {record.input_channels} H W, got shape {images.shape}. Move the channels to the "
                "second axis, and add one for the batch."
            )
        height, width = images.shape[2:]
        if record.size is not None and (height, width) != tuple(record.size):
            raise InvalidValueError(
                f"{where}: expected the size that the file was exported for, {record.size[0]} x {record.size[1]} "
                f"(height x width), got {height} x {width}. Resize the images, or export with --dynamic."
            )
        if record.batch is not None and images.shape[0] != record.batch:
            raise InvalidValueError(
                f"{where}: expected {record.batch} at once, got {images.shape[0]}. Export with "
                "--dynamic for any number."
            )
        if height % record.multiple or width % record.multiple:
            raise InvalidValueError(
                f"{where}: expected a height and width that are multiples of {record.multiple}, the patch size, got "
                f"{height} x {width}. Pad or resize them."
            )
