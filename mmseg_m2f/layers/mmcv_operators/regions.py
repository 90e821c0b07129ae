"""Features of regions (RoIs): average of bilinear readings, maximum over cells, and average with learnt shifts.

RoIAlign is arXiv 1703.06870, RoIPool arXiv 1504.08083, deformable RoIPool arXiv 1703.06211. A region is (image, x1, y1,
x2, y2). The weights of a bilinear reading are a product of one factor per axis, and so are the weights of a bin's mean.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.compat import has_torchvision_operators
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.mmcv_operators.gradients import recording, write_gradients
from mmseg_m2f.layers.mmcv_operators.weighted_rows import pixel_table, single, weighted_rows

_MOST_READINGS = 2**22  # of one call: bounds memory
_AVERAGE = 1


class _Regions(NamedTuple):
    """Corners in cells, extents of a bin, and readings per bin along each axis; columns are y, x."""

    image: Int[Tensor, "R"]
    start: Float[Tensor, "R 2"]
    bin: Float[Tensor, "R 2"]
    grid: Int[Tensor, "R 2"]

    def of(self, places: Tensor) -> "_Regions":
        return _Regions(*(x[places] for x in self))


def roi_align_forward(
    input: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    output: Float[Tensor, "R C P Q"],
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the mean over each bin of P × Q of readings at a grid of points.

    Args:
        sampling_ratio: points per bin and axis; 0 takes as many as the bin has cells, rounded up.
        aligned: shift by half a cell, so that pixel centres lie at integers.

    Raises:
        ValueError: maxima instead of means.
    """
    _check_average(pool_mode)
    size = (aligned_height, aligned_width)
    output.copy_(_roi_align(input, rois, size, spatial_scale, sampling_ratio, bool(aligned)))


def roi_align_backward(
    grad_output: Float[Tensor, "R C P Q"],
    rois: Float[Tensor, "R 5"],
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Float[Tensor, "B C H W"],
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of the features."""
    _check_average(pool_mode)
    if len(rois) == 0:
        grad_input.zero_()
        return
    size = (aligned_height, aligned_width)
    leaves = recording(torch.zeros_like(grad_input))  # the mean is linear in the features: their values do not matter
    with torch.enable_grad():
        pooled = _roi_align(leaves[0], rois, size, spatial_scale, sampling_ratio, bool(aligned))
    write_gradients(pooled, leaves, grad_output, (grad_input,))


def roi_pool_forward(
    input: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    output: Float[Tensor, "R C P Q"],
    argmax: Int[Tensor, "R C P Q"],
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the maximum over the cells that each bin touches, and its place in the map; 0 and -1 for empty bins."""
    height, width = input.shape[2:]
    corners = single(rois[:, 1:]) + single(rois).new_tensor([0, 0, 1, 1])
    corners = corners * spatial_scale
    extent = corners[:, 2:] - corners[:, :2]
    first_x, last_x = _cells(corners[:, 0], extent[:, 0], pooled_width, width)
    first_y, last_y = _cells(corners[:, 1], extent[:, 1], pooled_height, height)
    is_empty = (extent <= 0).any(1)[:, None]
    last_x, last_y = last_x.where(~is_empty, first_x), last_y.where(~is_empty, first_y)
    table, image = pixel_table(input), rois[:, 0].long()
    sizes = ((last_y - first_y).amax(1) * (last_x - first_x).amax(1)).clamp(min=1) if len(rois) else image
    for places in _chunks(sizes * pooled_height * pooled_width * input.shape[1]):
        y, in_y = _range(first_y[places], last_y[places])
        x, in_x = _range(first_x[places], last_x[places])
        cell = y[:, :, None, :, None] * width + x[:, None, :, None, :]  # R P Q Y X
        inside = (in_y[:, :, None, :, None] & in_x[:, None, :, None, :]).flatten(3)
        cell = cell.flatten(3).where(inside, 0)
        values = table[cell + (image[places] * height * width)[:, None, None, None]]  # R P Q Y·X C
        best, place = values.masked_fill(~inside[..., None], -torch.inf).max(3)
        filled = inside.any(3)[..., None]
        output[places] = best.where(filled, 0.0).permute(0, 3, 1, 2).to(output.dtype)
        argmax[places] = cell.gather(3, place).where(filled, -1).permute(0, 3, 1, 2).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Float[Tensor, "R C P Q"],
    rois: Float[Tensor, "R 5"],
    argmax: Int[Tensor, "R C P Q"],
    grad_input: Float[Tensor, "B C H W"],
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of each maximum to the cell it was read from."""
    channels, height, width = grad_input.shape[1:]
    row = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    cell = row[:, :, None, None] * height * width + argmax
    total = torch.zeros_like(single(grad_input)).flatten()
    total.index_add_(0, cell[argmax >= 0], grad_output[argmax >= 0].to(total.dtype))
    grad_input.copy_(total.view_as(grad_input))


def deform_roi_pool_forward(
    input: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    offset: Float[Tensor, "..."],
    output: Float[Tensor, "R C P Q"],
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write RoIAlign's means, each bin shifted by `gamma · offset` times the region's size.

    Args:
        offset: `R 2 P Q`, x before y, or empty.
    """
    size = (pooled_height, pooled_width)
    output.copy_(_deform_roi_pool(input, rois, offset, size, spatial_scale, sampling_ratio, gamma))


def deform_roi_pool_backward(
    grad_output: Float[Tensor, "R C P Q"],
    input: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    offset: Float[Tensor, "..."],
    grad_input: Float[Tensor, "B C H W"],
    grad_offset: Float[Tensor, "..."],
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the gradients of features and shifts."""
    if len(rois) == 0:
        grad_input.zero_()
        return
    size = (pooled_height, pooled_width)
    leaves = recording(input, offset)
    with torch.enable_grad():
        pooled = _deform_roi_pool(leaves[0], rois, leaves[1], size, spatial_scale, sampling_ratio, gamma)
    write_gradients(pooled, leaves, grad_output, (grad_input, grad_offset))


def _check_average(pool_mode: int) -> None:
    if pool_mode != _AVERAGE:
        raise InvalidValueError(
            "mmcv._ext.roi_align_forward: expected pool_mode='avg', got 'max', which is not served without mmcv's "
            "compiled operators. Set pool_mode='avg', or install mmcv with its compiled operators."
        )


def _roi_align(
    features: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Float[Tensor, "R C P Q"]:
    if has_torchvision_operators():
        return torch.ops.torchvision.roi_align(
            single(features), single(rois), scale, size[0], size[1], sampling_ratio, aligned
        )
    regions = _regions(rois.to(single(features).dtype), size, scale, sampling_ratio, aligned=aligned)
    return _mean_of_readings(features, regions, size, shifts=None)


def _deform_roi_pool(
    features: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    offset: Float[Tensor, "..."],
    size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Float[Tensor, "R C P Q"]:
    regions = _regions(rois.to(single(features).dtype), size, scale, sampling_ratio, aligned=True)
    if offset.numel() == 0:
        return _mean_of_readings(features, regions, size, shifts=None)
    extent = regions.bin * regions.bin.new_tensor(size)
    shifts = gamma * extent[:, :, None, None] * single(offset).flip(1)  # offsets are x, y
    return _mean_of_readings(features, regions, size, shifts=shifts)


def _regions(
    rois: Float[Tensor, "R 5"], size: tuple[int, int], scale: float, sampling_ratio: int, *, aligned: bool
) -> _Regions:
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    start, extent = corners[:, :2].flip(1), (corners[:, 2:] - corners[:, :2]).flip(1)
    extent = extent if aligned else extent.clamp(min=1)
    bins = extent / extent.new_tensor(size)
    grid = bins.ceil().long().clamp(min=0) if sampling_ratio <= 0 else torch.full_like(bins, sampling_ratio).long()
    return _Regions(rois[:, 0].long(), start, bins, grid)


def _mean_of_readings(
    features: Float[Tensor, "B C H W"],
    regions: _Regions,
    size: tuple[int, int],
    *,
    shifts: Float[Tensor, "R 2 P Q"] | None,
) -> Float[Tensor, "R C P Q"]:
    channels, height, width = features.shape[1:]
    table = pixel_table(features)
    readings = (4 * regions.grid.prod(1) * size[0] * size[1]).clamp(min=1)
    parts, order = [table.new_zeros(0, *size, channels)], [regions.image[:0]]
    for places in _chunks(readings):
        part = regions.of(places)
        moved = (None, None) if shifts is None else shifts[places].unbind(1)
        y, weight_y = _axis(part, 0, size[0], height, None if moved[0] is None else moved[0])
        x, weight_x = _axis(part, 1, size[1], width, None if moved[1] is None else moved[1].transpose(1, 2))
        if shifts is None:
            y, weight_y = y[:, :, None], weight_y[:, :, None]  # R P 1 Y
            x, weight_x = x[:, None], weight_x[:, None]  # R 1 Q X
        else:
            x, weight_x = x.transpose(1, 2), weight_x.transpose(1, 2)
        cell = part.image[:, None, None, None, None] * height + y[..., :, None]
        cell = (cell * width + x[..., None, :]).flatten(3)
        weights = (weight_y[..., :, None] * weight_x[..., None, :]).flatten(3)
        rows = weighted_rows(table, cell.flatten(0, 2), weights.flatten(0, 2))
        parts.append(rows.view(len(places), *size, channels))
        order.append(places)
    pooled = torch.cat(parts)[torch.cat(order).argsort()] if len(order) > 1 else torch.cat(parts)
    return pooled.permute(0, 3, 1, 2)


def _axis(
    regions: _Regions, axis: int, num_bins: int, length: int, shift: Tensor | None
) -> tuple[Int[Tensor, "..."], Float[Tensor, "..."]]:
    """Cells and weights along one axis of each bin: `R bins T`, or `R bins others T` with shifts `R bins others`.

    A point up to one cell outside the map is read at its border, one further outside is 0.
    """
    grid = regions.grid[:, axis, None, None]
    step = torch.arange(max(int(grid.max()), 1), device=grid.device)
    size = regions.bin[:, axis, None, None]
    begin = regions.start[:, axis, None, None] + torch.arange(num_bins, device=grid.device)[:, None] * size
    position = begin + (step + 0.5) * size / grid.clamp(min=1)  # R bins S
    counted = (step < grid).expand_as(position)
    if shift is not None:
        position = position[:, :, None] + shift[..., None]
        counted, grid = counted[:, :, None].expand_as(position), grid[:, :, None]
    inside = counted & (position >= -1) & (position <= length)
    place = position.clamp(0, length - 1)
    low = place.detach().floor().long().clamp_(0, length - 1)  # also where a position is not finite
    share = (place - low) / grid.clamp(min=1)
    full = inside / grid.clamp(min=1)
    cells = torch.cat([low, (low + 1).clamp_(max=length - 1)], -1)
    weights = torch.cat([full - share.where(inside, 0.0), share.where(inside, 0.0)], -1)
    return (cells, weights) if shift is not None else _merged(cells, weights, length)


def _merged(cells: Tensor, weights: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The same with one entry for each cell from the first to the last of a bin, where those are fewer."""
    first = cells.amin(-1, keepdim=True)
    width = int((cells - first).max()) + 1
    if width >= cells.shape[-1]:
        return cells, weights
    total = weights.new_zeros(*weights.shape[:-1], width).scatter_add_(-1, cells - first, weights)
    return (first + torch.arange(width, device=cells.device)).clamp_(max=length - 1), total


def _chunks(costs: Int[Tensor, "R"]) -> Iterator[Int[Tensor, "part"]]:
    """Places of regions of similar cost whose sum is bounded; a region that costs more comes alone."""
    if len(costs) == 0:
        return
    sorted_costs, order = costs.sort(descending=True)
    start = 0
    for_each = sorted_costs.tolist()
    while start < len(for_each):
        number = max(_MOST_READINGS // max(for_each[start], 1), 1)
        yield order[start : start + number]
        start += number


def _cells(start: Tensor, extent: Tensor, num_bins: int, length: int) -> tuple[Int[Tensor, "R P"], Int[Tensor, "R P"]]:
    """First cell of each bin, and the one behind its last."""
    place = torch.arange(num_bins, device=start.device)
    size = (extent / num_bins)[:, None]
    first = (place * size + start[:, None]).floor().long().clamp(0, length)
    last = ((place + 1) * size + start[:, None]).ceil().long().clamp(0, length)
    return first, torch.maximum(first, last)


def _range(first: Int[Tensor, "R P"], last: Int[Tensor, "R P"]) -> tuple[Int[Tensor, "R P S"], Bool[Tensor, "R P S"]]:
    steps = torch.arange(max(int((last - first).max()), 1), device=first.device)
    cells = first[..., None] + steps
    return cells, cells < last[..., None]
