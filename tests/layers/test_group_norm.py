import pytest
import torch
from mmcv.cnn import ConvModule
from torch import nn

from mmseg_m2f.layers.group_norm import GroupNorm


def test_group_norm__is_torchs_with_its_names():
    ours = ConvModule(8, 16, 1, norm_cfg=dict(type=GroupNorm, num_groups=4))
    theirs = ConvModule(8, 16, 1, norm_cfg=dict(type="GN", num_groups=4))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(ours(x), theirs(x))


def test_group_norm__keeps_half_precision_away_from_the_cpu():
    norm = GroupNorm(16, num_groups=4).to("meta")
    assert norm(torch.empty(2, 16, 5, 7, dtype=torch.bfloat16, device="meta")).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_group_norm__is_as_near_as_half_precision_allows_on_a_gpu():
    ours, theirs = GroupNorm(16, num_groups=4).cuda(), nn.GroupNorm(4, 16).cuda()
    x = torch.randn(2, 16, 5, 7, device="cuda", dtype=torch.bfloat16)
    with torch.autocast("cuda", torch.bfloat16):
        ours, theirs = ours(x), theirs(x)
    assert ours.dtype == torch.bfloat16
    assert theirs.dtype == torch.float32
    torch.testing.assert_close(ours.float(), theirs, rtol=2**-7, atol=2**-7)  # bfloat16 rounds by up to 2^-9
