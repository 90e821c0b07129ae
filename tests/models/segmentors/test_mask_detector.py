import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData

from tests.models.conftest import NUM_CLASSES

THINGS = [0, 3]


@pytest.fixture
def detector_config(model_config: ConfigDict) -> ConfigDict:
    model_config.update(type="mmseg_m2f.MaskDetector", thing_classes=THINGS)
    return model_config


def make_batch(num_objects: int = 3) -> tuple[torch.Tensor, list[DetDataSample]]:
    """One image of 64×96 pixels, padded from 60×90, with objects in front of two kinds of stuff."""
    masks = np.zeros((num_objects, 64, 96), np.uint8)
    semantic = torch.full((1, 64, 96), 255)
    semantic[:, :60, :40], semantic[:, :60, 40:90] = 1, 4
    for index, mask in enumerate(masks):
        mask[10 * index : 10 * index + 12, 20 : 50 + 5 * index] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(60, 90), ori_shape=(30, 45)))
    labels = torch.tensor([0, 3, 0])[:num_objects]
    sample.gt_instances = InstanceData(labels=labels, masks=BitmapMasks(masks, 64, 96))
    sample.gt_sem_seg = PixelData(sem_seg=semantic)
    return torch.randn(1, 3, 64, 96), [sample]


@pytest.mark.parametrize("num_objects", [3, 0])
def test_mask_detector__one_training_step(detector_config, num_objects):
    detector = MODELS.build(detector_config)
    total, _ = detector.parse_losses(detector.loss(*make_batch(num_objects)))
    total.backward()
    assert total.isfinite()
    assert [name for name, p in detector.named_parameters() if p.grad is None] == []


def test_mask_detector__weights_are_the_segmentors(detector_config, segmentor):
    detector = MODELS.build(detector_config)
    assert list(detector.state_dict()) == list(segmentor.state_dict())
    detector.load_state_dict(segmentor.state_dict(), strict=True)


def test_mask_detector__three_answers_from_one_pass(detector_config):
    detector_config.test_cfg = dict(semantic=True, object_threshold=0.0, overlap_threshold=0.0)
    detector = MODELS.build(detector_config).eval()
    calls = []
    detector.backbone.register_forward_hook(lambda *_: calls.append(1))
    (found,) = detector.predict(*make_batch())
    assert len(calls) == 1
    assert found.pred_panoptic_seg.sem_seg.shape == (1, 30, 45)
    assert found.pred_sem_seg.sem_seg.shape == (1, 30, 45)
    assert found.pred_instances.masks.shape[1:] == (30, 45)
    assert set(found.pred_instances.labels.tolist()) <= set(THINGS)
    # 20 queries and 2 kinds of things: 40 pairs at most, although 100 are asked for.
    assert 0 < len(found.pred_instances) <= 40


def test_mask_detector__answers_as_asked(detector_config):
    detector_config.test_cfg = dict(panoptic=False)
    detector = MODELS.build(detector_config).eval()
    images, samples = make_batch()
    (found,) = detector.predict(images, samples, rescale=False)
    assert "pred_panoptic_seg" not in found
    assert found.pred_instances.masks.shape[1:] == (60, 90)


def test_mask_detector__unknown_test_cfg(detector_config):
    detector_config.test_cfg = dict(object_treshold=0.5)
    with pytest.raises(ValueError, match=r"got \['object_treshold'\] as well"):
        MODELS.build(detector_config)


def test_mask_detector__tensor_mode(detector_config):
    class_logits, mask_logits = MODELS.build(detector_config).eval()(torch.randn(1, 3, 64, 96), mode="tensor")
    assert class_logits.shape == (1, 20, NUM_CLASSES + 1)
    assert mask_logits.shape == (1, 20, 16, 24)


def test_mask_detector__too_many_classes_for_a_panoptic_map(detector_config):
    detector_config.decode_head.num_classes = 1000
    with pytest.raises(ValueError, match=r"num_classes is 1000. Expected fewer than 1000 classes"):
        MODELS.build(detector_config)
