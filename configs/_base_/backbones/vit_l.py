# ViT-L/16 (arXiv 2010.11929), ImageNet-21k weights tuned at 384; three maps of stride 16. A leaf adds img_size.
_base_ = "./vit_b.py"
backbone = dict(
    embed_dims=1024,
    num_layers=24,
    num_heads=16,
    out_indices=(7, 15, 23),
    drop_path_rate=0.3,
    init_cfg=dict(
        checkpoint="https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segmenter/vit_large_p16_384_20220308-d4efb41d.pth",
    ),
)
