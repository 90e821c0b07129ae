import torch

from mmseg_m2f.core.sizes import is_known_equal


def test_is_known_equal__compares_numbers():
    assert is_known_equal(torch.Size((3, 4)), (3, 4))
    assert not is_known_equal((3, 4), (4, 3))
