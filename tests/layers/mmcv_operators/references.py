"""mmcv's compiled operators written as loops over boxes, bins, taps and pixels, from their definitions."""

import math

import torch


def bilinear(plane: torch.Tensor, y, x):
    """A reading between pixels, 0 beyond them; differentiable in plane, y and x."""
    total = plane.new_zeros(())
    top, left = (math.floor(torch.as_tensor(position).detach()) for position in (y, x))
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                total = total + plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def iou(a, b, offset=0) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def nms(boxes, scores, threshold, offset) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[k], boxes[i], offset) <= threshold for k in kept):
            kept.append(i)
    return kept


def nms_match(boxes, scores, threshold) -> list[list[int]]:
    groups: list[list[int]] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        owner = next((group for group in groups if iou(boxes[group[0]], boxes[i]) >= threshold), None)
        if owner is None:
            groups.append([i])
        else:
            owner.append(i)
    return groups


def soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    left, current, picks = set(range(len(boxes))), list(scores), []
    while left:
        best = max(left, key=lambda i: current[i])
        left.remove(best)
        picks.append((best, current[best]))
        for i in list(left):
            overlap = iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                current[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                current[i] *= 1 - overlap if method == "linear" else 0.0
            if current[i] < min_score:
                left.remove(i)
    return picks


def roi_align(features, rois, size, scale, sampling_ratio, aligned, offset=None, gamma=0.0):
    """Means over the points of each bin; with `offset`, bins are moved (deformable RoIPool)."""
    height, width = features.shape[2:]
    out = features.new_zeros(len(rois), features.shape[1], *size)
    for r, roi in enumerate(rois):
        image = int(roi[0])
        x1, y1, x2, y2 = [v * scale - (0.5 if aligned else 0.0) for v in roi[1:].tolist()]
        extent = [y2 - y1, x2 - x1]
        extent = extent if aligned else [max(e, 1.0) for e in extent]
        bins = [extent[0] / size[0], extent[1] / size[1]]
        grid = [sampling_ratio if sampling_ratio > 0 else math.ceil(b) for b in bins]
        for p in range(size[0]):
            for q in range(size[1]):
                moved_y = 0.0 if offset is None else gamma * extent[0] * offset[r, 1, p, q]
                moved_x = 0.0 if offset is None else gamma * extent[1] * offset[r, 0, p, q]
                for i in range(grid[0]):
                    for j in range(grid[1]):
                        y = y1 + moved_y + p * bins[0] + (i + 0.5) * bins[0] / grid[0]
                        x = x1 + moved_x + q * bins[1] + (j + 0.5) * bins[1] / grid[1]
                        if -1 <= y <= height and -1 <= x <= width:
                            y = (
                                y * 0 + min(max(float(torch.as_tensor(y).detach()), 0), height - 1)
                                if not 0 <= y <= height - 1
                                else y
                            )
                            x = (
                                x * 0 + min(max(float(torch.as_tensor(x).detach()), 0), width - 1)
                                if not 0 <= x <= width - 1
                                else x
                            )
                            values = torch.stack([bilinear(plane, y, x) for plane in features[image]])
                            out[r, :, p, q] = out[r, :, p, q] + values / max(grid[0] * grid[1], 1)
    return out


def roi_pool(features, rois, size, scale):
    height, width = features.shape[2:]
    out = []
    for roi in rois:
        x1, y1, x2, y2 = [v * scale for v in (roi[1:] + torch.tensor([0, 0, 1, 1]).to(roi)).tolist()]
        bin_h, bin_w = (y2 - y1) / size[0], (x2 - x1) / size[1]
        for p in range(size[0]):
            for q in range(size[1]):
                top, bottom = (max(math.floor(p * bin_h + y1), 0), min(math.ceil((p + 1) * bin_h + y1), height))
                left, right = (max(math.floor(q * bin_w + x1), 0), min(math.ceil((q + 1) * bin_w + x1), width))
                window = features[int(roi[0]), :, top:bottom, left:right]
                empty = window.numel() == 0 or x2 <= x1 or y2 <= y1
                out.append(features[0, :, 0, 0] * 0 if empty else window.amax((1, 2)))
    return torch.stack(out).view(len(rois), *size, -1).permute(0, 3, 1, 2)


def deform_conv(x, offset, mask, weight, *, stride, padding, dilation, groups, offset_groups):
    batch, channels = x.shape[:2]
    out_channels, per_group, kernel_h, kernel_w = weight.shape
    rows, columns = offset.shape[2:]
    out = []
    for b in range(batch):
        for o in range(out_channels):
            for i in range(rows):
                for j in range(columns):
                    total = x.new_zeros(())
                    for c in range(per_group):
                        channel = o // (out_channels // groups) * per_group + c
                        group = channel // (channels // offset_groups)
                        for k in range(kernel_h * kernel_w):
                            place = group * kernel_h * kernel_w + k
                            y = i * stride - padding + k // kernel_w * dilation + offset[b, 2 * place, i, j]
                            u = j * stride - padding + k % kernel_w * dilation + offset[b, 2 * place + 1, i, j]
                            value = bilinear(x[b, channel], y, u) * weight[o, c, k // kernel_w, k % kernel_w]
                            total = total + (value if mask is None else value * mask[b, place, i, j])
                    out.append(total)
    return torch.stack(out).view(batch, out_channels, rows, columns)


def carafe(features, masks, kernel, groups, scale):
    batch, channels, height, width = features.shape
    out = features.new_zeros(batch, channels, height * scale, width * scale)
    for c in range(channels):
        group = c // (channels // groups)
        for y in range(height * scale):
            for x in range(width * scale):
                for k in range(kernel**2):
                    row, column = y // scale + k // kernel - kernel // 2, x // scale + k % kernel - kernel // 2
                    if 0 <= row < height and 0 <= column < width:
                        weight = masks[:, group * kernel**2 + k, y, x]
                        out[:, c, y, x] = out[:, c, y, x] + features[:, c, row, column] * weight
    return out


def psa_mask(x, mask_size, *, collect):
    batch, _, height, width = x.shape
    out = x.new_zeros(batch, height * width, height, width)
    for h in range(height):
        for w in range(width):
            for i in range(mask_size[0]):
                for j in range(mask_size[1]):
                    row, column = h + i - (mask_size[0] - 1) // 2, w + j - (mask_size[1] - 1) // 2
                    if 0 <= row < height and 0 <= column < width:
                        value = x[:, i * mask_size[1] + j, h, w]
                        if collect:
                            out[:, row * width + column, h, w] = value
                        else:
                            out[:, h * width + w, row, column] = value
    return out
