import torch

from mmseg_m2f.core.postprocess import resize_maps, semantic_scores


def test_semantic_scores__by_hand():
    class_logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    mask_logits = torch.tensor([[[[3.0, -2.0]], [[-1.0, 2.0]]]])
    expected = torch.tensor([[[[0.6907, 0.2660]], [[0.2407, 0.5182]]]])
    torch.testing.assert_close(semantic_scores(class_logits, mask_logits), expected, rtol=0, atol=1e-4)


def test_semantic_scores__query_order_changes_nothing():
    class_logits, mask_logits = torch.randn(1, 5, 4), torch.randn(1, 5, 3, 3)
    order = torch.randperm(5)
    shuffled = semantic_scores(class_logits[:, order], mask_logits[:, order])
    torch.testing.assert_close(shuffled, semantic_scores(class_logits, mask_logits))


def test_resize_maps__same_size_is_the_same_tensor():
    maps = torch.randn(1, 2, 5, 7)
    assert resize_maps(maps, (5, 7)) is maps
