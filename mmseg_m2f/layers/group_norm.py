"""Group norm that stays in half precision under autocast."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group norm in the dtype of its input: sums are float32 inside; in half precision mean and deviation are rounded.

    Under autocast on a GPU, `nn.GroupNorm` makes a float32 copy of its input and gives float32: two maps of twice the
    size, which the convolution that follows rounds again. For `norm_cfg` of mmcv.

    Args:
        num_channels: C, divided among `num_groups`.
    """

    def __init__(self, num_channels: int, *, num_groups: int, eps: float = 1e-5) -> None:
        super().__init__(num_groups, num_channels, eps)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        if x.device.type == "cpu":  # there autocast leaves it alone, and weights may be of another dtype
            return super().forward(x)
        batch, channels, height, width = x.shape
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        # The operator that autocast does not know.
        x = x.contiguous()
        return torch.native_group_norm(x, weight, bias, batch, channels, height * width, self.num_groups, self.eps)[0]
