"""Deformable convolution (arXiv 1703.06211) and its modulated form, DCNv2 (arXiv 1811.11168).

Each tap of the kernel reads its input bilinearly at a place shifted by the offsets, 0 outside the image; the modulated
form multiplies what it reads. A matrix product with the weights follows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmseg_m2f.compat import has_torchvision_operators
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.mmcv_operators.gradients import recording, write_gradients
from mmseg_m2f.layers.mmcv_operators.weighted_rows import single, weighted_rows


class _Geometry(NamedTuple):
    """Stride, padding and dilation as (vertical, horizontal); groups of channels, and of channels with own offsets."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int


def deform_conv_forward(
    input: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "O I Kh Kw"],
    offset: Float[Tensor, "B S Ho Wo"],
    output: Float[Tensor, "B O Ho Wo"],
    columns: Tensor,
    ones: Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the convolution; the S = 2·G·K offsets of G groups and K taps are y, x in cells.

    Buffers and `im2col_step` are not used.
    """
    geometry = _Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    output.copy_(_convolve(input, offset, None, weight, None, geometry))


def deform_conv_backward_input(
    input: Float[Tensor, "B C H W"],
    offset: Float[Tensor, "B S Ho Wo"],
    grad_output: Float[Tensor, "B O Ho Wo"],
    grad_input: Float[Tensor, "B C H W"],
    grad_offset: Float[Tensor, "B S Ho Wo"],
    weight: Float[Tensor, "O I Kh Kw"],
    columns: Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of input and offsets."""
    geometry = _Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    leaves = recording(input, offset)
    with torch.enable_grad():
        result = _convolve(leaves[0], leaves[1], None, weight.detach(), None, geometry)
    write_gradients(result, leaves, grad_output, (grad_input, grad_offset))


def deform_conv_backward_parameters(
    input: Float[Tensor, "B C H W"],
    offset: Float[Tensor, "B S Ho Wo"],
    grad_output: Float[Tensor, "B O Ho Wo"],
    grad_weight: Float[Tensor, "O I Kh Kw"],
    columns: Tensor,
    ones: Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: int | float,
    im2col_step: int,
) -> None:
    """Add `scale` times the gradient of the weights."""
    geometry = _Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    total = torch.zeros_like(grad_weight)
    # The product is linear in the weights, whose values therefore do not matter.
    leaves = recording(grad_weight)
    with torch.enable_grad():
        result = _convolve(input.detach(), offset.detach(), None, leaves[0], None, geometry)
    write_gradients(result, leaves, grad_output, (total,))
    grad_weight.add_(total, alpha=scale)


def modulated_deform_conv_forward(
    input: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "O I Kh Kw"],
    bias: Float[Tensor, "..."],
    ones: Tensor,
    offset: Float[Tensor, "B S Hs Ws"],
    mask: Float[Tensor, "B T Hs Ws"],
    output: Float[Tensor, "B O Ho Wo"],
    columns: Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the convolution; `mask` multiplies what each of the T = G·K taps reads. Buffers are not used."""
    geometry = _Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    offset, mask = (_as_read(x, output.shape[2:]) for x in (offset, mask))
    output.copy_(_convolve(input, offset, mask, weight, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "O I Kh Kw"],
    bias: Float[Tensor, "..."],
    ones: Tensor,
    offset: Float[Tensor, "B S Hs Ws"],
    mask: Float[Tensor, "B T Hs Ws"],
    columns: Tensor,
    grad_input: Float[Tensor, "B C H W"],
    grad_weight: Float[Tensor, "O I Kh Kw"],
    grad_bias: Float[Tensor, "..."],
    grad_offset: Float[Tensor, "B S Hs Ws"],
    grad_mask: Float[Tensor, "B T Hs Ws"],
    grad_output: Float[Tensor, "B O Ho Wo"],
    *,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write all gradients."""
    geometry = _Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    leaves = recording(input, offset, mask, weight)
    with torch.enable_grad():
        read_offset, read_mask = (_as_read(x, grad_output.shape[2:]) for x in leaves[1:3])
        result = _convolve(leaves[0], read_offset, read_mask, leaves[3], None, geometry)
    write_gradients(result, leaves, grad_output, (grad_input, grad_offset, grad_mask, grad_weight))
    if with_bias:
        grad_bias.copy_(single(grad_output).sum((0, 2, 3)))


def _as_read(maps: Float[Tensor, "B S _ _"], size: torch.Size) -> Float[Tensor, "B S Ho Wo"]:
    """The maps as mmcv's kernel finds them in memory: it steps by height and width of the output, whatever the maps'.

    DyHead relies on it: the offsets of one level also serve the next coarser level.

    Raises:
        ValueError: the maps hold fewer values than the kernel would read.
    """
    if maps.shape[2:] == size:
        return maps
    if maps.shape[2:].numel() < size.numel():
        raise InvalidValueError(
            f"modulated_deform_conv2d: expected offsets and masks for the {size[0]} x {size[1]} places of the output, "
            f"got them for {maps.shape[2]} x {maps.shape[3]}."
        )
    return maps.flatten(1)[:, : maps.shape[1] * size.numel()].unflatten(1, (maps.shape[1], *size))


def _convolve(
    features: Float[Tensor, "B C H W"],
    offset: Float[Tensor, "B S Ho Wo"],
    mask: Float[Tensor, "B T Ho Wo"] | None,
    weight: Float[Tensor, "O I Kh Kw"],
    bias: Float[Tensor, "O"] | None,
    geometry: _Geometry,
) -> Float[Tensor, "B O Ho Wo"]:
    features, offset, weight = single(features), single(offset), single(weight)
    mask, bias = (None if x is None else single(x) for x in (mask, bias))
    if has_torchvision_operators():
        return _by_torchvision(features, offset, mask, weight, bias, geometry)
    readings = _readings(features, offset, mask, (weight.shape[2], weight.shape[3]), geometry)  # B Ho Wo G K C/G
    if geometry.groups == 1:
        per_tap = weight.flatten(2).unflatten(1, (geometry.offset_groups, -1)).transpose(2, 3)  # O G K C/G
        product = readings.flatten(3) @ per_tap.flatten(1).t()
    else:
        columns = readings.transpose(4, 5).flatten(3, 4).unflatten(3, (geometry.groups, -1)).flatten(4)
        per_group = weight.unflatten(0, (geometry.groups, -1)).flatten(2)  # groups O/groups I·K
        product = torch.einsum("bhwgi,goi->bhwgo", columns, per_group).flatten(3)
    product = product if bias is None else product + bias
    return product.permute(0, 3, 1, 2)


def _readings(
    features: Float[Tensor, "B C H W"],
    offset: Float[Tensor, "B S Ho Wo"],
    mask: Float[Tensor, "B T Ho Wo"] | None,
    kernel: tuple[int, int],
    geometry: _Geometry,
) -> Float[Tensor, "B Ho Wo G K D"]:
    """What each tap reads."""
    (batch, channels, height, width), groups, taps = features.shape, geometry.offset_groups, kernel[0] * kernel[1]
    shifts = offset.unflatten(1, (groups, taps, 2)).permute(3, 0, 4, 5, 1, 2)  # 2 B Ho Wo G K
    grids = [_grid(kernel, axis, shifts.shape[2 + axis], geometry, features) for axis in (0, 1)]
    y = shifts[0] + grids[0][:, None, None]  # Ho 1 1 K
    x = shifts[1] + grids[1][None, :, None]
    cell_y, weight_y = _corners(y, height)
    cell_x, weight_x = _corners(x, width)
    image = torch.arange(batch, device=y.device)[:, None, None, None, None, None, None]
    group = torch.arange(groups, device=y.device)[:, None, None, None]
    cell = ((image * height + cell_y[..., :, None]) * width + cell_x[..., None, :]) * groups + group
    weights = weight_y[..., :, None] * weight_x[..., None, :]
    if mask is not None:
        weights = weights * mask.unflatten(1, (groups, taps)).permute(0, 3, 4, 1, 2)[..., None, None]
    table = features.unflatten(1, (groups, -1)).permute(0, 3, 4, 1, 2).flatten(0, 3)  # B·H·W·G C/G
    rows = weighted_rows(table, cell.flatten(0, 4).flatten(1), weights.flatten(0, 4).flatten(1))
    return rows.view(*y.shape, channels // groups)


def _grid(kernel: Sequence[int], axis: int, length: int, geometry: _Geometry, like: Tensor) -> Float[Tensor, "S K"]:
    """Where the taps lie without offsets, along one axis; taps are in order of rows."""
    start = torch.arange(length, device=like.device) * geometry.stride[axis] - geometry.padding[axis]
    tap = torch.arange(kernel[axis], device=like.device) * geometry.dilation[axis]
    of_taps = tap.repeat_interleave(kernel[1]) if axis == 0 else tap.repeat(kernel[0])
    return (start[:, None] + of_taps).to(like.dtype)


def _corners(position: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The two cells around each position and their weights, which are 0 outside the image; a last axis of 2."""
    low = position.detach().floor()
    share = position - low
    cells = torch.stack([low, low + 1], -1)
    inside = (cells >= 0) & (cells <= length - 1)
    weights = torch.stack([1 - share, share], -1).where(inside, 0.0)
    return cells.where(inside, 0.0).long(), weights


def _by_torchvision(
    features: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, geometry: _Geometry
) -> Tensor:
    return torch.ops.torchvision.deform_conv2d(
        features,
        weight,
        offset,
        features.new_zeros(len(features), 1) if mask is None else mask,
        weight.new_zeros(len(weight)) if bias is None else bias,
        *geometry.stride,
        *geometry.padding,
        *geometry.dilation,
        geometry.groups,
        geometry.offset_groups,
        mask is not None,
    )
