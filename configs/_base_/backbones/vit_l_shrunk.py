# ViT-L/16 that keeps a quarter of its tokens from block 8 on (arXiv 2210.05844); maps of stride 16 and 32.
normalization = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])  # what the weights expect
backbone = dict(
    type="mmseg_m2f.ShrunkVisionTransformer",
    drop_path_rate=0.3,
    init_cfg=dict(
        type="Pretrained",
        checkpoint="https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segmenter/vit_large_p16_384_20220308-d4efb41d.pth",
    ),
)
