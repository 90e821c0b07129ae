# Context Cluster tiny (arXiv 2303.01494), the authors' ImageNet-1k weights: a file that they ask to fetch by hand.
backbone_channels = [32, 64, 196, 320]
backbone = dict(
    type="mmseg_m2f.ContextCluster",
    arch="tiny",
    init_cfg=dict(type="Pretrained", checkpoint="pretrain/coc_tiny.pth"),
)
