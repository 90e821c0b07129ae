import torch

from mmseg_m2f.models.equal_sizes import group_equal, take_images


def test_group_equal__in_order_of_the_first():
    assert group_equal(["b", "a", "b", "c"]) == [("b", [0, 2]), ("a", [1]), ("c", [3])]
    assert group_equal([]) == []


def test_take_images__the_batch_itself_or_some_of_it():
    batch = torch.arange(6).view(3, 2)
    assert take_images(batch, [0, 1, 2]) is batch
    assert take_images(batch, [0, 2]).tolist() == [[0, 1], [4, 5]]
