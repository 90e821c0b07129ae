import numpy as np
import pytest
from pycocotools import mask as run_lengths

from mmseg_m2f.predictions.run_lengths import encode_crop

SIZE = (9, 7)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


@pytest.mark.parametrize("corner", [(0, 0), (3, 2), (5, 3)])
@pytest.mark.parametrize("kind", ["random", "full", "empty", "one pixel"])
def test_encode_crop__equals_encoding_the_whole_mask(corner, kind):
    shape = (4, 4)
    crop = dict(
        random=np.random.default_rng(0).random(shape) > 0.5,
        full=np.ones(shape, bool),
        empty=np.zeros(shape, bool),
    ).get(kind, np.eye(4, dtype=bool) & (np.arange(4) == 2))
    whole = np.zeros(SIZE, np.uint8, order="F")
    whole[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4] = crop
    expected = run_lengths.encode(whole)
    assert encode_crop(crop, corner, SIZE) == dict(size=[*SIZE], counts=expected["counts"].decode())


def test_encode_crop__runs_over_several_columns():
    whole = np.ones(SIZE, bool)
    decoded = run_lengths.decode(encode_crop(whole, (0, 0), SIZE))
    assert decoded.all()
