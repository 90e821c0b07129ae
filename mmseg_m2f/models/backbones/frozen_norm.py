"""Frozen batch norm that keeps no copy of its input for the backward pass."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class FrozenBN(nn.BatchNorm2d):
    """`(x - μ) · γ / √(σ² + ε) + β` with the stored statistics, in training and testing.

    A norm for `norm_cfg` of any backbone; names are those of batch norm, so checkpoints load. Only the input gets a
    gradient, `upstream · γ / √(σ² + ε)`, for which the scale alone is kept; PyTorch's batch norm keeps its whole input.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        if torch.is_grad_enabled() and x.requires_grad:
            return _FixedNorm.apply(x, self.running_mean, self.running_var, self.weight, self.bias, self.eps)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class _FixedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward((weight * torch.rsqrt(variance + eps)).to(x.dtype))
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return upstream * scale.view(-1, 1, 1), None, None, None, None, None
