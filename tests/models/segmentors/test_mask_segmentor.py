import warnings

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.core.confidence import known_probs
from mmseg_m2f.structures import MaskPrediction
from tests.models.conftest import CONFIGS, NUM_CLASSES, make_batch, make_sample


def test_mask_segmentor__one_training_step(segmentor):
    images, samples = make_batch()
    total, logged = segmentor.parse_losses(segmentor.loss(images, samples))
    total.backward()
    assert {"loss", "loss_cls", "d0.loss_dice", "surplus_segments"} <= set(logged)
    assert [name for name, p in segmentor.named_parameters() if p.grad is None] == []


def test_mask_segmentor__per_pixel_heads_are_refused(model_config):
    model_config.decode_head = dict(type="mmseg_m2f.ContextAwareHead", host=model_config.decode_head)
    with pytest.raises(TypeError, match=r"expected mmseg_m2f.MaskHead, got mmseg_m2f.ContextAwareHead.*EncoderDecoder"):
        MODELS.build(model_config)


@pytest.mark.parametrize("option", [dict(trainable=["decode_head."]), dict(freeze_backbone=True)], ids=["new", "old"])
def test_mask_segmentor__frozen_backbone_stays_as_it_is(model_config, option):
    model_config.backbone.update(norm_eval=False)
    model_config.update(option)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        segmentor = MODELS.build(model_config).train()
    said = [str(warning.message) for warning in caught if warning.category is FutureWarning]
    assert ["trainable=['decode_head.']" in text for text in said] == ([True] if "freeze_backbone" in option else [])
    before = {name: value.clone() for name, value in segmentor.backbone.state_dict().items()}
    images, samples = make_batch()
    total, _ = segmentor.parse_losses(segmentor.loss(images, samples))
    total.backward()
    assert all(torch.equal(value, before[name]) for name, value in segmentor.backbone.state_dict().items())
    without = {name.split(".")[0] for name, p in segmentor.named_parameters() if p.grad is None}
    assert without == {"backbone"}
    assert segmentor.decode_head.training


def test_mask_segmentor__label_outside_the_classes(segmentor):
    label_map = torch.zeros(64, 64, dtype=torch.long)
    label_map[3, 4] = 9
    sample = make_sample(label_map, seg_map_path="labels/7.png", img_path="images/7.png")
    with pytest.raises(ValueError, match=r"labels/7.png: expected labels 0…4 or 255 \(ignored\), got \[9\]"):
        segmentor.loss(torch.randn(1, 3, 64, 64), [sample])


@pytest.mark.parametrize("label", [255, 0])
def test_mask_segmentor__all_void_or_one_class(segmentor, label):
    sample = make_sample(torch.full((64, 64), label))
    total, _ = segmentor.parse_losses(segmentor.loss(torch.randn(1, 3, 64, 64), [sample]))
    total.backward()
    assert total.isfinite()
    assert [name for name, p in segmentor.named_parameters() if p.grad is None] == []


def test_mask_segmentor__predicts_at_the_original_size(segmentor):
    images, samples = make_batch((64, 96))
    for sample in samples:
        sample.set_metainfo(dict(ori_shape=(50, 61), img_padding_size=(0, 10, 0, 4)))
    predicted = segmentor.eval().predict(images, samples)
    for sample in predicted:
        assert sample.pred_sem_seg.data.shape == (1, 50, 61)
        assert 0 <= sample.pred_sem_seg.data.min() <= sample.pred_sem_seg.data.max() < NUM_CLASSES
        assert "seg_logits" not in sample


def test_mask_segmentor__predicts_without_samples(segmentor):
    predicted = segmentor.eval().predict(torch.randn(2, 3, 64, 96))
    assert [tuple(sample.pred_sem_seg.data.shape) for sample in predicted] == [(1, 64, 96)] * 2


def test_mask_segmentor__metadata_about_sizes_changes_nothing(segmentor):
    images, samples = make_batch()
    segmentor.eval()
    expected = segmentor.encode_decode(images, [{}, {}])
    lies = [dict(pad_shape=(7, 7), img_shape=(9, 5), ori_shape=(1, 1), batch_input_shape=(3, 3))] * 2
    assert torch.equal(segmentor.encode_decode(images, lies), expected)
    assert torch.equal(segmentor.encode_decode(images), expected)
    plain = [sample.pred_sem_seg.data for sample in segmentor.predict(images, samples)]
    for sample in samples:
        sample.set_metainfo(dict(pad_shape=(7, 7), img_shape=(9, 5), batch_input_shape=(3, 3)))
    lied = [sample.pred_sem_seg.data for sample in segmentor.predict(images, samples)]
    assert all(torch.equal(a, b) for a, b in zip(plain, lied, strict=True))


@pytest.mark.parametrize("direction", ["horizontal", "vertical", "diagonal"])
def test_mask_segmentor__flips_are_undone(segmentor, direction):
    images, samples = make_batch(batch=1)
    segmentor.eval()
    segmentor.test_cfg.return_scores = True
    axes = dict(horizontal=[-1], vertical=[-2], diagonal=[-1, -2])[direction]
    scores = segmentor.encode_decode(images)[0]
    samples[0].set_metainfo(dict(flip=True, flip_direction=direction))
    assert torch.equal(segmentor.predict(images, samples)[0].seg_logits.data, scores.flip(axes))


def test_mask_segmentor__scores_are_kept_on_demand(model_config):
    model_config.test_cfg = dict(return_scores=True)
    segmentor = MODELS.build(model_config).eval()
    images, samples = make_batch()
    for sample in segmentor.predict(images, samples):
        assert sample.seg_logits.data.shape == (NUM_CLASSES, 64, 96)
        assert torch.equal(sample.seg_logits.data.argmax(0), sample.pred_sem_seg.data[0])
        assert sample.seg_logits.data.min() >= 0


@pytest.mark.parametrize("max_memory_mb", [1, 64])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (0, np.int64(10), 0, 4), (3, 0, 5, 0)])
def test_mask_segmentor__labels_are_those_of_the_kept_scores(segmentor, padding, max_memory_mb):
    classes = torch.eye(6)[torch.arange(20) % 5].expand(2, -1, -1) * 8  # each class has queries, so that each may win
    prediction = MaskPrediction(classes, torch.randn(2, 20, 8), torch.randn(2, 8, 16, 24))
    segmentor.decode_head.predict = lambda *_: prediction
    segmentor.eval().test_cfg.max_memory_mb = max_memory_mb
    images, samples = make_batch((64, 96))
    for sample in samples:
        sample.set_metainfo(dict(ori_shape=(50, 61), img_padding_size=padding))
    labels = [sample.pred_sem_seg.data.clone() for sample in segmentor.predict(images, samples)]
    segmentor.test_cfg.return_scores = True
    for sample, found in zip(segmentor.predict(images, samples), labels, strict=True):
        assert len(found.unique()) > 1
        assert torch.equal(found[0], sample.seg_logits.data.argmax(0))


def test_mask_segmentor__test_cfg_assigned_after_building(segmentor):
    segmentor.test_cfg = dict(mode="slide", crop_size=(64, 64), stride=(32, 32))
    assert segmentor.test_cfg.return_scores is False
    with pytest.raises(ValueError, match="needs crop_size and stride"):
        segmentor.test_cfg = dict(mode="slide")


def slide(segmentor, **test_cfg):
    segmentor.test_cfg.update(dict(mode="slide") | test_cfg)
    return segmentor


def test_mask_segmentor__slide_with_one_window_is_whole(segmentor):
    images, _ = make_batch()
    whole = segmentor.eval()._scores(images)
    for crop in ((64, 96), (100, 200)):
        assert torch.equal(slide(segmentor, crop_size=crop, stride=(32, 32))._scores(images), whole)


@pytest.mark.parametrize("crop", [(64, 64), (40, 50), (33, 95), (64, 31)])
def test_mask_segmentor__slide_with_any_crop(segmentor, crop):
    images, samples = make_batch()
    stride = (crop[0] // 2, crop[1] // 2)
    predicted = slide(segmentor.eval(), crop_size=crop, stride=stride).predict(images, samples)
    assert [tuple(sample.pred_sem_seg.data.shape) for sample in predicted] == [(1, 64, 96)] * 2


def test_mask_segmentor__slide_sees_each_window_alone(segmentor):
    images, _ = make_batch((64, 128))
    segmentor.eval()
    halves = [segmentor._scores(half.contiguous()) for half in images.split(64, -1)]
    joined = slide(segmentor, crop_size=(64, 64), stride=(64, 64))._scores(images)
    torch.testing.assert_close(joined, torch.cat(halves, -1))


def test_mask_segmentor__several_scales_are_averaged(segmentor):
    images, _ = make_batch()
    segmentor = slide(segmentor.eval(), crop_size=(40, 50), stride=(20, 25))
    alone = [slide(segmentor, scale=scale)._scores(images) for scale in (1.0, 0.5, 1.5)]
    torch.testing.assert_close(slide(segmentor, scale=[1.0, 0.5, 1.5])._scores(images), sum(alone) / 3)


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        (dict(mode="tiles"), "expected 'whole' or 'slide', got 'tiles'"),
        (dict(mode="slide", crop_size=(8, 8)), "needs crop_size and stride"),
        (dict(crop=(8, 8)), r"got \['crop'\] as well"),
    ],
)
def test_mask_segmentor__wrong_test_cfg(model_config, test_cfg, message):
    model_config.test_cfg = test_cfg
    with pytest.raises(ValueError, match=message):
        MODELS.build(model_config)


def test_mask_segmentor__tensor_mode(segmentor):
    class_logits, mask_logits = segmentor.eval()(torch.randn(2, 3, 64, 96), mode="tensor")
    assert class_logits.shape == (2, 20, NUM_CLASSES + 1)
    assert mask_logits.shape == (2, 20, 16, 24)


def test_mask_segmentor__nan_in_the_image_is_named(segmentor):
    images, samples = make_batch()
    segmentor.train()  # puts batch norm into its frozen mode, where images do not mix
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="Matching cost of image 1, supervised layer 0"):
        segmentor.loss(images, samples)


def test_mask_segmentor__batch_mates_change_nothing(segmentor):
    images, _ = make_batch()
    segmentor.eval()
    together = segmentor.encode_decode(images)
    alone = torch.cat([segmentor.encode_decode(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_mask_segmentor__predicts_with_the_last_prediction(segmentor):
    features = segmentor.eval().extract_feat(torch.randn(1, 3, 64, 96))
    result = segmentor.decode_head.predict(features)
    assert isinstance(result, MaskPrediction)
    expected = segmentor.decode_head(features)[-1]
    assert torch.equal(result.class_logits, expected.class_logits)


@pytest.mark.parametrize(
    "test_cfg", [{}, dict(return_scores=True), dict(mode="slide", crop_size=(64, 64), stride=(32, 32))]
)
def test_mask_segmentor__certainty_leaves_the_labels(segmentor, test_cfg):
    segmentor.eval().test_cfg = test_cfg
    images, samples = make_batch((64, 96))
    for sample in samples:
        sample.set_metainfo(dict(ori_shape=(50, 61), img_padding_size=(0, 10, 0, 4)))
    labels = [sample.pred_sem_seg.data.clone() for sample in segmentor.predict(images, samples)]
    assert not any("pred_certainty" in sample for sample in samples)
    for temperature in (1.0, 4.0):
        segmentor.test_cfg = dict(test_cfg, temperature=temperature)
        for sample, before in zip(segmentor.predict(images, samples), labels, strict=True):
            assert torch.equal(sample.pred_sem_seg.data, before)
            certainty = sample.pred_certainty
            assert certainty.confidence.shape == certainty.unknown.shape == (1, 50, 61)
            assert (certainty.confidence + certainty.unknown).max() <= 1 + 1e-6
            assert certainty.confidence.min() > 0


def test_mask_segmentor__certainty_is_that_of_the_kept_scores(segmentor):
    images, samples = make_batch((64, 96))
    segmentor.eval().test_cfg = dict(temperature=1.5)
    streamed = [sample.pred_certainty.clone() for sample in segmentor.predict(images, samples)]
    segmentor.test_cfg = dict(temperature=1.5, return_scores=True)
    for sample, found in zip(segmentor.predict(images, samples), streamed, strict=True):
        probs = known_probs(sample.seg_logits.data[None], 1.5)[0]
        torch.testing.assert_close(found.confidence, probs[:-1].amax(0, keepdim=True), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.unknown, probs[-1:], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(sample.pred_certainty.confidence, found.confidence, rtol=1e-4, atol=1e-6)


def test_mask_segmentor__temperature_is_above_zero(segmentor):
    with pytest.raises(ValueError, match=r"model.test_cfg.temperature: expected a finite number above 0, got 0.0"):
        segmentor.test_cfg = dict(temperature=0.0)


def test_mask_segmentor__mask_dino_learns_from_label_maps():
    cfg = Config.fromfile(CONFIGS / "_base_/models/mask_dino_tiny_semantic.py").model
    backbone = dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN"), norm_eval=True)
    cfg.update(backbone=backbone)
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.pixel_decoder.update(num_layers=1, channels=16, num_heads=2)
    cfg.decode_head.query_decoder.update(num_layers=2, num_queries=9, num_heads=2)
    cfg.decode_head.criterion.sampling.num_points = 64
    segmentor = MODELS.build(cfg)
    losses = segmentor.loss(*make_batch())
    # Five losses of three predictions, and of the copies after each of two layers.
    assert len([name for name in losses if "loss" in name]) == 5 * (3 + 2)
    total, _ = segmentor.parse_losses(losses)
    total.backward()
    assert [name for name, p in segmentor.named_parameters() if p.grad is None] == []
    images, samples = make_batch()
    assert all(sample.pred_sem_seg.data.shape == (1, 64, 96) for sample in segmentor.eval().predict(images, samples))
