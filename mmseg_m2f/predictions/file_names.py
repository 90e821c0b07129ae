"""What the result files of an image are called: unique in a data set, and the same on every process."""

import os
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

from mmengine.structures import BaseDataElement

from mmseg_m2f.errors import InvalidValueError

ImageId: TypeAlias = int | str

#: Folders and files of results that an image's folder of the same name would collide with.
_RESERVED = re.compile(r"(labels|panoptic)_*")
_LIKE_A_FILE = re.compile(r".*\.png_*")


class ImageName(NamedTuple):
    """How the results of one image refer to it."""

    file: str
    """Path of its PNG files below their folder."""
    image: str
    """Path of the image below the folder of all images."""
    image_id: ImageId
    """The data set's own id, or else `image`."""


class ImageNames:
    """The names of the images of a data set that mmengine's or a compatible class reads.

    They follow from the paths of all images (`img_path` of `get_data_info`), so that every process of a distributed
    test finds the same. Ids are those of the data set (`img_id`) where it has one for each image.
    """

    def __init__(self, dataset: object) -> None:
        infos = _image_infos(dataset)
        own_ids = {image_id for image_id in infos.values() if image_id is not None}
        has_ids = len(own_ids) == len(infos)
        images = relative_paths([*infos])
        self._names: dict[str, ImageName] = {}
        for (path, own_id), image, file in zip(infos.items(), images, result_files(images), strict=True):
            image_id = own_id if has_ids and own_id is not None else image.as_posix()
            self._names[path] = ImageName(file, image.as_posix(), image_id)

    def of(self, sample: BaseDataElement) -> ImageName:
        """The name of a sample's image.

        Raises:
            ValueError: The sample does not say which image it is of.
        """
        path = sample.metainfo.get("img_path")
        if path is None:
            raise InvalidValueError(
                f"Result files: expected img_path in the sample's metainfo, got {sorted(sample.metainfo)}. Add "
                "'img_path' to the meta_keys of the transform that packs samples."
            )
        if path not in self._names:  # the data set does not tell its images: the whole path is unique as well
            image = PurePath(*_parts(str(path)))
            file = f"{_with_safe_folders(image)}.png"
            self._names[path] = ImageName(file, image.as_posix(), image.as_posix())
        return self._names[path]


def relative_paths(paths: Sequence[str]) -> list[PurePath]:
    """Each path below the deepest folder that holds all of them."""
    parts = [_parts(path) for path in paths]
    folders = [path[:-1] for path in parts]
    num_shared = 0
    while folders and all(path[: num_shared + 1] == folders[0][: num_shared + 1] for path in folders):
        if num_shared == len(folders[0]):
            break
        num_shared += 1
    return [PurePath(*path[num_shared:]) for path in parts]


def result_files(images: Sequence[PurePath]) -> list[str]:
    """The path of each image's PNG below a folder of results, all different whatever their order.

    It is the image's own path with the suffix exchanged, or with `.png` behind its suffix where several images differ
    in the suffix alone. Folders that are called like those of results, or like a PNG, get an underscore.
    """
    whole = {image: f"{_with_safe_folders(image)}.png" for image in images}
    short = {image: f"{_with_safe_folders(image.with_suffix(''))}.png" for image in images}
    names = dict(short)
    while True:
        taken = Counter(names.values())
        repeated = [image for image in names if taken[names[image]] > 1 and names[image] != whole[image]]
        if not repeated:
            return [names[image] for image in images]
        names |= {image: whole[image] for image in repeated}


def _parts(path: str) -> tuple[str, ...]:
    """Folders and name of the absolute path, without the root."""
    return PurePath(os.path.abspath(path)).parts[1:]


def _with_safe_folders(image: PurePath) -> str:
    *folders, name = image.parts
    safe = [
        f"{folder}_" if _LIKE_A_FILE.fullmatch(folder) or (not level and _RESERVED.fullmatch(folder)) else folder
        for level, folder in enumerate(folders)
    ]
    return "/".join([*safe, name])


def _image_infos(dataset: object) -> dict[str, ImageId | None]:
    """The path of each image and its id, as far as the data set tells."""
    get_info = getattr(dataset, "get_data_info", None)
    if get_info is None:
        return {}
    infos: dict[str, ImageId | None] = {}
    for index in range(len(dataset)):  # type: ignore[arg-type]
        info: Mapping[str, Hashable] = get_info(index)
        path = info.get("img_path")
        if path is not None:
            image_id = info.get("img_id")
            infos[str(path)] = image_id if isinstance(image_id, (int, str)) else None
    return infos
