"""Equality with mmdet's Mask2Former detector on the same random weights: outputs, losses, panoptic maps, instances."""

from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from mmseg_m2f.core.results import panoptic_maps, top_instances
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.samples import write_instances
from tests.parity.conftest import CONFIGS, aligned_gradient
from tests.random_weights import shake

pytestmark = pytest.mark.parity

NUM_THINGS, NUM_CLASSES = 80, 133
SIZE, IMAGE_SIZE, ORIGINAL_SIZE = (96, 128), (90, 120), (75, 100)
BACKBONE = dict(type="mmseg.ResNet", depth=18, norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True)
# Random weights are unsure of every class: with thresholds of zero they find something all the same.
THRESHOLDS = dict(object_threshold=0.0, overlap_threshold=0.0)


@pytest.fixture(scope="module")
def twins():
    torch.manual_seed(0)
    path = Path(mmdet.__file__).parent / ".mim/configs/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py"
    cfg = Config.fromfile(path).model
    cfg.update(type="mmdet.Mask2Former", data_preprocessor=None, backbone=BACKBONE)
    cfg.panoptic_head.in_channels = [64, 128, 256, 512]
    for part, name in ((cfg.panoptic_head, "Mask2FormerHead"), (cfg.panoptic_fusion_head, "MaskFormerFusionHead")):
        part.type = f"mmdet.{name}"
    cfg.panoptic_head.pixel_decoder.type = "mmdet.MSDeformAttnPixelDecoder"
    cfg.test_cfg.update(panoptic_on=True, instance_on=True, object_mask_thr=0.0, iou_thr=0.0)
    with DefaultScope.overwrite_default_scope("mmdet"):  # its config names parts without their scope
        theirs = MODELS.build(cfg)
    theirs.panoptic_head.init_weights()
    shake(theirs)
    theirs.panoptic_head.cls_embed.weight.data *= 5
    for name, parameter in theirs.panoptic_head.transformer_decoder.named_parameters():
        if "out_proj.weight" in name or "ffn.layers.1.weight" in name:
            parameter.data *= 0.1  # otherwise all queries grow alike and answer the same

    cfg = Config.fromfile(CONFIGS / "_base_/models/mask2former.py").model
    cfg.update(type="mmseg_m2f.MaskDetector", backbone=BACKBONE, thing_classes=list(range(NUM_THINGS)))
    cfg.test_cfg = dict(keep_batch_padding=True, things_first=False, **THRESHOLDS)
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion.reference = "mmdet"
    ours = MODELS.build(cfg)
    ours.load_state_dict(theirs.state_dict())
    return theirs.train(), ours.train()


def make_sample(num_things: int) -> DetDataSample:
    """Random boxes as objects, which overlap, in front of three bands of stuff with a void row."""
    masks = np.zeros((num_things, *SIZE), np.uint8)
    semantic = torch.tensor([90, 100, 132]).repeat_interleave(32).unsqueeze(1).expand(-1, SIZE[1]).clone()
    semantic[40] = 255
    for mask in masks:
        top, left = (int(torch.randint(side - 30, ())) for side in SIZE)
        mask[top : top + int(torch.randint(5, 30, ())), left : left + int(torch.randint(5, 30, ()))] = 1
    sample = DetDataSample(metainfo=dict(img_shape=IMAGE_SIZE, ori_shape=ORIGINAL_SIZE, batch_input_shape=SIZE))
    labels = torch.randint(NUM_THINGS, (num_things,))
    sample.gt_instances = InstanceData(
        labels=labels, masks=BitmapMasks(masks, *SIZE), bboxes=torch.zeros(num_things, 4)
    )
    sample.gt_sem_seg = PixelData(sem_seg=semantic.unsqueeze(0))
    return sample


def make_batch() -> tuple[torch.Tensor, list[DetDataSample]]:
    return torch.randn(2, 3, *SIZE), [make_sample(6), make_sample(3)]


def test_mmdet__losses_and_gradients(twins):
    images, samples = make_batch()
    results = []
    for model in twins:
        model.zero_grad(set_to_none=True)
        torch.manual_seed(7)
        losses = {name: value for name, value in model.loss(images, samples).items() if "loss" in name}
        sum(losses.values()).backward()
        results.append(({name: value.item() for name, value in losses.items()}, aligned_gradient(model)))
    (expected, expected_gradient), (actual, gradient) = results
    assert len(expected) == 30
    assert actual == pytest.approx(expected, rel=1e-4)
    assert (gradient - expected_gradient).norm() / expected_gradient.norm() < 1e-4


@pytest.mark.parametrize("rescale", [True, False])
def test_mmdet__panoptic_maps_and_instances(twins, rescale):
    theirs, ours = (model.eval().double() for model in twins)
    images, samples = make_batch()
    with torch.no_grad():
        expected = theirs.predict(images.double(), [sample.clone() for sample in samples], rescale=rescale)
        actual = ours.predict(images.double(), [sample.clone() for sample in samples], rescale=rescale)
    for model in twins:
        model.float().train()
    for found, reference in zip(actual, expected, strict=True):
        panoptic = reference.pred_panoptic_seg.sem_seg
        assert len(panoptic.unique()) >= 3
        assert torch.equal(found.pred_panoptic_seg.sem_seg, panoptic.long())
        assert len(found.pred_instances) == len(reference.pred_instances) > 10
        assert_same_instances(found.pred_instances, reference.pred_instances)


@pytest.mark.parametrize("filter_low_score", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_mmdet__fusion_of_confident_queries(seed, filter_low_score):
    # Blobs for masks and sure classes, as a trained model gives them: segments overlap, merge and are dropped.
    torch.manual_seed(seed)
    blobs = torch.nn.functional.interpolate(torch.randn(1, 20, 5, 6) * 6 - 7, (40, 48), mode="bicubic")[0]
    class_logits = torch.randn(20, 6) * 4
    test_cfg = dict(object_mask_thr=0.5, iou_thr=0.4, filter_low_score=filter_low_score, max_per_image=30)
    head = MODELS.build(
        dict(type="mmdet.MaskFormerFusionHead", num_things_classes=3, num_stuff_classes=2, test_cfg=test_cfg)
    )
    is_thing = torch.tensor([True] * 3 + [False] * 2)
    expected = head.panoptic_postprocess(class_logits, blobs).sem_seg[0]
    resizing = Resizing(*[(40, 48)] * 3)
    (actual,) = panoptic_maps(
        class_logits[None],
        blobs[None],
        is_thing,
        resizing,
        object_threshold=0.5,
        overlap_threshold=0.4,
        keep_low_pixels=not filter_low_score,
    )
    assert len(expected.unique()) >= 3
    assert torch.equal(actual, expected.long())
    reference = head.instance_postprocess(class_logits, blobs)
    (found,) = top_instances(
        class_logits[None], blobs[None], is_thing, resizing, num_things=3, max_per_image=30, things_first=False
    )
    assert len(reference) == len(found.scores) > 5
    sample = DetDataSample()
    write_instances(sample, found)
    assert_same_instances(sample.pred_instances, reference)


def assert_same_instances(ours: InstanceData, theirs: InstanceData) -> None:
    ours, theirs = sort_instances(ours), sort_instances(theirs)
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-5, check_dtype=False)
    assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.masks, theirs.masks)
    assert torch.equal(ours.bboxes, theirs.bboxes)


def sort_instances(instances: InstanceData) -> InstanceData:
    """In an order that does not depend on that of the top-k: by class, then by the place and size of the mask."""
    order = sorted(
        range(len(instances)),
        key=lambda i: (int(instances.labels[i]), *instances.bboxes[i].tolist(), int(instances.masks[i].sum())),
    )
    return instances[torch.tensor(order)]
