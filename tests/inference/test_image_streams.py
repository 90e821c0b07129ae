from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_m2f.inference.image_streams import open_sources, open_video


def read(path: str) -> np.ndarray:
    return cv2.imread(path)


def write_video(path: Path, frames: int) -> None:
    """Frames of noise, one brighter than the other."""
    noise = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 5, (48, 32))
    for number in range(frames):
        writer.write(noise.integers(40 * number, 40 * number + 10, (32, 48, 3), dtype=np.uint8))
    writer.release()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name, value in (("b.png", 20), ("a.png", 10), ("sub/c.png", 30)):
        cv2.imwrite(str(tmp_path / name), np.full((4, 6, 3), value, dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_open_sources__folder_with_its_subfolders(folder: Path) -> None:
    stream = open_sources(folder, read)
    images = list(stream.images)
    assert stream.length == 3
    assert [(Path(image.name).name, int(image.pixels[0, 0, 0])) for image in images] == [
        ("a.png", 10),
        ("b.png", 20),
        ("c.png", 30),
    ]


def test_open_sources__video_frame_by_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "film.avi", 4)
    stream = open_sources(tmp_path / "film.avi", read)
    images = list(stream.images)
    assert stream.length == 4
    assert [image.name.rpartition("#")[2] for image in images] == ["0", "1", "2", "3"]
    assert [int(image.pixels.mean()) // 40 for image in images] == [0, 1, 2, 3]


def test_open_sources__lists_of_everything_and_generators(folder: Path) -> None:
    arrays = np.zeros((2, 4, 6, 3), dtype=np.uint8)
    stream = open_sources([str(folder / "a.png"), arrays, arrays[0], folder], read)
    assert stream.length == len(list(stream.images)) == 1 + 2 + 1 + 3
    lazy = open_sources((each for each in [folder / "a.png", arrays]), read)
    assert lazy.length is None
    assert [image.name for image in lazy.images] == [str(folder / "a.png"), "#0", "#1"]


def test_open_sources__reads_an_image_when_its_turn_comes(folder: Path) -> None:
    seen = []
    stream = open_sources(folder, lambda path: seen.append(path) or read(path))
    next(stream.images)
    assert [Path(path).name for path in seen] == ["a.png"]


def test_open_sources__says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected an image, a video or a folder"):
        open_sources(tmp_path / "none.png", read)
    with pytest.raises(FileNotFoundError, match="got a folder without any"):
        open_sources(tmp_path, read)
    with pytest.raises(ValueError, match=r"got shape \(4, 6\)"):
        open_sources(np.zeros((4, 6)), read)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="decodes no frame"):
        open_sources(tmp_path / "broken.mp4", read)
    with pytest.raises(TypeError, match="got int"):
        open_sources(3, read)


def test_video__frames_that_cannot_be_decoded(tmp_path: Path) -> None:
    write_video(tmp_path / "film.avi", 6)
    video = open_video(tmp_path / "film.avi")
    assert (video.length, video.frames_per_second, video.fault(6), video.fault(5)) == (6, 5.0, None, None)
    assert "expected 6 frames, as the file says, got 4" in str(video.fault(4))
    content = (tmp_path / "film.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="cut.avi: expected 6 frames, as the file says"):
        assert 0 < len(list(open_sources(tmp_path / "cut.avi", read).images)) < 6
