"""Loading with errors that name the file."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.datasets.checked_loading import CheckedLoading
from tests.datasets.stored_files import write_turned

LABEL = dict(type="mmseg.LoadAnnotations")


def load_image(backend: str) -> dict:
    return dict(type="mmengine.LoadImageFromFile", imdecode_backend=backend)


@pytest.fixture(params=["cv2", "pillow"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def sample(tmp_path: Path) -> dict:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "street.jpg", quality=95)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    Image.fromarray(pixels[..., 0] % 4).save(tmp_path / "label.png")
    return dict(
        img_path=str(tmp_path / "street.jpg"),
        seg_map_path=str(tmp_path / "label.png"),
        seg_fields=[],
        reduce_zero_label=False,
    )


def truncate(path: str, share: float) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])


def test_checked_loading__gives_what_the_loaders_give(sample: dict, backend: str) -> None:
    results = CheckedLoading([load_image(backend), LABEL])(sample)
    assert results["img"].shape == (60, 80, 3)
    assert np.array_equal(results["gt_seg_map"], np.asarray(Image.open(sample["seg_map_path"])))


def test_checked_loading__takes_the_label_after_a_resize(sample: dict) -> None:
    results = CheckedLoading([load_image("cv2")])(sample)
    results["img"] = results["img"][:30, :40]
    assert CheckedLoading([LABEL])(results)["gt_seg_map"].shape == (60, 80)


@pytest.mark.parametrize(("key", "kind"), [("img_path", "Image"), ("seg_map_path", "Label")], ids=["image", "label"])
def test_checked_loading__names_a_missing_file(sample: dict, backend: str, key: str, kind: str) -> None:
    Path(sample[key]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"^{kind} {sample[key]}.*expected a file.*data_prefix") as raised:
        CheckedLoading([load_image(backend), LABEL])(sample)
    assert isinstance(raised.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("name", ["street.jpg", "street.png"])
def test_checked_loading__names_a_truncated_image(sample: dict, backend: str, name: str, share: float) -> None:
    sample["img_path"] = str(Path(sample["img_path"]).with_name(name))
    truncate(sample["img_path"], share)
    with pytest.raises(ValueError, match=rf"^Image {sample['img_path']} \([\d,]+ bytes\) cannot be decoded.*Copy it"):
        CheckedLoading([load_image(backend)])(sample)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("decoder", ["cv2", "pillow"])
def test_checked_loading__names_a_truncated_label(sample: dict, decoder: str, share: float) -> None:
    truncate(sample["seg_map_path"], share)
    with pytest.raises(ValueError, match=rf"^Label {sample['seg_map_path']} .*cannot be decoded"):
        CheckedLoading([load_image("cv2"), dict(LABEL, imdecode_backend=decoder)])(sample)


def test_checked_loading__names_a_file_that_is_no_image(sample: dict, backend: str) -> None:
    Path(sample["img_path"]).write_text("<html>404</html>")
    with pytest.raises(ValueError, match="cannot be decoded"):
        CheckedLoading([load_image(backend)])(sample)


def test_checked_loading__accepts_a_jpeg_with_an_appendix(sample: dict, backend: str) -> None:
    with open(sample["img_path"], "ab") as file:
        file.write(bytes(10000))
    assert CheckedLoading([load_image(backend)])(sample)["img"].shape == (60, 80, 3)


def test_checked_loading__names_both_files_of_different_size(sample: dict) -> None:
    Image.new("L", (80, 59)).save(sample["seg_map_path"])
    with pytest.raises(ValueError, match=r"label.png is 59 x 80.*street.jpg is 60 x 80.*nearest neighbour"):
        CheckedLoading([load_image("cv2"), LABEL])(sample)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_checked_loading__refuses_a_label_drawn_in_colours(sample: dict, mode: str) -> None:
    Image.new(mode, (80, 60)).save(sample["seg_map_path"])
    with pytest.raises(ValueError, match=r"label.png: expected one channel.*\(60, 80, [34]\).*palette PNG"):
        CheckedLoading([load_image("cv2"), LABEL])(sample)


def test_checked_loading__reads_the_indices_of_a_palette_label(sample: dict) -> None:
    label = Image.new("P", (80, 60), 3)
    label.putpalette(bytes(range(256)) * 3)
    label.save(sample["seg_map_path"])
    assert (CheckedLoading([load_image("cv2"), LABEL])(sample)["gt_seg_map"] == 3).all()


def test_checked_loading__leaves_other_faults_alone(sample: dict) -> None:
    def broken(results: dict) -> dict:
        raise AttributeError("a fault of its own")

    with pytest.raises(AttributeError, match="a fault of its own"):
        CheckedLoading([broken])(sample)


def save_rotated(path: str) -> None:
    """60 x 80 pixels that a viewer shows as 80 x 60."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    Image.new("RGB", (80, 60)).save(path, exif=exif)


def test_checked_loading__rotated_image_must_agree_with_its_annotation(sample: dict, backend: str) -> None:
    """Both decoders turn the image upright, so an annotation of the stored pixels would lie across it."""
    save_rotated(sample["img_path"])
    upright = CheckedLoading([load_image(backend)])(sample | dict(height=80, width=60))
    assert upright["img"].shape == (80, 60, 3)
    with pytest.raises(ValueError, match=r"is 80 x 60 .* annotation is for 60 x 80.*EXIF orientation 6.*color_type="):
        CheckedLoading([load_image(backend)])(sample | dict(height=60, width=80))
    with pytest.raises(ValueError, match=r"^Label .* is 60 x 80 .*is 80 x 60.*EXIF orientation 6"):
        CheckedLoading([load_image(backend), LABEL])(dict(sample))


def test_checked_loading__rotated_image_as_it_is_stored(sample: dict, backend: str) -> None:
    save_rotated(sample["img_path"])
    loader = dict(load_image(backend), color_type="color_ignore_orientation")
    stored = CheckedLoading([loader, LABEL])(sample | dict(height=60, width=80))
    assert stored["img"].shape == (60, 80, 3)


@pytest.mark.parametrize("orientation", [2, 3, 4])
@pytest.mark.parametrize("kind", ["label map", "objects", "panoptic"])
def test_checked_loading__turned_image_whose_size_does_not_tell(sample: dict, kind: str, orientation: int) -> None:
    write_turned(Path(sample["img_path"]), np.zeros((60, 80, 3), np.uint8), orientation)
    loaders = [load_image("pillow"), LABEL] if kind == "label map" else [load_image("pillow")]
    annotation = dict(objects=dict(instances=[]), panoptic=dict(segments_info=[])).get(kind, {})
    with pytest.raises(ValueError, match=rf"street.jpg has EXIF orientation {orientation}; expected 1.*exif_transpose"):
        CheckedLoading(loaders)(sample | annotation)
    stored = dict(loaders[0], color_type="color_ignore_orientation")
    assert CheckedLoading([stored, *loaders[1:]])(sample | annotation)["img"].shape == (60, 80, 3)


def test_checked_loading__square_image_lying_on_its_side(sample: dict) -> None:
    write_turned(Path(sample["img_path"]), np.zeros((60, 60, 3), np.uint8), 6)
    Image.new("L", (60, 60)).save(sample["seg_map_path"])
    loaded = CheckedLoading([load_image("pillow")])(sample)  # without an annotation, upright is right
    with pytest.raises(ValueError, match="has EXIF orientation 6"):
        CheckedLoading([LABEL])(loaded)  # as in test pipelines, which load the label later


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", np.uint16), ("tif", np.uint16), ("tif", np.int32), ("tif", np.float32)]
)
def test_checked_loading__grey_of_many_bits_under_pillow(sample: dict, suffix: str, dtype: type) -> None:
    sample["img_path"] = sample["img_path"].replace("street.jpg", f"x.{suffix}")
    Image.fromarray(np.full((60, 80), 1000, dtype)).save(sample["img_path"])
    with pytest.raises(ValueError, match=rf"x.{suffix}: expected channels of 8 bits, got (16|32) bits"):
        CheckedLoading([load_image("pillow")])(sample)


def test_checked_loading__upper_bytes_of_16_bits(sample: dict, recwarn: pytest.WarningsRecorder) -> None:
    sample["img_path"] = sample["img_path"].replace("street.jpg", "x.png")
    values = np.arange(60 * 80).reshape(60, 80) * 13
    Image.fromarray(values.astype(np.uint16)).save(sample["img_path"])
    pixels = CheckedLoading([load_image("cv2")])(sample)["img"]
    np.testing.assert_array_equal(pixels, np.repeat((values // 256)[..., None], 3, -1))
    assert len(recwarn) == 0


def test_checked_loading__12_bits_in_16_are_almost_black(sample: dict) -> None:
    sample["img_path"] = sample["img_path"].replace("street.jpg", "x.png")
    Image.fromarray(np.full((60, 80), 4095, np.uint16)).save(sample["img_path"])
    with pytest.warns(UserWarning, match=r"x.png has 16 bits but no value above 4095.*almost black"):
        CheckedLoading([load_image("cv2")])(sample)


def test_checked_loading__several_pages(sample: dict, backend: str) -> None:
    sample["img_path"] = sample["img_path"].replace("street.jpg", "x.tif")
    page = Image.new("RGB", (80, 60))
    page.save(sample["img_path"], save_all=True, append_images=[page])
    with pytest.raises(ValueError, match=r"x.tif: expected one picture, got a TIFF file with 2 pages"):
        CheckedLoading([load_image(backend)])(sample)


def test_checked_loading__dark_images_are_said_once(
    sample: dict, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    sample["img_path"] = sample["img_path"].replace("street.jpg", "x.png")
    Image.fromarray(np.full((60, 80), 4095, np.uint16)).save(sample["img_path"])
    second = CheckedLoading([load_image("cv2")])
    monkeypatch.setattr("mmseg_m2f.datasets.checked_loading.get_worker_info", lambda: SimpleNamespace(id=1))
    second(dict(sample))
    assert not recwarn  # the first worker says it
    monkeypatch.undo()
    for _ in range(3):
        second(dict(sample))
    assert len(recwarn) == 1
