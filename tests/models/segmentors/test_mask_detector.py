import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS
from mmengine.structures import InstanceData, PixelData

from mmseg_m2f.config.load import load_config
from mmseg_m2f.core.boxes import generalized_iou
from mmseg_m2f.core.confidence import temper_scores
from mmseg_m2f.core.postprocess import tight_boxes
from tests.models.conftest import CONFIGS, NUM_CLASSES

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


def test_mask_detector__three_results_from_one_pass(detector_config):
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


def test_mask_detector__predicts_as_asked(detector_config):
    detector_config.test_cfg = dict(panoptic=False)
    detector = MODELS.build(detector_config).eval()
    images, samples = make_batch()
    (found,) = detector.predict(images, samples, rescale=False)
    assert "pred_panoptic_seg" not in found
    assert found.pred_instances.masks.shape[1:] == (60, 90)


def test_mask_detector__test_cfg_assigned_after_building(detector_config):
    detector = MODELS.build(detector_config).eval()
    detector.test_cfg = dict(panoptic=False, instance=True)
    assert detector.test_cfg.mode == "whole"
    (sample,) = detector.predict(*(part[:1] for part in make_batch()))
    assert "pred_panoptic_seg" not in sample
    assert "pred_instances" in sample
    with pytest.raises(ValueError, match="object_treshold"):
        detector.test_cfg = dict(object_treshold=0.5)


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


def detr_config(model: str) -> ConfigDict:
    """A DETR of one layer each."""
    cfg = Config.fromfile(CONFIGS / f"_base_/models/{model}.py").model
    cfg.update(backbone=dict(type="mmseg.ResNet", depth=18), thing_classes=THINGS)
    small = dict(num_layers=1, num_heads=4, feedforward_channels=32, dropout=0.0)
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.pixel_decoder.update(small, channels=128)
    cfg.decode_head.query_decoder.update(small, num_queries=9)
    return cfg


def make_box_batch() -> tuple[torch.Tensor, list[DetDataSample]]:
    images, (sample,) = make_batch()
    sample.gt_instances.bboxes = tight_boxes(sample.gt_instances.masks.to_tensor(torch.bool, "cpu"))
    return images, [sample]


def test_mask_detector__detr_boxes_learn_from_samples_without_masks():
    detector = MODELS.build(detr_config("detr"))
    images, (sample,) = make_box_batch()
    del sample.gt_instances.masks
    total, logged = detector.parse_losses(detector.loss(images, [sample]))
    total.backward()
    assert {"loss_cls", "loss_bbox", "loss_iou"} <= set(logged)
    assert [name for name, p in detector.named_parameters() if p.grad is None and "backbone" not in name] == []


def test_mask_detector__detr_predicts_boxes():
    detector = MODELS.build(detr_config("detr")).eval()
    (found,) = detector.predict(*make_box_batch())
    boxes = found.pred_instances.bboxes
    assert "masks" not in found.pred_instances
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([45, 30, 45, 30])).all()
    assert set(found.pred_instances.labels.tolist()) <= set(THINGS)


def test_mask_detector__detr_mask_head_is_trained_alone():
    detector = MODELS.build(detr_config("detr_panoptic"))
    total, logged = detector.parse_losses(detector.loss(*make_box_batch()))
    total.backward()
    assert {"loss_mask", "loss_dice"} <= set(logged)
    learnt = {name for name, p in detector.named_parameters() if p.grad is not None}
    assert learnt == {name for name, _ in detector.named_parameters() if ".mask_head." in name}


def test_mask_detector__detr_predicts_all_three():
    cfg = detr_config("detr_panoptic")
    cfg.test_cfg.update(semantic=True, object_threshold=0.0)
    (found,) = MODELS.build(cfg).eval().predict(*make_box_batch())
    assert found.pred_instances.masks.shape == (len(found.pred_instances), 30, 45)
    assert found.pred_panoptic_seg.sem_seg.shape == (1, 30, 45)
    assert (found.pred_panoptic_seg.sem_seg % 1000 <= NUM_CLASSES).all()


def test_mask_detector__padding_changes_nothing_for_the_transformer():
    # The same maps with other values in the padding: the boxes stay.
    detector = MODELS.build(detr_config("detr")).eval()
    images, samples = make_box_batch()
    maps = [x.clone() for x in detector.extract_feat(images)]
    expected, _ = detector._forward(images, samples)
    maps[-1][..., -1] = 1e3  # 90 of 96 columns are image; the last of three cells is padding as its nearest pixel is
    samples[0].set_metainfo(dict(img_shape=(60, 64)))
    detector.extract_feat = lambda _: maps
    padded, _ = detector._forward(images, samples)
    maps[-1][..., -1] = 0.0
    again, _ = detector._forward(images, samples)
    assert torch.equal(padded, again)
    assert not torch.equal(padded, expected)


def test_mask_detector__panoptic_result_of_boxes_alone():
    cfg = detr_config("detr")
    cfg.test_cfg.panoptic = True
    with pytest.raises(ValueError, match="the decoder predicts boxes alone"):
        MODELS.build(cfg).eval().predict(*make_box_batch())


def test_mask_detector__unknown_panoptic_rule(detector_config):
    detector_config.test_cfg = dict(panoptic_rule="kirillov")
    with pytest.raises(ValueError, match=r"expected one of \['mask2former', 'detr'\], got 'kirillov'"):
        MODELS.build(detector_config)


def test_mask_detector__frozen_parts_stay_as_they_are(detector_config):
    detector_config.trainable = ["decode_head.query_decoder."]
    detector_config.backbone.update(norm_eval=False)
    detector = MODELS.build(detector_config).train()
    frozen = [name for name, parameter in detector.named_parameters() if not parameter.requires_grad]
    assert {".".join(name.split(".")[:2]) for name in frozen if not name.startswith("backbone.")} == {
        "decode_head.pixel_decoder"
    }
    assert not any(module.training for module in detector.backbone.modules())
    assert not any(module.training for module in detector.decode_head.pixel_decoder.modules())
    assert all(module.training for module in detector.decode_head.query_decoder.modules())
    before = {name: value.clone() for name, value in detector.backbone.state_dict().items()}
    detector.backbone(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in detector.backbone.state_dict().items())


def test_mask_detector__trainable_does_not_thaw_what_is_frozen(detector_config):
    detector_config.trainable = ["backbone."]
    detector_config.backbone.update(frozen_stages=1, norm_eval=False)
    detector = MODELS.build(detector_config).train()
    assert not any(parameter.requires_grad for parameter in detector.backbone.layer1.parameters())
    assert all(parameter.requires_grad for parameter in detector.backbone.layer2.parameters())


def test_mask_detector__trainable_part_that_does_not_exist(detector_config):
    detector_config.trainable = ["decode_head.mask_head."]
    with pytest.raises(ValueError, match="got 'decode_head.mask_head.', with which none begins"):
        MODELS.build(detector_config)


def test_mask_detector__hundreds_of_objects(detector_config):
    # 375 objects for 20 queries: the surplus is counted, nothing else happens.
    detector = MODELS.build(detector_config)
    masks = np.zeros((375, 64, 96), np.uint8)
    for index, mask in enumerate(masks):
        top, left = divmod(index, 25)
        mask[4 * top : 4 * top + 3, 3 * left : 3 * left + 3] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96)))
    sample.gt_instances = InstanceData(labels=torch.zeros(375, dtype=torch.long), masks=BitmapMasks(masks, 64, 96))
    total, logged = detector.parse_losses(detector.loss(torch.randn(1, 3, 64, 96), [sample]))
    assert total.isfinite()
    assert logged["surplus_segments"].item() == 355


def test_mask_detector__mmdets_visualizer_draws_its_results(detector_config):
    detector_config.test_cfg = dict(object_threshold=0.0, overlap_threshold=0.0)
    detector = MODELS.build(detector_config).eval()
    detector.decode_head.query_decoder.cls_embed.bias.data[-1] = -9.0  # every query sees something
    (found,) = detector.predict(*make_batch())
    visualizer = DetLocalVisualizer(vis_backends=None)
    visualizer.dataset_meta = dict(
        classes=[f"class {k}" for k in range(NUM_CLASSES)], palette=[(9, 9, 9)] * NUM_CLASSES
    )
    blank = np.full((30, 45, 3), 255, np.uint8)
    visualizer.add_datasample("result", blank, found, draw_gt=False, pred_score_thr=0.01)
    assert (visualizer.get_image() != blank).any()


@pytest.mark.slow
def test_mask_detector__detr_learns_two_scenes_by_heart():
    torch.manual_seed(0)
    cfg = load_config(CONFIGS / "detr/detr-tiny_r18_shapes_debug.py")
    scenes = DATASETS.build(dict(cfg.val_dataloader.dataset, length=2))
    batch = pseudo_collate([scenes[0], scenes[1]])
    detector = MODELS.build(cfg.model)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=5e-4, weight_decay=1e-4)
    for _ in range(100):
        data = detector.data_preprocessor(batch, True)
        total, _ = detector.parse_losses(detector.loss(data["inputs"], data["data_samples"]))
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 0.1)
        optimizer.step()
    for sample in detector.eval().test_step(batch):
        found = sample.pred_instances[sample.pred_instances.scores > 0.5]
        overlap = generalized_iou(found.bboxes[:, None], tight_boxes(sample.gt_instances.masks)[None])
        same_class = found.labels[:, None] == sample.gt_instances.labels
        # Every object is found; that some are found twice takes longer to unlearn.
        assert overlap.where(same_class, -1.0).amax(0).mean() > 0.5


def test_mask_detector__one_window_over_the_image_changes_nothing(detector_config):
    settings = dict(semantic=True, object_threshold=0.0, overlap_threshold=0.0)
    detector_config.test_cfg = settings
    detector = MODELS.build(detector_config).eval()
    images, samples = make_batch()
    (whole,) = detector.predict(images, samples)
    whole = whole.clone()
    detector_config.test_cfg = dict(settings, mode="slide", crop_size=(64, 96), stride=(32, 48))
    sliding = MODELS.build(detector_config).eval()
    sliding.load_state_dict(detector.state_dict())
    (found,) = sliding.predict(images, samples)
    for name in ("bboxes", "labels", "scores", "masks"):
        assert torch.equal(found.pred_instances[name], whole.pred_instances[name])
    assert torch.equal(found.pred_panoptic_seg.sem_seg, whole.pred_panoptic_seg.sem_seg)
    assert torch.equal(found.pred_sem_seg.sem_seg, whole.pred_sem_seg.sem_seg)


@pytest.mark.parametrize("scale", [1.0, 0.5, [1.0, 0.5, 1.5]])
def test_mask_detector__windows_give_all_results_in_the_image_size(detector_config, scale):
    detector_config.test_cfg = dict(
        mode="slide", crop_size=(40, 40), stride=(20, 20), scale=scale, semantic=True, object_threshold=0.0
    )
    (found,) = MODELS.build(detector_config).eval().predict(*make_batch())
    assert found.pred_panoptic_seg.sem_seg.shape == found.pred_sem_seg.sem_seg.shape == (1, 30, 45)
    assert found.pred_instances.masks.shape == (len(found.pred_instances), 30, 45)
    torch.testing.assert_close(tight_boxes(found.pred_instances.masks), found.pred_instances.bboxes)
    assert (found.pred_instances.scores.diff() <= 0).all()


def test_mask_detector__several_scales_are_several_views(detector_config):
    settings = dict(mode="slide", crop_size=(40, 40), stride=(20, 20), semantic=True, object_threshold=0.0)
    detector_config.test_cfg = dict(settings, mask_nms_threshold=0.5)
    detector = MODELS.build(detector_config).eval()
    images, samples = make_batch()
    views = []
    for scale in (1.0, 0.5, 1.5):
        detector.test_cfg = dict(detector.test_cfg, scale=scale, return_queries=True)
        views += detector.predict(images, samples)[0].pred_views
    detector.test_cfg = dict(detector.test_cfg, scale=[1.0, 0.5, 1.5], return_queries=False)
    expected = detector.result_of_views(views)
    (found,) = detector.predict(images, samples)
    assert torch.equal(found.pred_instances.masks, expected.instances.masks)
    assert torch.equal(found.pred_instances.scores, expected.instances.scores)
    assert torch.equal(found.pred_panoptic_seg.sem_seg[0], expected.panoptic)
    mean = sum(view.scores for view in views) / 3
    torch.testing.assert_close(found.pred_sem_seg.sem_seg[0], mean.argmax(0))
    assert 1 < len(found.pred_instances) < sum(len(view.objects) for view in views)


def test_mask_detector__windows_need_masks():
    cfg = detr_config("detr")
    cfg.test_cfg.update(mode="slide", crop_size=(40, 40), stride=(20, 20))
    detector = MODELS.build(cfg).eval()
    with pytest.raises(ValueError, match="or for windows, but the decoder predicts boxes alone"):
        detector.predict(*make_box_batch())


def test_mask_detector__detr_with_masks_by_windows():
    cfg = detr_config("detr_panoptic")
    cfg.test_cfg.update(semantic=True, object_threshold=0.0, mode="slide", crop_size=(40, 40), stride=(20, 20))
    (found,) = MODELS.build(cfg).eval().predict(*make_box_batch())
    assert found.pred_instances.masks.shape == (len(found.pred_instances), 30, 45)
    assert found.pred_panoptic_seg.sem_seg.shape == (1, 30, 45)


@pytest.mark.parametrize("windows", [{}, dict(mode="slide", crop_size=(32, 64), stride=(32, 32))])
def test_mask_detector__confidences_leave_the_results(detector_config, windows):
    usual = dict(semantic=True, object_threshold=0.0, overlap_threshold=0.0, **windows)
    detector_config.test_cfg = usual
    detector = MODELS.build(detector_config).eval()
    images, samples = make_batch()
    (before,) = (sample.clone() for sample in detector.predict(images, samples))
    assert "pred_certainty" not in before
    assert "confidences" not in before.pred_instances
    detector.test_cfg = dict(usual, temperature=2.0, score_temperature=3.0)
    (found,) = detector.predict(images, samples)
    assert torch.equal(found.pred_sem_seg.sem_seg, before.pred_sem_seg.sem_seg)
    assert torch.equal(found.pred_panoptic_seg.sem_seg, before.pred_panoptic_seg.sem_seg)
    assert torch.equal(found.pred_instances.scores, before.pred_instances.scores)
    assert torch.equal(found.pred_instances.masks, before.pred_instances.masks)
    assert torch.equal(found.pred_instances.confidences, temper_scores(before.pred_instances.scores, 3.0))
    assert found.pred_certainty.confidence.shape == (1, 30, 45)
    assert (found.pred_certainty.confidence + found.pred_certainty.unknown).max() <= 1 + 1e-6


@pytest.mark.parametrize("key", ["temperature", "score_temperature"])
def test_mask_detector__temperatures_are_above_zero(detector_config, key):
    detector_config.test_cfg = {key: -1.0}
    with pytest.raises(ValueError, match=rf"model.test_cfg.{key}: expected a finite number above 0, got -1.0"):
        MODELS.build(detector_config)


def mask_dino_config() -> ConfigDict:
    cfg = Config.fromfile(CONFIGS / "_base_/models/mask_dino_tiny_instance.py").model
    backbone = dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN"), norm_eval=True)
    cfg.update(backbone=backbone, thing_classes=THINGS)
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.pixel_decoder.update(num_layers=1, channels=16, num_heads=2)
    cfg.decode_head.query_decoder.update(num_layers=2, num_queries=9, num_heads=2)
    cfg.decode_head.criterion.sampling.num_points = 64
    return cfg


@pytest.mark.parametrize("num_objects", [3, 0])
def test_mask_detector__mask_dino_takes_a_step(num_objects):
    detector = MODELS.build(mask_dino_config())
    images, (sample,) = make_batch(num_objects)
    losses = detector.loss(images, [sample])
    # Five losses of the encoder, of three predictions, and of the copies in each of these.
    assert len([name for name in losses if "loss" in name]) == 5 * (1 + 3 + 3)
    total, _ = detector.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert [name for name, p in detector.named_parameters() if p.grad is None] == []


def test_mask_detector__mask_dino_predicts_boxes_of_the_canvas():
    detector = MODELS.build(mask_dino_config()).eval()
    images, samples = make_batch()
    samples[0].set_metainfo(dict(img_shape=(64, 96), ori_shape=(32, 48)))
    logits, boxes, _ = detector._forward(images, samples)
    (found,) = detector.predict(images, samples)
    index = logits[0].flatten().argsort(descending=True)[:100]
    things = torch.isin(index % NUM_CLASSES, torch.tensor(THINGS))
    centres, sides = boxes[0, index[things] // NUM_CLASSES].split(2, -1)
    size = torch.tensor([48.0, 32.0])
    expected = torch.cat([(centres - sides / 2) * size, (centres + sides / 2) * size], -1)
    assert len(found.pred_instances) == len(expected)
    distances = torch.cdist(found.pred_instances.bboxes, expected)
    assert distances.amin(1).max() < 1e-3
    assert found.pred_instances.masks.shape[1:] == (32, 48)


def test_mask_detector__mask_dino_gives_all_three():
    cfg = mask_dino_config()
    cfg.test_cfg = dict(semantic=True, object_threshold=0.0, overlap_threshold=0.0)
    (found,) = MODELS.build(cfg).eval().predict(*make_batch())
    assert found.pred_panoptic_seg.sem_seg.shape == found.pred_sem_seg.sem_seg.shape == (1, 30, 45)
    assert (found.pred_panoptic_seg.sem_seg % 1000 <= NUM_CLASSES).all()
    assert len(found.pred_instances)
