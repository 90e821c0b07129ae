"""Equality with Hugging Face's Mask2Former on the same random weights, taken through the name map."""

import pytest
import torch

from mmseg_m2f.checkpoints.layouts import convert
from tests.parity.conftest import NUM_CLASSES, build_ours
from tests.random_weights import shake

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def twins():
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    torch.manual_seed(0)
    encoder = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    theirs = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(backbone_config=encoder, num_labels=NUM_CLASSES, num_queries=100)
    )
    shake(theirs)
    ours = build_ours()
    ours.load_state_dict(convert(theirs.state_dict(), to="ours").weights)
    return theirs.eval(), ours.eval()


def test_huggingface__all_ten_predictions(twins):
    theirs, ours = twins
    images = torch.randn(2, 3, 128, 192)
    with torch.no_grad():
        expected = theirs(pixel_values=images, output_auxiliary_logits=True)
        predictions = ours.decode_head(ours.extract_feat(images))
    auxiliary = [(layer["class_queries_logits"], layer["masks_queries_logits"]) for layer in expected.auxiliary_logits]
    layers = [*auxiliary, (expected.class_queries_logits, expected.masks_queries_logits)]
    assert len(layers) == len(predictions) == 10
    for prediction, (classes, masks) in zip(predictions, layers, strict=True):
        assert classes.std() > 0.1
        assert masks.std() > 0.1
        torch.testing.assert_close(prediction.class_logits, classes, rtol=0, atol=1e-5)
        torch.testing.assert_close(prediction.mask_logits(), masks, rtol=0, atol=1e-5)
