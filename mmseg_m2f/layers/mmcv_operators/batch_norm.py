"""The steps of mmcv's synchronised batch norm (`MMSyncBN`) between which it exchanges statistics."""

from jaxtyping import Float
from torch import Tensor


def sync_bn_forward_mean(input: Float[Tensor, "B C N"], mean: Float[Tensor, "C"]) -> None:
    """Write the mean of each channel."""
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Float[Tensor, "B C N"], mean: Float[Tensor, "C"], var: Float[Tensor, "C"]) -> None:
    """Write the mean squared deviation of each channel from `mean`."""
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


def sync_bn_forward_output(
    input: Float[Tensor, "B C N"],
    mean: Float[Tensor, "C"],
    var: Float[Tensor, "C"],
    weight: Float[Tensor, "C"] | None,
    bias: Float[Tensor, "C"] | None,
    running_mean: Float[Tensor, "C"],
    running_var: Float[Tensor, "C"],
    norm: Float[Tensor, "B C N"],
    std: Float[Tensor, "C"],
    output: Float[Tensor, "B C N"],
    eps: float,
    momentum: float | Float[Tensor, ""],
    group_size: int,
) -> None:
    """Write normalised values, their standard deviation and the result, and move the running statistics."""
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm if weight is None or bias is None else norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    running_mean += momentum * (mean - running_mean)
    running_var += momentum * (var * count / max(count - 1, 1) - running_var)


def sync_bn_backward_param(
    grad_output: Float[Tensor, "B C N"],
    norm: Float[Tensor, "B C N"],
    grad_weight: Float[Tensor, "C"],
    grad_bias: Float[Tensor, "C"],
) -> None:
    """Write the gradients of weight and bias."""
    grad_weight.copy_((grad_output.float() * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


def sync_bn_backward_data(
    grad_output: Float[Tensor, "B C N"],
    weight: Float[Tensor, "C"],
    grad_weight: Float[Tensor, "C"],
    grad_bias: Float[Tensor, "C"],
    norm: Float[Tensor, "B C N"],
    std: Float[Tensor, "C"],
    grad_input: Float[Tensor, "B C N"],
) -> None:
    """Write the gradient of the input."""
    count = grad_output.shape[0] * grad_output.shape[2]
    shared = (norm * grad_weight[:, None] + grad_bias[:, None]) / count
    grad_input.copy_((grad_output.float() - shared) * (weight / std)[:, None])
