# Context Cluster medium (arXiv 2303.01494), the authors' ImageNet-1k weights: a file that they ask to fetch by hand.
backbone_channels = [64, 128, 320, 512]
backbone = dict(
    type="mmseg_m2f.ContextCluster",
    arch="medium",
    init_cfg=dict(type="Pretrained", checkpoint="pretrain/coc_medium.pth"),
)
