import torch
from torch import nn

from mmseg_m2f.structures import TokenStream


def test_token_stream__patches_behind_prefix_as_a_map() -> None:
    tokens = torch.arange(14.0).view(1, 7, 2)
    stream = TokenStream(tokens, grid=(2, 3), num_prefix=1, blocks=(), norm=nn.Identity())
    assert len(stream) == 1
    assert stream[0].shape == (1, 2, 2, 3)
    assert stream[0][0, 0].tolist() == [[2, 4, 6], [8, 10, 12]]
    more = torch.cat([torch.full((1, 5, 2), -1.0), tokens], 1)  # queries in front
    assert torch.equal(stream.patch_map(more), stream[0])
