import torch
from mmengine.config import Config

from mmseg_m2f.benchmark.shipped.made_batches import make_batch, numbers_of


def test_make_batch__labels_fit_a_segmentor():
    cfg = Config(
        dict(default_scope="mmseg", model=dict(decode_head=dict(num_classes=3), auxiliary_head=dict(num_classes=5)))
    )
    batch = make_batch(cfg, side=32, training=True)
    assert [image.shape for image in batch["inputs"]] == [(3, 32, 32)] * 2
    labels = batch["data_samples"][0].gt_sem_seg.data
    assert labels.shape == (1, 32, 32)
    assert int(labels.max()) < 3


def test_make_batch__objects_of_a_detector_lie_in_the_image():
    cfg = Config(
        dict(
            default_scope="mmdet",
            model=dict(rpn_head=dict(num_classes=1), head=dict(num_classes=80, num_things_classes=7)),
        )
    )
    (sample,) = make_batch(cfg, side=64, training=False)["data_samples"]
    objects = sample.gt_instances
    assert objects.bboxes.min() >= 0
    assert objects.bboxes.max() <= 64
    assert sample.gt_sem_seg.sem_seg.unique().tolist() == [0, 7]
    areas = (objects.bboxes[:, 2:] - objects.bboxes[:, :2]).prod(1)
    assert torch.from_numpy(objects.masks.masks).sum((1, 2)).tolist() == areas.tolist()


def test_make_batch__masks_are_for_pipelines_that_read_them():
    for transforms, given in (
        ([], True),
        ([dict(type="LoadAnnotations", with_bbox=True)], False),
        ([dict(type="LoadAnnotations", with_bbox=True), dict(pipeline=[dict(with_mask=True)])], True),
        ([dict(type="LoadPanopticAnnotations")], True),
    ):
        cfg = Config(
            dict(default_scope="mmdet", model=dict(), train_dataloader=dict(dataset=dict(pipeline=transforms)))
        )
        (sample,) = make_batch(cfg, side=64, training=False)["data_samples"]
        assert ("masks" in sample.gt_instances) == given


def test_make_batch__only_models_without_a_proposal_head_are_given_proposals():
    """A two-stage detector does not run its own on images that have some."""
    for model, given in (
        (dict(roi_head=dict()), True),
        (dict(roi_head=dict(), rpn_head=dict(num_classes=1)), False),
        (dict(detector=dict(rpn_head=dict(num_classes=1))), False),
    ):
        (sample,) = make_batch(Config(dict(default_scope="mmdet", model=model)), side=64, training=False)[
            "data_samples"
        ]
        assert ("proposals" in sample) == given


def test_make_batch__of_a_tracker_is_a_video():
    cfg = Config(dict(default_scope="mmdet", model=dict(data_preprocessor=dict(type="TrackDataPreprocessor"))))
    batch = make_batch(cfg, side=32, training=True)
    assert batch["inputs"][0].shape == (2, 3, 32, 32)
    assert len(batch["data_samples"][0]) == 2


def test_make_batch__of_a_semi_supervised_detector_has_three_branches():
    cfg = Config(dict(default_scope="mmdet", model=dict(data_preprocessor=dict(type="MultiBranchDataPreprocessor"))))
    batch = make_batch(cfg, side=64, training=True)
    assert list(batch["inputs"]) == list(batch["data_samples"]) == ["sup", "unsup_teacher", "unsup_student"]
    first, *others = (samples[0] for samples in batch["data_samples"].values())
    assert all(sample is not first for sample in others)  # a detector writes pseudo labels into one
    assert len(make_batch(cfg, side=64, training=False)["inputs"]) == 1


def test_numbers_of__finds_them_in_lists_and_parts():
    model = dict(
        num_classes=2, heads=[dict(num_classes=3), dict(num_classes=True)], part=dict(part=dict(num_classes=4))
    )
    assert sorted(numbers_of(model, "num_classes")) == [2, 3, 4]
