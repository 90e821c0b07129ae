import numpy as np

from mmseg_m2f.datasets import GeneratedShapes
from mmseg_m2f.registry import TRANSFORMS

PIPELINE = [
    dict(type="mmengine.RandomFlip", prob=1.0),
    dict(type="mmseg_m2f.SegmentsToObjects"),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_path", "ori_shape", "img_shape")),
]


def test_segments_to_objects__agree_with_the_semantic_labels() -> None:
    objects = GeneratedShapes(5, segments=True, pipeline=PIPELINE)
    labels = GeneratedShapes(5)
    for index in range(5):
        sample = objects[index]["data_samples"]
        semantic = labels.get_data_info(index)["gt_seg_map"][:, ::-1]  # flipped
        assert np.array_equal(sample.gt_sem_seg.sem_seg[0].numpy(), semantic)
        things = [s for s in labels.get_data_info(index)["segments"] if s.is_thing]
        assert sorted(sample.gt_instances.labels.tolist()) == sorted(s.category for s in things)
        for mask, label in zip(sample.gt_instances.masks, sample.gt_instances.labels, strict=True):
            assert (semantic[mask.numpy()] == label.item()).all()
        assert sorted(sample.gt_instances.masks.sum((1, 2)).tolist()) == sorted(s.area for s in things)


def test_segments_to_objects__no_thing() -> None:
    results = dict(gt_seg_map=np.full((4, 5), 255), segments=())
    out = TRANSFORMS.build(dict(type="mmseg_m2f.SegmentsToObjects"))(results)
    assert out["gt_masks"].shape == (0, 4, 5)
    assert (out["gt_seg_map"] == 255).all()
