import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmseg_m2f.models.equal_sizes import group_equal, take_images
from mmseg_m2f.models.network import last_prediction, lay_out, run_network
from tests.models.conftest import make_batch


def test_lay_out__channels_last_on_a_device_and_unchanged_on_a_cpu():
    images = torch.randn(2, 3, 8, 8)
    assert lay_out(images) is images
    assert lay_out(images.to("meta")).is_contiguous(memory_format=torch.channels_last)


def test_run_network__the_layout_of_images_changes_nothing(segmentor, monkeypatch):
    images, _ = make_batch()
    usual, _ = run_network(segmentor, images)
    monkeypatch.setattr(
        "mmseg_m2f.models.segmentors.mask_segmentor.lay_out",
        lambda images: images.contiguous(memory_format=torch.channels_last),
    )
    laid_out, _ = run_network(segmentor, images)
    for one, other in zip(laid_out, usual, strict=True):
        torch.testing.assert_close(one.class_logits, other.class_logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.mask_logits(), other.mask_logits(), rtol=1e-4, atol=1e-3)


def test_last_prediction__is_the_last_of_all(segmentor):
    images, _ = make_batch()
    predictions, features = run_network(segmentor.eval(), images)
    assert features is None
    torch.testing.assert_close(last_prediction(segmentor, images).class_logits, predictions[-1].class_logits)


def test_run_network__features_where_a_loss_looks_at_them(model_config):
    segmentor = MODELS.build(model_config)
    segmentor.decode_head.extra_losses.append(nn.Identity())
    _, features = run_network(segmentor, make_batch()[0])
    assert len(features) == 4


def test_group_equal__in_order_of_the_first():
    assert group_equal([(2, 3), (1, 1), (2, 3)]) == [((2, 3), [0, 2]), ((1, 1), [1])]


@pytest.mark.parametrize("images", [[0, 1, 2], [0, 2], [1]])
def test_take_images__some_or_all(images):
    x = torch.randn(3, 4)
    assert torch.equal(take_images(x, images), x[images])
    assert (take_images(x, images) is x) == (len(images) == 3)
