"""Masks as COCO's run lengths, without a mask of the image's size."""

import numpy as np
from jaxtyping import Bool


def encode_crop(crop: Bool[np.ndarray, "_ _"], corner: tuple[int, int], size: tuple[int, int]) -> dict[str, object]:
    """The compressed run lengths of a mask that is False outside a part of the image.

    Args:
        crop: the mask in that part.
        corner: row and column of its upper left pixel.
        size: height and width of the image.
    """
    from pycocotools import mask as run_lengths  # comes with mmdet, without which no model finds objects

    columns = np.pad(crop.T, ((0, 0), (1, 1))).astype(np.int8)
    number, row = np.nonzero(np.diff(columns, axis=1))  # starts and ends of runs in turn, column by column
    edges = (number + corner[1]) * size[0] + row + corner[0]
    starts, ends = edges[::2], edges[1::2]
    goes_on = starts[1:] == ends[:-1]  # at the top of the next column
    edges = np.concatenate([starts[:1], np.stack([ends[:-1], starts[1:]], 1)[~goes_on].ravel(), ends[-1:]])
    counts = np.diff(edges, prepend=0, append=size[0] * size[1]).tolist()
    if counts[-1] == 0:  # as pycocotools ends a mask that reaches the last pixel
        del counts[-1]
    code = run_lengths.frPyObjects(dict(size=[*size], counts=counts), *size)
    return dict(size=[int(side) for side in code["size"]], counts=code["counts"].decode())
