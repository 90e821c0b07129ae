import pytest
import torch
from torch import nn

from mmseg_m2f.models.query_decoders import DetrMaskHead
from mmseg_m2f.structures import PixelSpec


def test_detr_mask_head__published_size():
    head = DetrMaskHead(PixelSpec(256, (1024, 512, 256), memory=256))
    attention = sum(p.numel() for layer in (head.q_linear, head.k_linear) for p in layer.parameters())
    assert (attention, sum(p.numel() for p in head.parameters()) - attention) == (131_584, 1_202_073)


def test_detr_mask_head__softmax_over_heads_and_cells():
    # Two heads of one channel, two cells: scores (1, 0) and (2, -1).
    head = DetrMaskHead.__new__(DetrMaskHead)
    nn.Module.__init__(head)
    head.num_heads, head.q_linear, head.k_linear = 2, nn.Identity(), nn.Identity()
    memory = torch.tensor([[1.0, 2.0], [0.0, -1.0]]).T.reshape(1, 2, 1, 2)
    attention = head.attend(torch.ones(1, 1, 2), memory)
    expected = torch.tensor([[0.2369, 0.0871], [0.6439, 0.0321]])
    torch.testing.assert_close(attention[0, 0, :, 0], expected, rtol=0, atol=1e-4)


def test_detr_mask_head__too_few_maps():
    with pytest.raises(ValueError, match="expected three maps of the backbone below its coarsest, got 0"):
        DetrMaskHead(PixelSpec(32, (), memory=32))
