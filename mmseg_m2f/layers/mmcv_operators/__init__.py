"""mmcv's compiled operators in PyTorch and by the kernels of this package, for installations of mmcv without them.

`compat` serves them as functions of `mmcv._ext`, under the names and with the arguments that mmcv calls. Most write
their results into tensors that mmcv has made. Half precision is computed in single precision. torchvision's operators
are taken where they load and compute the same.
"""

from mmseg_m2f.layers.mmcv_operators.attention import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from mmseg_m2f.layers.mmcv_operators.batch_norm import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)
from mmseg_m2f.layers.mmcv_operators.deformable_convolution import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from mmseg_m2f.layers.mmcv_operators.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from mmseg_m2f.layers.mmcv_operators.reassembly import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
    masked_col2im_forward,
    masked_im2col_forward,
    psamask_backward,
    psamask_forward,
)
from mmseg_m2f.layers.mmcv_operators.regions import (
    deform_roi_pool_backward,
    deform_roi_pool_forward,
    roi_align_backward,
    roi_align_forward,
    roi_pool_backward,
    roi_pool_forward,
)
from mmseg_m2f.layers.mmcv_operators.suppression import (
    bbox_overlaps,
    nms,
    nms_match,
    softnms,
)

__all__ = [
    "bbox_overlaps",
    "carafe_backward",
    "carafe_forward",
    "carafe_naive_backward",
    "carafe_naive_forward",
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "deform_roi_pool_backward",
    "deform_roi_pool_forward",
    "masked_col2im_forward",
    "masked_im2col_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "nms_match",
    "psamask_backward",
    "psamask_forward",
    "roi_align_backward",
    "roi_align_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
    "softnms",
    "sync_bn_backward_data",
    "sync_bn_backward_param",
    "sync_bn_forward_mean",
    "sync_bn_forward_output",
    "sync_bn_forward_var",
]
