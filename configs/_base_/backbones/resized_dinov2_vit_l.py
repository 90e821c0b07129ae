# ViT-L of DINOv2, frozen; the maps of four blocks are resized to stride 4, 8, 16 and 32, as Rein (arXiv 2312.04265)
# compares. Needs the extra `timm`. A leaf passes the neck as well.
backbone = dict(
    type="mmseg_m2f.TimmPlainViT",
    model_name="vit_large_patch14_dinov2.lvd142m",
    out_indices=(7, 11, 15, 23),
    frozen=True,
    pretrained=True,
)
neck = dict(type="mmseg_m2f.ResizedPyramid")
