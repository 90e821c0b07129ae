import pytest
import torch
from mmengine.registry import MODELS

from tests.models.conftest import NUM_CLASSES, make_batch


def test_mask_head__without_criterion_predicts_only(model_config):
    model_config.decode_head.criterion = None
    segmentor = MODELS.build(model_config)
    images, samples = make_batch()
    assert segmentor.eval().predict(images, samples)[0].pred_sem_seg.data.shape == (1, 64, 96)
    with pytest.raises(ValueError, match=r"decode_head.criterion is None"):
        segmentor.loss(images, samples)


def test_mask_head__checkpoint_of_another_class_count(segmentor, model_config):
    model_config.decode_head.num_classes = 9
    stored = MODELS.build(model_config).state_dict()
    message = r"class layer .* has 9 classes, but decode_head.num_classes is 5. Set num_classes=9 .*replace_classifier"
    with pytest.raises(ValueError, match=message):
        segmentor.load_state_dict(stored)


def test_mask_head__classifier_replaced_on_demand(model_config):
    model_config.decode_head.num_classes = 9
    stored = MODELS.build(model_config).state_dict()
    model_config.decode_head.update(num_classes=NUM_CLASSES, replace_classifier=True)
    segmentor = MODELS.build(model_config)
    fresh = segmentor.decode_head.query_decoder.cls_embed.weight.clone()
    segmentor.load_state_dict(stored)
    assert torch.equal(segmentor.decode_head.query_decoder.cls_embed.weight, fresh)
    query_feat = "decode_head.query_decoder.query_feat.weight"
    assert torch.equal(segmentor.state_dict()[query_feat], stored[query_feat])


def test_mask_head__content_of_the_queries_is_kept_apart(model_config):
    model_config.decode_head.content_loss = dict(type="mmseg_m2f.ContentOrthogonalityLoss", loss_weight=2.0)
    segmentor = MODELS.build(model_config)
    content = segmentor.decode_head.query_decoder.query_feat.weight
    with torch.no_grad():
        content.zero_()[:, 0] = 1
        content[0, :2] = torch.tensor([3.0, 4.0])  # a cosine of 0.6 with each of the 19 others, whose cosines are 1
    losses = segmentor.loss(*make_batch())
    assert losses["loss_content"].item() == pytest.approx(2 * (19 * 0.36 + 19 * 18 / 2) / (20 * 19 / 2))
    losses["loss_content"].backward()
    assert content.grad[0].any()


def test_mask_head__decoder_without_content(model_config):
    model_config.decode_head.query_decoder = dict(type="mmseg_m2f.CrossAttentionDecoder", num_queries=5)
    model_config.decode_head.content_loss = dict(type="mmseg_m2f.ContentOrthogonalityLoss")
    with pytest.raises(ValueError, match="CrossAttentionDecoder has no learnt content"):
        MODELS.build(model_config)
