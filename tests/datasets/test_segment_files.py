"""Files of segments: COCO's panoptic PNGs, Cityscapes' instance ids."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.datasets import CheckedLoading, LoadCityscapesSegments, LoadPanoptic, Segment
from mmseg_m2f.structures import IGNORE_INDEX
from tests.datasets.coco_data import IDS, write_ids

INFOS = [(70000, 2, False, False), (1, 1, True, False), (300, 0, True, True), (5, 0, True, False)]


def panoptic(path: Path, infos: list = INFOS) -> dict:
    return LoadPanoptic()(dict(img_path="a.jpg", seg_map_path=str(path), segments_info=infos))


def test_load_panoptic__reads_ids_of_three_colours(tmp_path: Path) -> None:
    write_ids(tmp_path / "a.png", IDS)
    results = panoptic(tmp_path / "a.png")
    assert results["gt_seg_map"].dtype == np.int16
    assert results["gt_seg_map"][3].tolist() == [IGNORE_INDEX, 1, 1, 0, 0, 2, 2, 3]
    assert results["segments"] == (
        Segment(2, False, 12),
        Segment(1, True, 12),
        Segment(0, True, 12, is_crowd=True),
        Segment(0, True, 6),
    )
    assert results["seg_fields"] == ["gt_seg_map"]


def test_load_panoptic__leaves_out_segments_without_a_pixel(tmp_path: Path) -> None:
    write_ids(tmp_path / "a.png", IDS)
    results = panoptic(tmp_path / "a.png", [(4, 1, True, False), *INFOS])
    assert [segment.area for segment in results["segments"]] == [12, 12, 12, 6]
    assert results["gt_seg_map"][0].tolist() == [IGNORE_INDEX, 1, 1, 0, 0, 2, 2, 3]
    assert results["absent_segments"] == (1,)


def test_load_panoptic__crowds_and_void_are_not_absent(tmp_path: Path) -> None:
    write_ids(tmp_path / "a.png", IDS)
    extra = [(4, 1, True, True), (6, IGNORE_INDEX, True, False), (8, 2, False, False)]
    assert panoptic(tmp_path / "a.png", [*extra, *INFOS])["absent_segments"] == (2,)


def test_load_panoptic__segments_without_a_class_are_void(tmp_path: Path) -> None:
    write_ids(tmp_path / "a.png", IDS)
    results = panoptic(tmp_path / "a.png", [(70000, IGNORE_INDEX, False, False), *INFOS[1:]])
    assert results["gt_seg_map"][0].tolist() == [IGNORE_INDEX, 0, 0, IGNORE_INDEX, IGNORE_INDEX, 1, 1, 2]


def test_load_panoptic__all_void(tmp_path: Path) -> None:
    write_ids(tmp_path / "a.png", 0 * IDS)
    results = panoptic(tmp_path / "a.png", [])
    assert results["segments"] == ()
    assert (results["gt_seg_map"] == IGNORE_INDEX).all()


def test_load_panoptic__refuses_ids_that_are_not_listed(tmp_path: Path) -> None:
    write_ids(tmp_path / "a.png", IDS)
    with pytest.raises(ValueError, match=r"a\.png: expected the segment ids of a\.jpg .*\(1, 300\) or 0.*got 5, 70000"):
        panoptic(tmp_path / "a.png", INFOS[1:3])


def save_palette(path: Path) -> None:
    label = Image.new("P", (8, 6), 3)
    label.putpalette(bytes(range(256)) * 3)
    label.save(path)


@pytest.mark.parametrize(
    ("save", "kind"),
    [
        (save_palette, "8 bits palette"),
        (lambda path: Image.new("L", (8, 6)).save(path), "8 bits grey"),
        (lambda path: Image.new("I;16", (8, 6)).save(path), "16 bits grey"),
    ],
)
def test_load_panoptic__refuses_what_is_no_rgb(tmp_path: Path, save: object, kind: str) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=rf"a\.png: expected a PNG with 8 bits RGB .*, got {kind}"):
        panoptic(tmp_path / "a.png")


def test_load_panoptic__refuses_16_bit_colours(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((6, 8, 3), np.uint16))
    with pytest.raises(ValueError, match="got 16 bits RGB"):
        panoptic(tmp_path / "a.png")


def test_load_panoptic__takes_an_alpha_channel(tmp_path: Path) -> None:
    write_ids(tmp_path / "a.png", IDS)
    Image.open(tmp_path / "a.png").convert("RGBA").save(tmp_path / "b.png")
    assert np.array_equal(panoptic(tmp_path / "b.png")["gt_seg_map"], panoptic(tmp_path / "a.png")["gt_seg_map"])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_load_panoptic__names_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.png"
    write_ids(path, np.random.default_rng(0).integers(0, 2, (60, 80)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    sample = dict(img=np.zeros((60, 80, 3)), seg_map_path=str(path), segments_info=[(1, 0, True, False)])
    with pytest.raises(ValueError, match=rf"^Label {path} .*cannot be decoded"):
        CheckedLoading([LoadPanoptic()])(sample)


def test_load_cityscapes__splits_stuff_objects_and_crowds(tmp_path: Path) -> None:
    # Road, ego vehicle, two cars, a crowd of cars, a trailer (not evaluated), a licence plate, a bicycle.
    row = [7, 1, 26000, 26001, 26, 30000, 65535, 33002]
    Image.fromarray(np.tile(np.asarray(row, np.uint16), (6, 1))).save(tmp_path / "a.png")
    results = LoadCityscapesSegments()(dict(seg_map_path=str(tmp_path / "a.png")))
    categories = [results["segments"][i] if i != IGNORE_INDEX else None for i in results["gt_seg_map"][0]]
    car = Segment(13, True, 6)
    expected = [Segment(0, False, 6), None, car, car, car._replace(is_crowd=True), None, None, Segment(18, True, 6)]
    assert categories == expected
    assert results["gt_seg_map"][0, 2] != results["gt_seg_map"][0, 3]


def test_load_cityscapes__follows_mmseg_s_class_order() -> None:
    from mmseg.datasets import CityscapesDataset

    from mmseg_m2f.datasets.segment_files import _CITYSCAPES_IDS

    classes = CityscapesDataset.METAINFO["classes"]
    names = {7: "road", 11: "building", 23: "sky", 24: "person", 26: "car", 33: "bicycle"}  # of cityscapesscripts
    assert {i: classes[_CITYSCAPES_IDS.index(i)] for i in names} == names


def test_load_cityscapes__refuses_another_file(tmp_path: Path) -> None:
    Image.fromarray(np.asarray([[0, 255], [18, 1]], np.uint8)).save(tmp_path / "a_gtFine_labelTrainIds.png")
    with pytest.raises(ValueError, match=r"labelTrainIds\.png: expected one channel of ids.*255.*seg_map_suffix="):
        LoadCityscapesSegments()(dict(seg_map_path=str(tmp_path / "a_gtFine_labelTrainIds.png")))
