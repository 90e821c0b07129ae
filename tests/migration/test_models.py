from tests.migration.shipped_configs import MASKFORMER, SEMANTIC, migrate


def test_migrate__carries_every_number_of_the_model(tmp_path):
    cfg, report = migrate(
        tmp_path,
        SEMANTIC,
        """
layer = dict(self_attn_cfg=dict(num_heads=4, embed_dims=64), ffn_cfg=dict(feedforward_channels=96, embed_dims=64))
model = dict(
    backbone=dict(depth=18),
    decode_head=dict(
        num_classes=7, num_queries=31, feat_channels=64, out_channels=64, num_transformer_feat_level=2,
        in_channels=[64, 128, 256, 512], ignore_index=99,
        positional_encoding=dict(num_feats=32),
        pixel_decoder=dict(
            num_outs=2, norm_cfg=dict(num_groups=16), positional_encoding=dict(num_feats=32),
            encoder=dict(num_layers=3, layer_cfg=dict(
                self_attn_cfg=dict(num_heads=2, num_levels=2, num_points=5, embed_dims=64),
                ffn_cfg=dict(feedforward_channels=80, embed_dims=64)))),
        transformer_decoder=dict(num_layers=4, layer_cfg=dict(cross_attn_cfg=layer["self_attn_cfg"], **layer)),
        loss_cls=dict(loss_weight=1.5, class_weight=[1, 1, 1, 2, 1, 1, 1, 0.2]),
        loss_mask=dict(loss_weight=2.5), loss_dice=dict(loss_weight=3.5, eps=0.5),
        train_cfg=dict(
            num_points=333, oversample_ratio=2.0, importance_sample_ratio=0.5,
            assigner=dict(match_costs=[dict(type='mmdet.ClassificationCost', weight=1.25),
                                       dict(type='mmdet.DiceCost', weight=4.5, pred_act=True)]))),
    test_cfg=dict(mode='slide', crop_size=(64, 96), stride=(32, 48)))
""",
    )
    head = cfg.model.decode_head
    assert cfg.num_classes == head.num_classes == report.num_classes == 7
    assert (cfg.model.ignore_index, cfg.model.backbone.depth) == (99, 18)
    assert cfg.model.test_cfg == dict(mode="slide", crop_size=(64, 96), stride=(32, 48))
    assert head.pixel_decoder == dict(
        type="mmseg_m2f.DeformablePixelDecoder",
        channels=64,
        num_levels=2,
        num_layers=3,
        num_heads=2,
        num_points=5,
        feedforward_channels=80,
        norm_groups=16,
    )
    assert head.query_decoder == dict(
        type="mmseg_m2f.MaskedAttentionDecoder",
        num_queries=31,
        channels=64,
        num_layers=4,
        num_heads=4,
        feedforward_channels=96,
    )
    assert head.criterion == dict(
        type="mmseg_m2f.MaskCriterion",
        assigner=dict(
            type="mmseg_m2f.HungarianAssigner",
            match_costs=[
                dict(type="mmseg_m2f.ClassCost", weight=1.25),
                dict(type="mmseg_m2f.MaskDiceCost", weight=4.5, smooth=1e-3),  # mmdet's default
            ],
        ),
        loss_cls=dict(
            type="mmseg_m2f.ClassLoss", loss_weight=1.5, no_object_weight=0.2, class_weight=[1, 1, 1, 2, 1, 1, 1]
        ),
        loss_mask=dict(type="mmseg_m2f.MaskBCELoss", loss_weight=2.5),
        loss_dice=dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=3.5, smooth=0.5),
        sampling=dict(type="mmseg_m2f.PointSampling", num_points=333, oversample=2.0, importance=0.5),
    )


def test_migrate__carries_dropout_and_results_of_a_detector(tmp_path):
    cfg, _ = migrate(
        tmp_path,
        MASKFORMER,
        "model = dict(backbone=dict(depth=18), panoptic_head=dict(in_channels=[64, 128, 256, 512]), "
        "test_cfg=dict(instance_on=True, max_per_image=7, object_mask_thr=0.3, iou_thr=0.4, filter_low_score=True))",
    )
    assert cfg.model.thing_classes == list(range(80))
    assert cfg.num_classes == 133
    assert cfg.model.test_cfg == dict(
        panoptic=True,
        instance=True,
        semantic=False,
        object_threshold=0.3,
        overlap_threshold=0.4,
        keep_low_pixels=False,
        max_per_image=7,
        things_first=False,
    )
    assert cfg.model.decode_head.pixel_decoder.dropout == cfg.model.decode_head.query_decoder.dropout == 0.1
