import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.errors import ResourceError
from mmseg_m2f.inference import video as module
from mmseg_m2f.inference.image_streams import Video
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.inference.video import is_video, predict_video
from mmseg_m2f.visualization import annotate
from tests.inference.bright_objects import detector_config

FRAMES = 4


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Dark, with a bright rectangle that goes down."""
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 5, (48, 32))
    for number in range(FRAMES):
        pixels = np.full((32, 48, 3), 20, dtype=np.uint8)
        pixels[4 * number : 4 * number + 12, 10:30] = 220
        writer.write(pixels)
    writer.release()
    return tmp_path / "film.avi"


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    found = []
    while (frame := capture.read())[0]:
        found.append(frame[1])
    return found


def test_predict_video__draws_each_frame_and_writes_its_labels(
    predictor: Predictor, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict_video(predictor, film, tmp_path / "out", opacity=0.5) == []
    assert f"{FRAMES}/{FRAMES}" in capsys.readouterr().err  # the progress bar
    inputs, drawn = frames_of(film), frames_of(tmp_path / "out/film.mp4")
    assert len(inputs) == len(drawn) == FRAMES
    for number, (pixels, frame) in enumerate(zip(inputs, drawn, strict=True)):
        result = predictor(pixels)
        with Image.open(tmp_path / f"out/labels/film/{number:06}.png") as label:
            np.testing.assert_array_equal(np.asarray(label), result.semantic)
        page = annotate(pixels[..., ::-1].copy(), result, predictor.classes, predictor.palette, opacity=0.5)
        expected = np.asarray(page)[..., ::-1].astype(int)
        assert np.abs(frame[: page.height, : page.width] - expected).mean() < 8  # MPEG-4 loses some
    assert cv2.VideoCapture(str(tmp_path / "out/film.mp4")).get(cv2.CAP_PROP_FPS) == 5


def test_predict_video__objects_name_their_frame(film: Path, tmp_path: Path) -> None:
    assert predict_video(Predictor(detector_config()), film, tmp_path / "out") == []
    found = json.loads((tmp_path / "out/instances.json").read_text())
    assert [entry["image_id"] for entry in found] == [f"film.avi#{number}" for number in range(FRAMES)]
    panoptic = json.loads((tmp_path / "out/panoptic.json").read_text())
    assert [entry["file_name"] for entry in panoptic["annotations"]] == [f"film/00000{i}.png" for i in range(FRAMES)]


def test_predict_video__long_legend_stands_beside_it(predictor: Predictor, film: Path, tmp_path: Path) -> None:
    heights = {}
    for count in (2, 30):
        predictor.classes, predictor.palette = tuple(map(str, range(count))), [(9, 9, 9)] * count
        predictor.category_ids = tuple(range(count))
        predict_video(predictor, film, tmp_path / str(count))
        heights[count] = frames_of(tmp_path / f"{count}/film.mp4")[0].shape[0]
    assert heights[30] < heights[2]
    assert not (tmp_path / "2/film_legend.png").exists()
    with Image.open(tmp_path / "30/film_legend.png") as legend:
        assert legend.width >= 240


def test_predict_video__says_what_is_wrong(predictor: Predictor, film: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"broken.mp4 \(8 bytes\): expected a video that OpenCV decodes"):
        predict_video(predictor, tmp_path / "broken.mp4", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"none.mp4: expected a video, got no file"):
        predict_video(predictor, tmp_path / "none.mp4", tmp_path / "out")
    with pytest.raises(ValueError, match=r"opacity is 2.0"):
        predict_video(predictor, film, tmp_path / "out", opacity=2.0)
    assert not (tmp_path / "out").exists()


def test_predict_video__names_frames_that_are_missing(
    predictor: Predictor, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_video", lambda path: Video(path, iter(frames_of(film)), 9, 25.0))
    monkeypatch.setattr(module, "_check_written", lambda file, count: None)
    (fault,) = predict_video(predictor, film, tmp_path / "out")
    assert f"{film}: expected 9 frames, as the file says, got {FRAMES}" in fault
    assert len(frames_of(tmp_path / "out/film.mp4")) == FRAMES


def test_predict_video__interrupted_leaves_results_but_no_video(
    predictor: Predictor, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(pixels: np.ndarray, *arguments: object, **settings: object) -> Image.Image:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "annotate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict_video(predictor, film, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_predict_video__a_video_that_is_not_whole_is_not_kept(
    predictor: Predictor, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._Writer, "add", lambda self, page: _write_first(self, page))
    with pytest.raises(ResourceError, match=rf"expected a video of {FRAMES} frames, got one of 1"):
        predict_video(predictor, film, tmp_path / "out")
    assert not (tmp_path / "out/film.mp4").exists()


def _write_first(writer: object, page: Image.Image) -> None:
    if writer.writer is None:
        writer.writer = cv2.VideoWriter(str(writer.file), cv2.VideoWriter.fourcc(*"mp4v"), 5, page.size)
        writer.writer.write(np.asarray(page))


@pytest.mark.parametrize(("name", "expected"), [("a.MP4", True), ("b.webm", True), ("c.png", False), ("d", False)])
def test_is_video__goes_by_the_suffix(name: str, expected: bool) -> None:
    assert is_video(name) == expected
