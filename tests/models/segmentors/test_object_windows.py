import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from scipy import ndimage
from torch import Tensor

from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.evaluation import MaskAP, PanopticQuality
from mmseg_m2f.models.segmentors.detector_results import (
    DetectorResult,
    QueryOutputs,
    checked_test_cfg,
    detector_results,
)
from mmseg_m2f.models.segmentors.object_windows import ImageView, result_of_views, view_by_windows, windows_of

CLASSES = ("disc", "ring", "grass", "sky")
THINGS = (0, 1)
IS_THING = torch.tensor([True, True, False, False])
SIZE = (90, 150)
NUM_QUERIES = 40


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """H W: class + 1000 · number; connected things of any size in front of two kinds of stuff."""
    noise = ndimage.gaussian_filter(np.random.default_rng(7).normal(size=SIZE), 5)
    things, count = ndimage.label(noise > 0.4 * noise.std())
    assert 10 < count < NUM_QUERIES - 2
    stuff = np.where(np.arange(SIZE[1]) < 70, 2, 3)
    return torch.from_numpy(np.where(things > 0, things % 2 + 1000 * things, stuff))


def see(images: Tensor, valid: Tensor | None = None) -> QueryOutputs:
    """A network without errors: one query for each segment that an image shows, in the order of their numbers."""
    assert valid is None
    class_logits = torch.zeros(len(images), NUM_QUERIES, len(CLASSES) + 1)
    class_logits[..., -1] = 100.0
    masks = torch.full((len(images), NUM_QUERIES, *images.shape[-2:]), -100.0)
    for image, pixels in enumerate(images[:, 0].long()):
        for query, segment in enumerate(pixels.unique().tolist()):
            class_logits[image, query] = 0
            class_logits[image, query, segment % 1000] = 100.0
            masks[image, query][pixels == segment] = 100.0
    return QueryOutputs(class_logits, masks)


def view(truth: Tensor, size: tuple[int, int] = SIZE, **settings: object) -> tuple[ImageView, ConfigDict]:
    cfg = checked_test_cfg(dict(mode="slide", semantic=True, score_threshold=0.5, **settings))

    def finish(outputs: QueryOutputs, resizing: Resizing) -> list[DetectorResult]:
        return detector_results(outputs, resizing, IS_THING, num_things=2, cfg=checked_test_cfg(dict(cfg)))

    image, shape = truth[None, None].float(), (truth.shape[0], truth.shape[1])
    return view_by_windows(
        image, shape=shape, size=size, num_classes=len(CLASSES), cfg=cfg, predict=see, finish=finish
    ), cfg


def through_windows(truth: Tensor, size: tuple[int, int] = SIZE, **settings: object) -> DetectorResult:
    one, cfg = view(truth, size, **settings)
    return result_of_views([one], num_classes=len(CLASSES), cfg=cfg, device=truth.device)


@pytest.mark.parametrize(("crop", "stride"), [((32, 32), (16, 16)), ((64, 48), (50, 31)), ((90, 40), (90, 39))])
def test_result_by_windows__network_without_errors(truth, crop, stride):
    found = through_windows(truth, crop_size=crop, stride=stride)
    sample = DetDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE))
    found.write(sample)
    assert torch.equal(sample.pred_sem_seg.sem_seg[0], truth % 1000)
    things = truth.unique()
    things = things[things >= 1000]
    sample.gt_instances = InstanceData(
        labels=things % 1000, masks=BitmapMasks((truth == things[:, None, None]).numpy().astype(np.uint8), *SIZE)
    )
    sample.gt_sem_seg = PixelData(sem_seg=(truth % 1000)[None].byte())
    for metric, name in ((MaskAP(), "AP"), (PanopticQuality(thing_classes=THINGS), "PQ")):
        metric.dataset_meta = dict(classes=CLASSES)
        metric.process({}, [sample.to_dict()])
        assert metric.evaluate(size=1)[name] == 1.0


def test_result_by_windows__result_of_another_size(truth):
    found = through_windows(truth, size=(180, 300), crop_size=(32, 32), stride=(16, 16))
    whole = through_windows(truth, size=(180, 300), crop_size=SIZE, stride=SIZE)
    assert len(found.instances.labels) == len(whole.instances.labels)
    assert (found.labels == whole.labels).float().mean() > 0.99
    assert (found.panoptic % 1000 == whole.panoptic % 1000).float().mean() > 0.99


def test_result_by_windows__more_objects_than_wanted_are_reported(truth):
    with pytest.warns(UserWarning, match="objects with scores of 0.5 and more in an image and keeps 3"):
        found = through_windows(truth, crop_size=(32, 32), stride=(16, 16), max_objects=3)
    assert len(found.instances.labels) == 3


def test_windows_of__padding_is_left_out():
    cfg = checked_test_cfg(dict(mode="slide", crop_size=(64, 64), stride=(32, 32)))
    assert windows_of((96, 96), (70, 96), cfg).size == (70, 96)
    assert windows_of((96, 96), (50, 90), cfg).size == (64, 90)  # a window is not cut off
    assert windows_of((50, 96), (50, 90), cfg).size == (50, 90)


def test_result_of_views__a_network_without_errors_makes_none_in_several_views(truth):
    plain, cfg = view(truth, crop_size=(32, 32), stride=(16, 16))
    coarse, _ = view(truth, crop_size=(64, 48), stride=(50, 31))
    mirrored, _ = view(truth.flip(0, 1), crop_size=(32, 32), stride=(16, 16))
    views = [plain, coarse, mirrored.unflipped(dict(flip=True, flip_direction="diagonal"))]
    options = dict(num_classes=len(CLASSES), cfg=cfg, device=truth.device)
    found, expected = result_of_views(views, **options), result_of_views([plain], **options)
    assert torch.equal(found.labels, truth % 1000)
    assert torch.equal(found.panoptic % 1000, truth % 1000)
    assert len(found.panoptic.unique()) == len(truth.unique())
    masks = [{mask.numpy().tobytes() for mask in each.instances.masks} for each in (found, expected)]
    assert masks[0] == masks[1]
    assert found.instances.scores.unique().tolist() == expected.instances.scores.unique().tolist()


def test_result_of_views__duplicates_are_left_out_behind_merging(truth):
    """Objects that two views cut differently are two, of which one goes."""
    plain, cfg = view(truth, crop_size=SIZE, stride=SIZE)
    half = [each._replace(crop=each.crop & (np.arange(each.crop.shape[1]) % 3 > 1)) for each in plain.objects]
    views = [plain, plain._replace(objects=half)]
    options = dict(num_classes=len(CLASSES), device=truth.device)
    every = result_of_views(views, cfg=cfg, **options).instances
    kept = result_of_views(views, cfg=checked_test_cfg(dict(cfg, mask_nms_threshold=0.2)), **options).instances
    assert len(every.scores) > len(plain.objects)
    assert len(kept.scores) < len(every.scores)


@pytest.mark.parametrize(("direction", "axes"), [("horizontal", (1,)), ("vertical", (0,)), ("diagonal", (0, 1))])
def test_result_of_views__the_mirror_image_alone(truth, direction, axes):
    plain, cfg = view(truth, crop_size=(32, 32), stride=(16, 16))
    mirrored, _ = view(truth.flip(axes), crop_size=(32, 32), stride=(16, 16))
    options = dict(num_classes=len(CLASSES), cfg=cfg, device=truth.device)
    found = result_of_views([mirrored.unflipped(dict(flip=True, flip_direction=direction))], **options)
    expected = result_of_views([plain], **options)
    assert torch.equal(found.labels, truth % 1000)
    assert torch.equal(found.panoptic % 1000, truth % 1000)
    masks = [{mask.numpy().tobytes() for mask in each.instances.masks} for each in (found, expected)]
    assert masks[0] == masks[1]


def test_result_of_views__the_score_threshold_counts_for_the_result(truth):
    plain, cfg = view(truth, crop_size=SIZE, stride=SIZE)
    nothing = plain._replace(objects=[])
    options = dict(num_classes=len(CLASSES), device=truth.device)
    for threshold, count in ((0.4, len(plain.objects)), (0.6, 0)):  # an object of one view in two scores 0.5
        cfg = checked_test_cfg(dict(cfg, score_threshold=threshold))
        assert len(result_of_views([plain, nothing], cfg=cfg, **options).instances.scores) == count
