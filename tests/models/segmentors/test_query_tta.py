import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import Tensor

from mmseg_m2f.config.load import load_config
from mmseg_m2f.core.confidence import temper_scores
from mmseg_m2f.core.view_merging import merge_objects, objects_found
from mmseg_m2f.models.segmentors import QueryTTA


@pytest.fixture
def detector(model_config: ConfigDict) -> torch.nn.Module:
    model_config.update(type="mmseg_m2f.MaskDetector", thing_classes=[0, 3])
    model_config.data_preprocessor = dict(type="mmdet.DetDataPreprocessor")
    model_config.test_cfg = dict(semantic=True, object_threshold=0.0, overlap_threshold=0.0)
    torch.manual_seed(3)
    return MODELS.build(model_config).eval()


@pytest.fixture
def mask_dino() -> torch.nn.Module:
    """With classes that are sigmoids, and with boxes."""
    cfg = load_config("mask-dino_r18_shapes-panoptic_demo", {"pretrained": False})
    torch.manual_seed(3)
    model = MODELS.build(cfg.model).eval()
    model.test_cfg = dict(model.test_cfg, object_threshold=0.0, overlap_threshold=0.0)
    return model


def views(image: Tensor) -> dict:
    """A batch of one image: as it is and mirrored."""
    size = tuple(image.shape[1:])
    samples = [
        DetDataSample(metainfo=dict(img_shape=size, ori_shape=(50, 83), flip=flip, flip_direction="horizontal"))
        for flip in (False, True)
    ]
    return dict(inputs=[[image], [image.flip(2)]], data_samples=[[sample] for sample in samples])


def test_query_tta__is_flip_equivariant_to_the_last_bit(detector):
    image = torch.randint(256, (3, 60, 90), dtype=torch.uint8)
    augmented = QueryTTA(detector).eval()
    (plain,), (flipped,) = (augmented.test_step(views(each)) for each in (image, image.flip(2)))
    assert torch.equal(plain.pred_panoptic_seg.sem_seg.flip(2), flipped.pred_panoptic_seg.sem_seg)
    assert torch.equal(plain.pred_sem_seg.sem_seg.flip(2), flipped.pred_sem_seg.sem_seg)
    found, mirrored = plain.pred_instances, flipped.pred_instances
    assert len(found.scores.unique()) > 10
    assert torch.equal(found.scores, mirrored.scores)
    assert torch.equal(found.labels, mirrored.labels)
    assert torch.equal(found.masks.flip(2), mirrored.masks)


def test_query_tta__one_view_gives_the_results_without(detector):
    image = torch.randint(256, (3, 60, 90), dtype=torch.uint8)
    one_view = {name: part[:1] for name, part in views(image).items()}
    (expected,) = detector.test_step(dict(inputs=[image], data_samples=views(image)["data_samples"][0]))
    (found,) = QueryTTA(detector).eval().test_step(one_view)
    torch.testing.assert_close(
        found.pred_instances.scores.sort()[0], expected.pred_instances.scores.sort()[0], atol=1e-5, rtol=0
    )
    assert (found.pred_sem_seg.sem_seg == expected.pred_sem_seg.sem_seg).float().mean() > 0.999
    assert "pred_queries" not in found


def test_query_tta__boxes_and_classes_of_sigmoids(mask_dino):
    image = torch.randint(256, (3, 60, 90), dtype=torch.uint8)
    one_view = {name: part[:1] for name, part in views(image).items()}
    (expected,) = mask_dino.test_step(dict(inputs=[image], data_samples=views(image)["data_samples"][0]))
    augmented = QueryTTA(mask_dino).eval()
    (found,) = augmented.test_step(one_view)
    order, expected_order = (x.pred_instances.scores.argsort(stable=True) for x in (found, expected))
    for name in ("scores", "bboxes"):
        ours, theirs = found.pred_instances[name][order], expected.pred_instances[name][expected_order]
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    for name in ("pred_sem_seg", "pred_panoptic_seg"):  # instances are numbered in another order
        classes, expected_classes = (x.get(name).sem_seg % 1000 for x in (found, expected))
        assert (classes == expected_classes).float().mean() > 0.999

    (plain,), (flipped,) = (augmented.test_step(views(each)) for each in (image, image.flip(2)))
    assert torch.equal(plain.pred_panoptic_seg.sem_seg.flip(2), flipped.pred_panoptic_seg.sem_seg)
    assert torch.equal(plain.pred_sem_seg.sem_seg.flip(2), flipped.pred_sem_seg.sem_seg)
    assert torch.equal(plain.pred_instances.masks.flip(2), flipped.pred_instances.masks)
    boxes = bbox_flip(plain.pred_instances.bboxes, (50, 83), "horizontal")
    torch.testing.assert_close(boxes, flipped.pred_instances.bboxes, atol=1e-3, rtol=0)
    best, best_alone = (x.pred_instances.scores.sort(descending=True)[0][:30] for x in (plain, expected))
    assert (best - best_alone).abs().max() > 1e-3


def test_query_tta__refuses_detr():
    model = MODELS.build(load_config("detr-tiny_r18_shapes_debug", {"pretrained": False}).model).eval()
    with pytest.raises(ValueError, match="got boxes and a softmax"):
        QueryTTA(model).eval().test_step(views(torch.randint(256, (3, 60, 90), dtype=torch.uint8)))


def test_query_tta__images_of_different_sizes_in_a_batch(detector):
    """Each view pads its images to the largest; every image keeps the results that it has alone."""
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((60, 90), (32, 40))]
    first, second = map(views, images)
    both = {key: [a + b for a, b in zip(first[key], second[key], strict=True)] for key in first}
    augmented = QueryTTA(detector).eval()
    together = augmented.test_step(both)
    alone = [augmented.test_step(views(image))[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert one.pred_sem_seg.sem_seg.shape == other.pred_sem_seg.sem_seg.shape == (1, 50, 83)
        assert (one.pred_sem_seg.sem_seg == other.pred_sem_seg.sem_seg).float().mean() > 0.999
        scores = (sample.pred_instances.scores.sort()[0] for sample in (one, other))
        torch.testing.assert_close(*scores, atol=1e-5, rtol=0)


def test_query_tta__through_windows_one_view_gives_the_results_without(detector):
    detector.test_cfg = dict(detector.test_cfg, mode="slide", crop_size=(32, 48), stride=(16, 24), temperature=2.0)
    image = torch.randint(256, (3, 60, 90), dtype=torch.uint8)
    one_view = {name: part[:1] for name, part in views(image).items()}
    (expected,) = detector.test_step(dict(inputs=[image], data_samples=views(image)["data_samples"][0]))
    (found,) = QueryTTA(detector).eval().test_step(one_view)
    assert torch.equal(found.pred_panoptic_seg.sem_seg, expected.pred_panoptic_seg.sem_seg)
    assert torch.equal(found.pred_sem_seg.sem_seg, expected.pred_sem_seg.sem_seg)
    assert torch.equal(found.pred_certainty.confidence, expected.pred_certainty.confidence)
    for name in ("labels", "scores", "masks", "bboxes"):
        assert torch.equal(found.pred_instances[name], expected.pred_instances[name])
    assert "pred_views" not in found


def test_query_tta__through_windows_views_are_put_together(detector):
    detector.test_cfg = dict(detector.test_cfg, mode="slide", crop_size=(32, 48), stride=(16, 24))
    image = torch.randint(256, (3, 60, 90), dtype=torch.uint8)
    batch = views(image)
    detector.test_cfg = dict(detector.test_cfg, return_queries=True)
    parts = [
        part
        for images, samples in zip(*batch.values(), strict=True)
        for sample in detector.test_step(dict(inputs=images, data_samples=samples))
        for part in sample.pred_views
    ]
    assert len(parts) == 2
    mean = (parts[0].scores + parts[1].scores) / 2
    (found,) = QueryTTA(detector).eval().test_step(views(image))
    assert torch.equal(found.pred_sem_seg.sem_seg[0], mean.argmax(0))
    assert found.pred_panoptic_seg.sem_seg.shape == (1, 50, 83)
    assert found.pred_instances.scores[0] == max(
        each.score for each in merge_objects([objects_found(part.objects) for part in parts], (50, 83))
    )


def test_query_tta__confidences_of_the_merged_queries(detector):
    detector.test_cfg = dict(detector.test_cfg, temperature=2.0, score_temperature=2.0)
    (found,) = QueryTTA(detector).eval().test_step(views(torch.randint(256, (3, 60, 90), dtype=torch.uint8)))
    assert torch.equal(found.pred_instances.confidences, temper_scores(found.pred_instances.scores, 2.0))
    assert found.pred_certainty.confidence.shape == (1, 50, 83)
