"""Heads part by part; `test_models` compares whole ones."""

import pytest

from mmseg_m2f.config.load import load_config
from mmseg_m2f.migration.heads import HEADS, migrate_head
from mmseg_m2f.migration.reading import Config, MigrationReport, Part
from tests.migration.shipped_configs import INSTANCE, MASKFORMER


def migrated(path: object, **changes: object) -> Config:
    model = load_config(path).model
    model.panoptic_head.update(changes)
    report = MigrationReport()
    head = Part(model.panoptic_head, "head", scope="mmdet", report=report)
    num_classes = head.count("num_things_classes") + head.count("num_stuff_classes")
    return migrate_head(head, Part(model.train_cfg, "train_cfg", scope="mmdet", report=report), num_classes)


def test_migrate_head__mask2former() -> None:
    head = migrated(INSTANCE)
    assert head["type"] == "mmseg_m2f.MaskHead"
    assert head["pixel_decoder"]["type"] == "mmseg_m2f.DeformablePixelDecoder"
    assert head["query_decoder"]["type"] == "mmseg_m2f.MaskedAttentionDecoder"
    criterion = head["criterion"]
    assert [cost["weight"] for cost in criterion["assigner"]["match_costs"]] == [2.0, 5.0, 5.0]
    assert criterion["sampling"] == dict(
        type="mmseg_m2f.PointSampling", num_points=12544, oversample=3.0, importance=0.75
    )
    assert criterion["loss_cls"]["no_object_weight"] == 0.1


def test_migrate_head__maskformer() -> None:
    head = migrated(MASKFORMER)
    assert head["query_decoder"]["type"] == "mmseg_m2f.CrossAttentionDecoder"
    assert head["criterion"]["sampling"] == dict(type="mmseg_m2f.FullMaskSampling")
    assert head["criterion"]["loss_mask"]["type"] == "mmseg_m2f.MaskFocalLoss"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(out_channels=128), r"head.out_channels: expected 256, got 128: features and masks have one width"),
        (dict(loss_mask=dict(type="mmdet.L1Loss")), r"head.loss_mask.type: 'mmdet.L1Loss' has no counterpart"),
        (dict(positional_encoding=dict(num_feats=64, normalize=True)), "head.positional_encoding.num_feats"),
    ],
)
def test_migrate_head__refuses_what_it_cannot_carry(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        migrated(INSTANCE, **changes)


def test_heads__are_those_of_the_two_methods() -> None:
    assert HEADS == ("Mask2FormerHead", "MaskFormerHead")
