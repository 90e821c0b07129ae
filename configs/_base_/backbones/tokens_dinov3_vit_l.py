# ViT-L of DINOv3 (arXiv 2508.10104), frozen, and PMT's blocks (arXiv 2603.25398) on the tokens of four of its blocks.
# Needs the extra `timm`; the weights have a licence of their own. A leaf passes the neck as well.
backbone = dict(
    type="mmseg_m2f.TimmPlainViT",
    model_name="vit_large_patch16_dinov3.lvd1689m",
    out_indices=(5, 11, 17, 23),
    as_tokens=True,
    norm=True,
    frozen=True,
    pretrained=True,
)
neck = dict(type="mmseg_m2f.FrozenEncoderBlocks", in_channels=1024)
