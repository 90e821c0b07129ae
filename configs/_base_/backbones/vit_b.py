# ViT-B/16 (arXiv 2010.11929), ImageNet-21k weights tuned at 384; three maps of stride 16. A leaf adds img_size.
normalization = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])  # what the weights expect
backbone = dict(
    type="mmseg.VisionTransformer",
    embed_dims=768,
    num_layers=12,
    num_heads=12,
    out_indices=(5, 7, 11),
    drop_path_rate=0.1,
    patch_bias=True,
    with_cls_token=False,
    norm_cfg=dict(type="LN", eps=1e-6),
    init_cfg=dict(
        type="Pretrained",
        checkpoint="https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segmenter/vit_base_p16_384_20220308-96dfe169.pth",
    ),
)
