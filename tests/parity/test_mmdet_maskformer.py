"""Equality with mmdet's MaskFormer detector on the same random weights, with padding masks."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.parity.conftest import CONFIGS, aligned_gradient
from tests.parity.test_mmdet import BACKBONE, NUM_CLASSES, NUM_THINGS, THRESHOLDS, assert_same_instances, make_batch
from tests.random_weights import shake

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def twins():
    torch.manual_seed(0)
    path = Path(mmdet.__file__).parent / ".mim/configs/maskformer/maskformer_r50_ms-16xb1-75e_coco.py"
    cfg = Config.fromfile(path).model
    cfg.update(type="mmdet.MaskFormer", data_preprocessor=None, backbone=BACKBONE)
    cfg.panoptic_head.in_channels = [64, 128, 256, 512]
    for part, name in ((cfg.panoptic_head, "MaskFormerHead"), (cfg.panoptic_fusion_head, "MaskFormerFusionHead")):
        part.type = f"mmdet.{name}"
    cfg.panoptic_head.pixel_decoder.type = "mmdet.TransformerEncoderPixelDecoder"
    cfg.test_cfg.update(panoptic_on=True, instance_on=True, object_mask_thr=0.0, iou_thr=0.0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        theirs = MODELS.build(cfg)
    theirs.panoptic_head.init_weights()
    shake(theirs)
    theirs.panoptic_head.cls_embed.weight.data *= 5

    cfg = Config.fromfile(CONFIGS / "_base_/models/maskformer.py").model
    cfg.update(type="mmseg_m2f.MaskDetector", backbone=BACKBONE, thing_classes=list(range(NUM_THINGS)))
    cfg.test_cfg = dict(keep_batch_padding=True, things_first=False, keep_low_pixels=True, **THRESHOLDS)
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.pixel_decoder = dict(type="mmseg_m2f.TransformerFPNPixelDecoder")
    cfg.decode_head.criterion.reference = "mmdet"
    ours = MODELS.build(cfg)
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval(), ours.eval()  # dropout draws in another order


def test_mmdet_maskformer__losses_and_gradients(twins):
    images, samples = make_batch()
    results = []
    for model in twins:
        model.zero_grad(set_to_none=True)
        losses = {name: value for name, value in model.loss(images, samples).items() if "loss" in name}
        sum(losses.values()).backward()
        results.append(({name: value.item() for name, value in losses.items()}, aligned_gradient(model)))
    (expected, expected_gradient), (actual, gradient) = results
    assert len(expected) == 18
    assert actual == pytest.approx(expected, rel=1e-4)
    assert (gradient - expected_gradient).norm() / expected_gradient.norm() < 1e-4


def test_mmdet_maskformer__all_six_predictions(twins):
    images, samples = make_batch()
    theirs, ours = twins
    with torch.no_grad():
        classes, masks = theirs.panoptic_head(theirs.extract_feat(images), samples)
        valid = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        valid[:, : samples[0].img_shape[0], : samples[0].img_shape[1]] = True
        predictions = ours.decode_head(ours.extract_feat(images), valid)
    assert len(predictions) == 6
    for prediction, class_logits, mask_logits in zip(predictions, classes, masks, strict=True):
        torch.testing.assert_close(prediction.class_logits, class_logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(prediction.mask_logits(), mask_logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rescale", [True, False])
def test_mmdet_maskformer__panoptic_maps_and_instances(twins, rescale):
    theirs, ours = (model.double() for model in twins)
    images, samples = make_batch()
    with torch.no_grad():
        expected = theirs.predict(images.double(), [sample.clone() for sample in samples], rescale=rescale)
        actual = ours.predict(images.double(), [sample.clone() for sample in samples], rescale=rescale)
    for model in twins:
        model.float()
    for found, reference in zip(actual, expected, strict=True):
        panoptic = reference.pred_panoptic_seg.sem_seg
        assert len(panoptic.unique()) >= 3
        assert torch.equal(found.pred_panoptic_seg.sem_seg, panoptic.long())
        assert len(found.pred_instances) == len(reference.pred_instances) > 10
        assert_same_instances(found.pred_instances, reference.pred_instances)
