"""mmcv's deformable attention by the kernels of this package, for installations of mmcv without compiled operators.

`compat` serves these functions as operators of `mmcv._ext`, under the names and with the arguments that mmcv calls.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.layers.deformable_attention import deformable_attention
from mmseg_m2f.layers.mmcv_operators.weighted_rows import single


def ms_deform_attn_forward(
    value: Float[Tensor, "B N M D"],
    value_spatial_shapes: Int[Tensor, "L 2"],
    value_level_start_index: Int[Tensor, "L"],
    sampling_locations: Float[Tensor, "B Nq M L P 2"],
    attention_weights: Float[Tensor, "B Nq M L P"],
    im2col_step: int,
) -> Float[Tensor, "B Nq M*D"]:
    """Weighted sum of values read bilinearly at `sampling_locations`, xy in [0, 1].

    Args:
        value_spatial_shapes: height and width of each level; read back from the device.
        attention_weights: positive; usually they sum to 1 for each query and head.
        value_level_start_index, im2col_step: not used.
    """
    sizes, origin, offsets, logits = _as_projections(value_spatial_shapes, sampling_locations, attention_weights)
    mean = deformable_attention(value, sizes, origin, offsets, logits)
    return (mean.unflatten(2, (value.shape[2], -1)) * _total(attention_weights).to(value.dtype)).flatten(2)


def ms_deform_attn_backward(
    value: Float[Tensor, "B N M D"],
    value_spatial_shapes: Int[Tensor, "L 2"],
    value_level_start_index: Int[Tensor, "L"],
    sampling_locations: Float[Tensor, "B Nq M L P 2"],
    attention_weights: Float[Tensor, "B Nq M L P"],
    grad_output: Float[Tensor, "B Nq M*D"],
    grad_value: Float[Tensor, "B N M D"],
    grad_sampling_loc: Float[Tensor, "B Nq M L P 2"],
    grad_attn_weight: Float[Tensor, "B Nq M L P"],
    im2col_step: int,
) -> None:
    """Write the gradients of value, locations and weights into the last three tensors.

    The kernels differentiate with respect to logits: for weights `w = softmax(z)` and readings `r`,
    `dL/dz_i = w_i (<g, r_i> - <g, sum_j w_j r_j>)`, from which `<g, r_i>`, the gradient of weight i, follows. It is
    set to the mean over all readings where a weight is 0.
    """
    sizes, origin, offsets, logits = _as_projections(value_spatial_shapes, sampling_locations, attention_weights)
    total = _total(attention_weights)
    heads = grad_output.unflatten(2, (value.shape[2], -1))
    leaves = [x.detach().requires_grad_() for x in (value, offsets, logits)]
    with torch.enable_grad():
        mean = deformable_attention(leaves[0], sizes, origin, leaves[1], leaves[2])
    scaled = (heads * total.to(heads.dtype)).flatten(2)
    for_value, for_offsets, _ = torch.autograd.grad(mean, leaves, scaled, retain_graph=True)
    (for_logits,) = torch.autograd.grad(mean, leaves[2:], grad_output)
    agreement = (heads * mean.detach().unflatten(2, (value.shape[2], -1))).sum(-1)[..., None, None]
    shares = single(attention_weights) / total.unsqueeze(-1)
    for_weights = for_logits.view_as(shares) / shares.where(shares > 0, torch.ones_like(shares)) + agreement
    grad_value.copy_(for_value)
    grad_sampling_loc.copy_(for_offsets * _cells(value_spatial_shapes, offsets))
    grad_attn_weight.copy_(for_weights)


def _as_projections(
    shapes: Int[Tensor, "L 2"], locations: Float[Tensor, "B Nq M L P 2"], weights: Float[Tensor, "B Nq M L P"]
) -> tuple[list[tuple[int, int]], Float[Tensor, "Nq 2"], Float[Tensor, "B Nq M L P 2"], Float[Tensor, "B Nq M L*P"]]:
    """What the kernels take: sizes, reference points in the corner, offsets in cells, logits of the weights.

    Locations and weights are in single precision at least: in bfloat16 a location in cells is off by a part of a cell.
    """
    locations, weights = single(locations), single(weights)
    sizes = [(height, width) for height, width in shapes.tolist()]
    origin = locations.new_zeros(locations.shape[1], 2)
    return sizes, origin, locations * _cells(shapes, locations), weights.flatten(3).log()


def _cells(shapes: Int[Tensor, "L 2"], like: Tensor) -> Float[Tensor, "L 1 2"]:
    return shapes.flip(1).to(like.dtype).unsqueeze(1)


def _total(weights: Float[Tensor, "B Nq M L P"]) -> Float[Tensor, "B Nq M 1"]:
    return single(weights).sum((3, 4)).unsqueeze(-1)
