"""Rows of the class layer, compared with the classes of OpenMMLab's data sets."""

from mmseg_m2f.checkpoints.class_order import openmmlab_rows, unused_rows


def test_openmmlab_rows__ade20k_panoptic_is_mmdets_order():
    from mmdet.datasets.ade20k import ADE20KPanopticDataset
    from mmseg.datasets import ADE20KDataset

    semantic = [name.strip() for name in ADE20KDataset.METAINFO["classes"]]
    panoptic = [name.split(", ") for name in ADE20KPanopticDataset.METAINFO["classes"]]
    *order, no_object = openmmlab_rows("ade20k-panoptic")
    assert no_object == 150
    assert sorted(order) == list(range(150))
    differ = {(semantic[i], names[0]) for i, names in zip(order, panoptic, strict=True) if semantic[i] not in names}
    assert differ == {  # two names for one class
        ("windowpane", "window"),
        ("bathtub", "tub"),
        ("railing", "rail"),
        ("streetlight", "street lamp"),
        ("television receiver", "tv"),
        ("apparel", "clothes"),
        ("ashcan", "trash can"),
        ("swimming pool", "pool"),
        ("waterfall", "falls"),
    }


def test_openmmlab_rows__coco_detection_is_mmdets_order():
    from mmdet.datasets import CocoDataset

    *order, no_object = openmmlab_rows("coco-detection")
    assert no_object == 91
    assert len(order) == len(CocoDataset.METAINFO["classes"]) == 80
    assert sorted([*order, *unused_rows("coco-detection")]) == list(range(91))
    # Where the ids jump, and the classes there.
    places = {13: "stop sign", 27: "backpack", 31: "handbag", 46: "wine glass", 67: "dining table", 70: "toilet"}
    places |= {1: "person", 72: "tv", 84: "book", 90: "toothbrush"}
    assert {i: CocoDataset.METAINFO["classes"][order.index(i)] for i in places} == places
