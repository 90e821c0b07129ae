import itertools
from pathlib import PurePath

import pytest
from mmengine.structures import BaseDataElement

from mmseg_m2f.predictions.file_names import ImageNames, relative_paths, result_files


class Images:
    def __init__(self, infos: list[dict]) -> None:
        self.infos = infos

    def __len__(self) -> int:
        return len(self.infos)

    def get_data_info(self, index: int) -> dict:
        return self.infos[index]


def names_of(*images: str) -> list[str]:
    return result_files([PurePath(image) for image in images])


def test_result_files__suffix_is_exchanged() -> None:
    assert names_of("a.jpg", "x/a.tif", "no suffix") == ["a.png", "x/a.png", "no suffix.png"]


def test_result_files__images_that_differ_in_the_suffix() -> None:
    assert names_of("b.jpg", "b.png", "c.jpg") == ["b.jpg.png", "b.png.png", "c.png"]
    assert names_of("a.jpg", "a.png", "a.jpg.tif") == ["a.jpg.png", "a.png.png", "a.jpg.tif.png"]


@pytest.mark.parametrize(
    "images",
    [
        ("a.png", "labels/a.png", "labels_/a.png", "panoptic/a.png"),
        ("a.jpg", "a.png/b.jpg", "a.png_/b.jpg"),
        ("x.png", "x_2.png", "y/x.png", "x.jpg", "x.png.png"),
    ],
)
def test_result_files__never_collide_with_each_other_or_with_folders(images: tuple[str, ...]) -> None:
    files = names_of(*images)
    written = [PurePath(folder, file) for file in files for folder in ("", "labels", "panoptic")]
    assert len(set(written)) == 3 * len(images)
    assert not set(written) & {parent for path in written for parent in path.parents}
    for order in itertools.permutations(images):
        assert dict(zip(order, names_of(*order), strict=True)) == dict(zip(images, files, strict=True))


def test_relative_paths__below_the_deepest_common_folder() -> None:
    assert [*map(str, relative_paths(["d/val/a/0.png", "d/val/b/0.png", "d/val/a/c/1.png"]))] == [
        "a/0.png",
        "b/0.png",
        "a/c/1.png",
    ]
    assert [*map(str, relative_paths(["../d/0.png"]))] == ["0.png"]
    assert relative_paths([]) == []


def test_image_names__ids_of_the_data_set_only_if_each_image_has_its_own() -> None:
    infos = [dict(img_path="d/a.png", img_id=7), dict(img_path="d/b.png", img_id=9)]
    sample = BaseDataElement(metainfo=dict(img_path="d/b.png"))
    assert ImageNames(Images(infos)).of(sample) == ("b.png", "b.png", 9)
    for other in (dict(img_path="d/a.png"), dict(img_path="d/a.png", img_id=9)):
        assert ImageNames(Images([other, infos[1]])).of(sample) == ("b.png", "b.png", "b.png")


def test_image_names__data_set_that_does_not_tell_its_images() -> None:
    names = ImageNames(object())
    files = [names.of(BaseDataElement(metainfo=dict(img_path=p))).file for p in ("/x/a/0.png", "/x/b/0.png")]
    assert files == ["x/a/0.png.png", "x/b/0.png.png"]


def test_image_names__sample_without_a_path() -> None:
    with pytest.raises(ValueError, match=r"expected img_path .*Add 'img_path' to the meta_keys"):
        ImageNames(object()).of(BaseDataElement())
