from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmseg_m2f.datasets import CheckedLoading, LoadLabelMap
from mmseg_m2f.registry import TRANSFORMS
from tests.command_line import ROOT
from tests.datasets.stored_files import write_grey_png

LABELS = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])


def load(path: Path, **sample: object) -> np.ndarray:
    results = dict(seg_map_path=str(path), seg_fields=[], reduce_zero_label=False, label_map=None) | sample
    return LoadLabelMap()(results)["gt_seg_map"]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("palette", [True, False])
def test_load_label_map__few_bits(tmp_path: Path, bits: int, palette: bool) -> None:
    if palette:
        Image.fromarray(LABELS.astype(np.uint8)).convert("P").save(tmp_path / "a.png", bits=bits)
    else:
        write_grey_png(tmp_path / "a.png", LABELS, bits)
    labels = load(tmp_path / "a.png")
    assert labels.dtype == np.uint8
    assert labels.tolist() == LABELS.tolist()


def test_load_label_map__one_bit(tmp_path: Path) -> None:
    Image.fromarray(LABELS > 1).save(tmp_path / "a.png")
    assert load(tmp_path / "a.png").tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize(("suffix", "dtype"), [("png", np.uint16), ("tif", np.uint16), ("tif", np.int32)])
def test_load_label_map__values_beyond_255(tmp_path: Path, suffix: str, dtype: type) -> None:
    Image.fromarray((LABELS * 257).astype(dtype)).save(tmp_path / f"a.{suffix}")
    labels = load(tmp_path / f"a.{suffix}")
    assert labels.dtype == np.uint16
    assert labels.tolist() == (LABELS * 257).tolist()


def test_load_label_map__reduced_and_mapped_as_mmseg_does(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2, 254, 255]] * 2, np.uint8)  # mmseg drops axes of length 1
    Image.fromarray(stored).save(tmp_path / "a.png")
    for change in (dict(reduce_zero_label=True), dict(label_map={1: 2, 2: 1, 0: 255})):
        sample = dict(seg_map_path=str(tmp_path / "a.png"), reduce_zero_label=False, label_map=None) | change
        mmsegs = TRANSFORMS.build(dict(type="mmseg.LoadAnnotations"))(dict(sample, seg_fields=[]))["gt_seg_map"]
        np.testing.assert_array_equal(load(tmp_path / "a.png", **change)[:, [0, 1, 2, 4]], mmsegs[:, [0, 1, 2, 4]])
    assert load(tmp_path / "a.png", reduce_zero_label=True).tolist() == [[255, 0, 1, 253, 255]] * 2
    assert load(tmp_path / "a.png", label_map={1: 2, 2: 1, 0: 255}).tolist() == [[255, 2, 1, 254, 255]] * 2


def test_load_label_map__refuses_what_cannot_hold_labels(tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "jpeg.png", format="JPEG")
    Image.fromarray(LABELS.astype(np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "a.gif")
    page = Image.fromarray(LABELS.astype(np.uint8))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page, page])
    for name, fault in (
        ("a.gif", "GIF, whose writers number the colours anew"),
        ("pages.tif", "3 pages"),
        ("a.jpg", "JPEG, whose compression"),
        ("jpeg.png", "JPEG, whose compression"),
        ("a.tif", "floating-point"),
        ("inverted.tif", "white as 0"),
    ):
        with pytest.raises(ValueError, match=rf"Label .*{name}: expected class indices .*{fault}"):
            load(tmp_path / name)


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_mmseg_loading__bits_that_it_does_not_keep_are_refused(tmp_path: Path, bits: int) -> None:
    if bits == 16:
        Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "a.png")
    else:
        write_grey_png(tmp_path / "a.png", LABELS, bits)
    sample = dict(
        img=np.zeros((2, 4, 3), np.uint8), seg_map_path=str(tmp_path / "a.png"), seg_fields=[], reduce_zero_label=False
    )
    with pytest.raises(ValueError, match=rf"a.png: .* got {bits} bits.*mmseg_m2f.LoadLabelMap"):
        CheckedLoading([dict(type="mmseg.LoadAnnotations")])(sample)


@pytest.mark.parametrize("name", ["ade20k_512", "camvid_360x480", "mapillary_1024"])
def test_configs__labels_are_read_as_stored(name: str) -> None:
    cfg = Config.fromfile(ROOT / f"configs/_base_/datasets/{name}.py")
    assert "mmseg_m2f.LoadLabelMap" in str(cfg.train_dataloader)
    assert "mmseg.LoadAnnotations" not in str(cfg.train_dataloader) + str(cfg.test_dataloader)
