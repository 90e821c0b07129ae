import torch

from mmseg_m2f.layers.channel_norm import ChannelNorm


def test_channel_norm__every_pixel_for_itself():
    norm, x = ChannelNorm(6), 3 * torch.randn(2, 6, 3, 4) + 1
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)
    pixel = x[1, :, 2, 3]
    expected = (pixel - pixel.mean()) / (pixel.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x)[1, :, 2, 3], expected)
