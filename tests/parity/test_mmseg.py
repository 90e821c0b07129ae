"""Equality with mmseg's Mask2Former on the same random weights: R50, 100 queries, 150 classes, 512²."""

from contextlib import contextmanager

import pytest
import torch

from mmseg_m2f.layers.transformer import attend_inside
from tests.parity.conftest import aligned_gradient, make_batch

pytestmark = pytest.mark.parity


def test_mmseg__all_ten_predictions(twins):
    theirs, ours = twins
    images, samples = make_batch(512, 10)
    with torch.no_grad(), record_masks(theirs) as recorded:
        expected_classes, expected_masks = theirs.decode_head(theirs.extract_feat(images), samples)
    with torch.no_grad(), force_masks(ours, recorded) as ties:
        predictions = ours.decode_head(ours.extract_feat(images))
    assert len(predictions) == len(expected_classes) == 10
    for prediction, classes, masks in zip(predictions, expected_classes, expected_masks, strict=True):
        torch.testing.assert_close(prediction.class_logits, classes, rtol=0, atol=1e-5)
        torch.testing.assert_close(prediction.mask_logits(), masks, rtol=0, atol=1e-5)
    # Of three million mask bits, those that differ sit on logits that are zero up to rounding.
    assert ties.numel() < 30
    assert (ties.abs() < 1e-5).all()


def test_mmseg__losses_and_gradients(twins):
    theirs, ours = twins
    images, samples = make_batch(256, 10, void=True)
    losses, gradients = [], []
    for model in (theirs, ours):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(7)
        named = {
            name.removeprefix("decode."): value for name, value in model.loss(images, samples).items() if "loss" in name
        }
        sum(named.values()).backward()
        losses.append({name: value.item() for name, value in named.items()})
        gradients.append(aligned_gradient(model))
    assert len(losses[0]) == 30
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert difference < 1e-4


def test_mmseg__label_maps(twins):
    theirs, ours = twins
    theirs.eval()
    ours.eval()
    images, samples = make_batch(512, 10)
    with record_masks(theirs) as recorded, torch.no_grad():
        expected = [sample.pred_sem_seg.data.clone() for sample in theirs.predict(images, samples)]
    with force_masks(ours, recorded), torch.no_grad():
        actual = [sample.pred_sem_seg.data for sample in ours.predict(images, samples)]
    for label_map, reference in zip(actual, expected, strict=True):
        assert torch.equal(label_map, reference)


@contextmanager
def record_masks(theirs):
    """The attention masks of mmseg's decoder, as our `may_attend`, layer by layer."""
    recorded = []

    def record(_, __, kwargs):
        blocked = kwargs["cross_attn_mask"]
        recorded.append(~blocked.unflatten(0, (-1, theirs.decode_head.num_heads))[:, 0])

    layers = theirs.decode_head.transformer_decoder.layers
    hooks = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    yield recorded
    for hook in hooks:
        hook.remove()


@contextmanager
def force_masks(ours, recorded):
    """Let our decoder attend where mmseg's did, and collect the logits of the bits it would have set otherwise.

    A logit that is zero up to float rounding falls on either side of zero, in any two implementations; one
    such bit moves all later outputs by about 1e-4, which would hide what this test is about.
    """
    ties, masks = torch.empty(0), iter(recorded)

    def may_attend(embeddings, features):
        logits = torch.bmm(embeddings, features)
        forced = next(masks)
        ties.data = torch.cat([ties, logits[attend_inside(logits) != forced]])
        return forced

    decoder = ours.decode_head.query_decoder
    decoder._may_attend = may_attend
    yield ties
    del decoder._may_attend
