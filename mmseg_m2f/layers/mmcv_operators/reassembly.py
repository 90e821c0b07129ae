"""Operators that rearrange windows of a map: CARAFE, convolution at chosen pixels, and point-wise spatial attention.

CARAFE is arXiv 1905.02188, the masked convolution serves guided anchoring (arXiv 1901.03278), the attention is PSANet's
(ECCV 2018).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmseg_m2f.layers.mmcv_operators.gradients import recording, write_gradients
from mmseg_m2f.layers.mmcv_operators.weighted_rows import single

_COLLECT = 0


def carafe_forward(
    features: Float[Tensor, "B C H W"],
    masks: Float[Tensor, "B M Hs Ws"],
    rfeatures: Float[Tensor, "B C H W"],
    routput: Tensor,
    rmasks: Tensor,
    output: Float[Tensor, "B C Hs Ws"],
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write for each finer pixel the sum of the K × K window around its coarser one, weighted by its own mask.

    `rfeatures` keeps the features for the backward pass, as mmcv hands nothing else to it.
    """
    rfeatures.copy_(features)
    output.copy_(_carafe(features, masks, kernel_size, group_size, scale_factor))


def carafe_backward(
    grad_output: Float[Tensor, "B C Hs Ws"],
    rfeatures: Float[Tensor, "B C H W"],
    masks: Float[Tensor, "B M Hs Ws"],
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Float[Tensor, "B C H W"],
    grad_masks: Float[Tensor, "B M Hs Ws"],
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size, group_size, scale_factor)


def carafe_naive_forward(
    features: Float[Tensor, "B C H W"],
    masks: Float[Tensor, "B M Hs Ws"],
    output: Float[Tensor, "B C Hs Ws"],
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """As `carafe_forward`."""
    output.copy_(_carafe(features, masks, kernel_size, group_size, scale_factor))


def carafe_naive_backward(
    grad_output: Float[Tensor, "B C Hs Ws"],
    features: Float[Tensor, "B C H W"],
    masks: Float[Tensor, "B M Hs Ws"],
    grad_input: Float[Tensor, "B C H W"],
    grad_masks: Float[Tensor, "B M Hs Ws"],
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks."""
    leaves = recording(features, masks)
    with torch.enable_grad():
        result = _carafe(leaves[0], leaves[1], kernel_size, group_size, scale_factor)
    write_gradients(result, leaves, grad_output, (grad_input, grad_masks))


def masked_im2col_forward(
    im: Float[Tensor, "1 C H W"],
    mask_h_idx: Int[Tensor, "N"],
    mask_w_idx: Int[Tensor, "N"],
    col: Float[Tensor, "D N"],
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the windows whose output lies at the given pixels, as columns."""
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]  # Kh 1 N
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]  # Kw N
    col.copy_(padded[:, rows, columns].flatten(0, 2))


def masked_col2im_forward(
    col: Float[Tensor, "O N"],
    mask_h_idx: Int[Tensor, "N"],
    mask_w_idx: Int[Tensor, "N"],
    im: Float[Tensor, "1 O H W"],
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write columns to the given pixels."""
    im[0, :, mask_h_idx, mask_w_idx] = col


def psamask_forward(
    input: Float[Tensor, "B M H W"],
    output: Float[Tensor, "B N H W"],
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write attention between all pairs of pixels; each pixel holds that of the window around it.

    `collect` (0) puts what pixel p says of pixel q at `[q, p]`, `distribute` (1) at `[p, q]`; 0 outside the windows.
    """
    place, inside = _window_places(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, input.device)
    said = input.flatten(2).gather(1, place.t().expand(len(input), -1, -1))  # B q p
    said = said.masked_fill(~inside.t(), 0.0)
    output.copy_((said if psa_type == _COLLECT else said.transpose(1, 2)).view_as(output))


def psamask_backward(
    grad_output: Float[Tensor, "B N H W"],
    grad_input: Float[Tensor, "B M H W"],
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the gradient of the windows."""
    place, inside = _window_places(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, grad_output.device)
    grad = grad_output.flatten(2)
    grad = (grad if psa_type == _COLLECT else grad.transpose(1, 2)).masked_fill(~inside.t(), 0.0)
    total = torch.zeros_like(grad_input.flatten(2))
    total.scatter_add_(1, place.t().expand(len(grad), -1, -1), grad.to(total.dtype))
    grad_input.copy_(total.view_as(grad_input))


def _carafe(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    (height, width), features = features.shape[2:], single(features)
    windows = F.unfold(features, kernel, padding=kernel // 2)  # B C·K·K H·W
    windows = windows.unflatten(1, (groups, -1, kernel**2)).unflatten(4, (height, width))
    per_cell = single(masks).unflatten(1, (groups, -1)).unflatten(4, (width, scale)).unflatten(3, (height, scale))
    finer = torch.einsum("bgckhw,bgkhswt->bgchswt", windows, per_cell)
    return finer.flatten(1, 2).flatten(4, 5).flatten(2, 3)


def _window_places(
    height: int, width: int, mask_height: int, mask_width: int, half_height: int, half_width: int, device: torch.device
) -> tuple[Int[Tensor, "p q"], Tensor]:
    """For pixels p and q the channel in which p speaks of q, and whether q lies in p's window."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    y, x = y.flatten(), x.flatten()
    row = y[None] - y[:, None] + half_height
    column = x[None] - x[:, None] + half_width
    inside = (row >= 0) & (row < mask_height) & (column >= 0) & (column < mask_width)
    return (row * mask_width + column).where(inside, 0), inside
