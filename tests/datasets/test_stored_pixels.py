from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.datasets.stored_pixels import check_num_pixels, read_stored_pixels
from tests.datasets.stored_files import write_empty_png, write_grey_png, write_turned

GREY = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_read_stored_pixels__bits_of_a_grey_png(tmp_path: Path, bits: int) -> None:
    write_grey_png(tmp_path / "a.png", GREY, bits)
    stored = read_stored_pixels(tmp_path / "a.png")
    assert (stored.format, stored.bits, stored.is_grey, stored.has_palette) == ("PNG", bits, True, False)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_stored_pixels__16_bits(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / f"a.{suffix}")
    stored = read_stored_pixels(str(tmp_path / f"a.{suffix}"))
    assert (stored.bits, stored.is_float, stored.is_lossy) == (16, False, False)


def test_read_stored_pixels__floats_integers_and_palettes(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(GREY.astype(np.int32)).save(tmp_path / "integer.tif")
    Image.fromarray(GREY).convert("P").save(tmp_path / "palette.png", bits=4)
    facts = {path.stem: read_stored_pixels(path) for path in tmp_path.iterdir()}
    assert {name: (f.bits, f.is_float, f.has_palette) for name, f in facts.items()} == dict(
        float=(32, True, False), integer=(32, False, False), palette=(4, False, True)
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_stored_pixels__orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    write_turned(tmp_path / f"a.{suffix}", GREY, orientation)
    stored = read_stored_pixels(tmp_path / f"a.{suffix}")
    assert (stored.orientation, stored.is_sideways) == (orientation, orientation > 4)


def test_read_stored_pixels__what_is_no_local_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>404</html>")
    assert read_stored_pixels(tmp_path / "a.png") is None
    assert read_stored_pixels("s3://bucket/a.png") is None
    assert read_stored_pixels(None) is None


def test_check_num_pixels__as_many_as_pillow_takes(tmp_path: Path) -> None:
    write_empty_png(tmp_path / "large.png", (10_652, 14_204))  # the largest sensors of cameras; no warning
    check_num_pixels(tmp_path / "large.png")
    write_empty_png(tmp_path / "larger.png", (14_000, 14_000))
    with pytest.raises(ValueError, match=r"larger.png: expected at most 178,956,970 pixels, got .*196000000.*--large"):
        check_num_pixels(tmp_path / "larger.png")


def test_check_num_pixels__leaves_broken_files_to_their_decoder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>404</html>")
    check_num_pixels(tmp_path / "a.png")
    check_num_pixels(tmp_path / "nowhere.png")
