import torch

from mmseg_m2f.layers.mmcv_operators.gradients import recording, write_gradients


def test_write_gradients__into_targets_of_their_own_precision():
    x, y = torch.randn(3, dtype=torch.bfloat16), torch.randn(3)
    leaves = recording(x, y)
    assert [leaf.dtype for leaf in leaves] == [torch.float32, torch.float32]
    with torch.enable_grad():
        product = leaves[0] * leaves[1]
    targets = torch.zeros_like(x), torch.zeros_like(y)
    write_gradients(product, leaves, 2 * torch.ones(3), targets)
    assert torch.equal(targets[0], (2 * y).bfloat16())
    assert torch.equal(targets[1], 2 * x.float())


def test_write_gradients__what_is_not_used_leaves_its_target_alone():
    leaves, targets = recording(torch.ones(2), torch.ones(2)), (torch.zeros(2), torch.full((2,), 7.0))
    with torch.enable_grad():
        total = leaves[0].sum()
    write_gradients(total, leaves, torch.ones(()), targets)
    assert targets[0].tolist() == [1, 1]
    assert targets[1].tolist() == [7, 7]
