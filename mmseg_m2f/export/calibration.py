"""Images of a folder as inputs of an exported file: through the test pipeline of the config, or as they are."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray

from mmseg_m2f.engine.trained_model import TrainedModel, test_transforms
from mmseg_m2f.errors import MissingFileError
from mmseg_m2f.runtime.export_record import Output
from mmseg_m2f.samples import valid_pixels

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class ImageSource:
    """The images of a folder, one by one, in order of their names.

    Args:
        folder: Searched with its subfolders.
        output: For files of "logits", images are resized, normalised and padded; for "full" ones they stay as read.
        size: Images of another prepared size are left out; None takes all.
        with_valid: Whether the file has the input `valid`.
        most: How many images.

    Raises:
        FileNotFoundError: The folder has no image.
    """

    def __init__(
        self,
        trained: TrainedModel,
        cfg: Config,
        folder: str | Path,
        *,
        output: Output = "logits",
        size: tuple[int, int] | None = None,
        with_valid: bool = False,
        most: int = 100,
    ) -> None:
        self._files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not self._files:
            raise MissingFileError(
                f"--calibration {folder}: expected a folder of images ({', '.join(_SUFFIXES)}), got "
                "none. Correct the path."
            )
        self._load, self._transforms = test_transforms(cfg, trained.dataset)
        self._model, self._output, self._size = trained.model, output, size
        self._with_valid, self._most = with_valid, most

    def batches(self) -> Iterator[dict[str, NDArray]]:
        """Inputs of the file, one image each."""
        return islice((inputs for inputs in map(self._read, self._files) if inputs is not None), self._most)

    @torch.no_grad()
    def _read(self, path: Path) -> dict[str, NDArray] | None:
        image = self._load(dict(img_path=str(path), seg_fields=[]))["img"]
        if self._output == "full":
            found = dict(images=np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
        else:
            size = image.shape[:2]
            packed = self._transforms(dict(img=image, img_shape=size, ori_shape=size, seg_fields=[]))
            prepared = cast(Any, self._model).data_preprocessor(pseudo_collate([packed]), False)
            inputs = prepared["inputs"]
            found = dict(images=inputs.numpy())
            if self._with_valid:
                height, width = inputs.shape[-2:]
                valid = valid_pixels(prepared["data_samples"], (height, width), inputs)
                found["valid"] = np.ones((1, height, width), np.bool_) if valid is None else valid.numpy()
        if self._size is not None and found["images"].shape[2:] != tuple(self._size):
            return None
        return found
