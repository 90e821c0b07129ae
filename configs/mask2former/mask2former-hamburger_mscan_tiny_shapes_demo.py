# Mask2Former over SegNeXt's context module, small, on generated shapes, from random weights, minutes on a CPU core.
_base_ = [
    "../_base_/models/mask2former_tiny.py",
    "../_base_/backbones/mscan_tiny_from_scratch.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/adamw_scratch_800.py",
    "../_base_/runtime.py",
]
model = dict(
    data_preprocessor=_base_.data_preprocessor,
    backbone=_base_.backbone,
    decode_head=dict(
        num_classes=_base_.num_classes,
        pixel_decoder=dict(_delete_=True, type="mmseg_m2f.HamburgerPixelDecoder", channels=64, bases=16, norm_groups=8),
    ),
)
