"""Equality with mmseg's MaskFormer on the same random weights: R50, 100 queries, 150 classes."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from tests.parity.conftest import CONFIGS, NUM_CLASSES, aligned_gradient, make_batch, upstream_config
from tests.random_weights import shake

pytestmark = pytest.mark.parity

FROZEN_R50 = dict(type="mmseg.ResNet", depth=50, norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True)


@pytest.fixture(scope="module")
def twins():
    """mmseg's model and ours with equal weights; in evaluation mode, which switches dropout off."""
    torch.manual_seed(0)
    cfg = upstream_config("maskformer_r50-d32_8xb2-160k_ade20k-512x512.py").model
    cfg.type, cfg.decode_head.type = "mmseg.EncoderDecoder", "mmseg.MaskFormerHead"
    cfg.data_preprocessor.type = "mmseg.SegDataPreProcessor"
    cfg.backbone = FROZEN_R50
    theirs = MODELS.build(cfg)
    theirs.decode_head.init_weights()
    shake(theirs)
    cfg = Config.fromfile(CONFIGS / "_base_/models/maskformer.py").model
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion.reference = "mmdet"
    cfg.backbone = FROZEN_R50
    ours = MODELS.build(cfg)
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval(), ours.eval()


def test_mmseg_maskformer__all_six_predictions(twins):
    theirs, ours = twins
    images, samples = make_batch(256, 10)
    for sample in samples:
        sample.set_metainfo(dict(batch_input_shape=(256, 256)))
    with torch.no_grad():
        expected_classes, expected_masks = theirs.decode_head(theirs.extract_feat(images), samples)
        predictions = ours.decode_head(ours.extract_feat(images))
    assert len(predictions) == len(expected_classes) == 6
    for prediction, classes, masks in zip(predictions, expected_classes, expected_masks, strict=True):
        torch.testing.assert_close(prediction.class_logits, classes, rtol=0, atol=1e-5)
        torch.testing.assert_close(prediction.mask_logits(), masks, rtol=0, atol=1e-5)


def test_mmseg_maskformer__losses_and_gradients(twins):
    images, samples = make_batch(256, 10, void=True)
    losses, gradients = [], []
    for model in twins:
        model.zero_grad(set_to_none=True)
        named = {
            name.removeprefix("decode."): value for name, value in model.loss(images, samples).items() if "loss" in name
        }
        sum(named.values()).backward()
        losses.append({name: value.item() for name, value in named.items()})
        gradients.append(aligned_gradient(model))
    assert len(losses[0]) == 18
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert (gradients[0] - gradients[1]).norm() / gradients[0].norm() < 1e-4


def test_mmseg_maskformer__label_maps(twins):
    theirs, ours = twins
    images, samples = make_batch(256, 10)
    with torch.no_grad():
        expected = [sample.pred_sem_seg.data.clone() for sample in theirs.predict(images, samples)]
        actual = [sample.pred_sem_seg.data for sample in ours.predict(images, samples)]
    for label_map, reference in zip(actual, expected, strict=True):
        assert torch.equal(label_map, reference)
