"""Predictions for a video: a video with the results drawn over its frames, and the results as files."""

import os
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from mmseg_m2f.errors import InvalidValueError, ResourceError
from mmseg_m2f.files import save_png, unfinished_file
from mmseg_m2f.inference.folder import check_drawing, predict_pixels
from mmseg_m2f.inference.image_streams import VIDEO_SUFFIXES, open_video
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.predictions.file_names import ImageName
from mmseg_m2f.predictions.palettes import Categories
from mmseg_m2f.predictions.result_files import ImageRecord, write_maps, write_records
from mmseg_m2f.visualization import annotate, legend
from mmseg_m2f.visualization.sheets import MOST_IN_LEGEND


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a video, by its suffix."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def predict_video(
    predictor: Predictor,
    video: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    opacity: float = 0.6,
    score_threshold: float = 0.5,
) -> list[str]:
    """Write `<name>.mp4`, the frames with the results drawn over them, and what the model predicts as files.

    The files are those of `predict_folder`: `labels/<name>/000000.png` and so on, `panoptic/<name>/`, `panoptic.json`
    and `instances.json`, in which a frame is called `VIDEO#FRAME`, counted from 0. The legend stands below each frame;
    that of more than 24 classes is `<name>_legend.png`. Frames are decoded, predicted and written one after the other.
    When the user interrupts, the files hold the frames so far, and there is no video.

    Args:
        opacity: Of the class colours over the frames, 0...1.
        score_threshold: Objects with a lower score are not drawn; `instances.json` lists them all.

    Returns:
        What was wrong: frames at the end that could not be decoded.

    Raises:
        FileNotFoundError: `video` does not exist.
        ValueError: OpenCV decodes no frame, `opacity` or `score_threshold` is out of range, or the model cannot predict
            frames of this size.
    """
    check_drawing(opacity, score_threshold)
    opened = open_video(Path(video))
    folder, stem, name = Path(out_dir), Path(video).stem, Path(video).name
    categories = Categories(predictor.classes, predictor.palette, predictor.category_ids)
    short = len(categories.names) <= MOST_IN_LEGEND
    records: list[ImageRecord] = []
    try:
        with unfinished_file(folder / f"{stem}.mp4") as file:
            with closing(_Writer(file, opened.frames_per_second)) as pages:
                for pixels in tqdm(opened.frames, total=opened.length, unit="frame"):
                    number = len(records)
                    result = predict_pixels(predictor, pixels, f"{video}, frame {number},")
                    page = annotate(
                        np.ascontiguousarray(pixels[..., ::-1]),
                        result,
                        categories.names,
                        categories.palette,
                        opacity=opacity,
                        score_threshold=score_threshold,
                        with_legend=short,
                    )
                    pages.add(page)
                    frame = ImageName(f"{stem}/{number:06}.png", f"{name}#{number}", f"{name}#{number}")
                    records.append(write_maps(result, folder, name=frame, categories=categories))
            _check_written(file, len(records))
        if not short:
            save_png(legend(categories.names, categories.palette, width=page.width), folder / f"{stem}_legend.png")
    finally:
        write_records(records, folder, categories=categories)
    fault = opened.fault(len(records))
    return [] if fault is None else [fault]


class _Writer:
    """Pages of one size as frames of an MPEG-4 video; opened with the first."""

    def __init__(self, file: Path, frames_per_second: float) -> None:
        self.file, self.frames_per_second = file, frames_per_second
        self.writer: cv2.VideoWriter | None = None

    def add(self, page: Image.Image) -> None:
        """Append a page.

        Raises:
            ValueError: OpenCV cannot write such videos here.
        """
        picture: UInt8[np.ndarray, "H W 3"] = np.asarray(page.convert("RGB"))[..., ::-1]
        height, width = picture.shape[:2]
        if self.writer is None:
            size = (width + width % 2, height + height % 2)  # encoders want even sides
            self.writer = cv2.VideoWriter(str(self.file), cv2.VideoWriter.fourcc(*"mp4v"), self.frames_per_second, size)
            if not self.writer.isOpened():
                raise InvalidValueError(
                    f"{self.file}: expected an OpenCV that writes MPEG-4 videos, got one that does not. Install "
                    "opencv-python-headless from PyPI, or predict the frames as images."
                )
        self.writer.write(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.release()


def _check_written(file: Path, count: int) -> None:
    """OpenCV says nothing where a disk is full."""
    written = open_video(file).length
    if written != count:
        raise ResourceError(
            f"{file.parent}: expected a video of {count} frames, got one of {written}. Free some disk space, or choose "
            "another folder (--out-dir)."
        )
