"""Full results of a fixed shape beside `predict`, which has windows, strips and variable counts."""

import jaxtyping
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_m2f.config.load import load_config
from mmseg_m2f.export.fixed_results import (
    Results,
    best_boxes,
    best_masks,
    check_expressible,
    check_no_views,
    ordered,
)
from mmseg_m2f.export.programs import Shape, trace
from mmseg_m2f.export.result_differences import check_results, compare_image
from mmseg_m2f.export.writers import finish_onnx, write_onnx
from mmseg_m2f.models.normalisation import Normalisation
from mmseg_m2f.runtime import ExportedModel, ExportRecord
from tests.models.conftest import CONFIGS, NUM_CLASSES
from tests.random_weights import shake

SIZE = (60, 90)  # padded to 64 × 96
PLAIN = Normalisation((100.0, 110.0, 120.0), (50.0, 60.0, 70.0), True, 32, 0.0)


def model_config() -> ConfigDict:
    cfg = load_config(CONFIGS / "mask2former/mask2former_r18_shapes_debug.py").model
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.backbone = dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN"), norm_eval=True)
    return cfg


def build(cfg: ConfigDict, **changes: object) -> torch.nn.Module:
    cfg.data_preprocessor = None
    cfg.update(changes)
    torch.manual_seed(3)
    model = MODELS.build(cfg).eval()
    model.data_preprocessor.pad_size_divisor = 32
    shake(model)
    decoder = model.decode_head.query_decoder
    decoder.cls_embed.weight.data *= 30  # queries of several classes, and masks with edges
    list(decoder.mask_embed.parameters())[-2].data *= 20
    return model


def prepare(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (PLAIN.mean, PLAIN.std))
    return torch.nn.functional.pad((images.flip(1).float() - mean) / std, (0, 6, 0, 4))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return (255 * torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)).to(torch.uint8)


@torch.no_grad()
def test_results__label_maps_are_the_segmentors(images):
    model = build(model_config())
    metainfo = dict(ori_shape=SIZE, img_shape=SIZE, img_padding_size=(0, 6, 0, 4))
    expected = model.predict(prepare(images), [SegDataSample(metainfo=metainfo) for _ in images])
    found = Results(model, PLAIN)(images)
    assert len(found["labels"].unique()) > 1
    assert torch.equal(found["labels"], torch.cat([sample.pred_sem_seg.data for sample in expected]))


@pytest.mark.parametrize(
    "test_cfg",
    [
        dict(semantic=True, object_threshold=0.2, overlap_threshold=0.3),
        dict(object_threshold=0.2, overlap_threshold=0.3, keep_low_pixels=True, one_class_per_query=True),
        dict(panoptic=False, things_first=False, max_per_image=12),
        dict(panoptic=False, score_threshold=0.2, max_per_image=15),
    ],
)
@torch.no_grad()
def test_results__are_the_detectors(images, test_cfg):
    model = build(model_config(), type="mmseg_m2f.MaskDetector", thing_classes=[0, 3], test_cfg=test_cfg)
    metainfo = dict(ori_shape=SIZE, img_shape=SIZE)
    expected = model.predict(prepare(images), [DetDataSample(metainfo=metainfo) for _ in images])
    found = Results(model, PLAIN)(images)
    for image, sample in enumerate(expected):
        if "pred_sem_seg" in sample:
            assert torch.equal(found["labels"][image], sample.pred_sem_seg.sem_seg[0])
        if "pred_panoptic_seg" in sample:
            assert torch.equal(found["panoptic"][image], sample.pred_panoptic_seg.sem_seg[0])
        objects = sample.pred_instances
        order = objects.scores.argsort(descending=True)
        kept = found["object_scores"][image] > 0
        real = objects.scores[order] > 0
        torch.testing.assert_close(found["object_scores"][image][kept], objects.scores[order][real], rtol=0, atol=1e-5)
        assert torch.equal(found["object_labels"][image][kept], objects.labels[order][real])
        assert torch.equal(found["object_boxes"][image][kept], objects.bboxes[order][real])
        assert torch.equal(found["object_masks"][image][kept], objects.masks[order][real].bool())
    assert (found["object_scores"] > 0).any()


def test_check_results__of_a_detector_names_what_differs(images):
    cfg = dict(semantic=True, object_threshold=0.2, max_per_image=12)
    model = build(model_config(), type="mmseg_m2f.MaskDetector", thing_classes=[0, 3], test_cfg=cfg)
    prepared = dict(mean=list(PLAIN.mean), std=list(PLAIN.std), bgr_to_rgb=True, pad_size_divisor=32)
    model.data_preprocessor = MODELS.build(dict(type="mmdet.DetDataPreprocessor", **prepared))
    check_results(model, Results(model, PLAIN), images)
    with pytest.raises(ValueError, match=r"60 x 90: \d+ labels, \d+ panoptic ids and [1-9]\d* objects differ"):
        check_results(model, Results(model, PLAIN._replace(to_rgb=False)), images)


class Objects(torch.nn.Module):
    """The objects of a full file, of queries with masks or with boxes."""

    def __init__(self, *, has_boxes: bool) -> None:
        super().__init__()
        self.has_boxes = has_boxes
        self.register_buffer("is_thing", torch.tensor([True, False, True]))

    def forward(self, classes: torch.Tensor, masks: torch.Tensor, boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.has_boxes:
            size = (masks.shape[2], masks.shape[3])
            return ordered(best_boxes(classes, boxes, masks, self.is_thing, size, 4), 0.0)
        options = dict(max_per_image=4, things_first=False, one_class_per_query=False)
        return ordered(best_masks(classes, masks, self.is_thing, **options), 0.0)


@pytest.mark.parametrize("has_boxes", [False, True])
def test_objects__one_program_for_any_number_and_size_of_images(has_boxes, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

    def inputs(*size):
        return torch.randn(size[0], 6, 4), torch.randn(size[0], 6, *size[1:]), torch.rand(size[0], 6, 4)

    model, any_size = Objects(has_boxes=has_boxes), torch.export.Dim.DYNAMIC
    shapes = ({0: any_size}, {0: any_size, 2: any_size, 3: any_size}, {0: any_size})
    program = torch.export.export(model, inputs(2, 10, 15), dynamic_shapes=shapes).module(check_guards=False)
    for size in ((1, 8, 8), (3, 7, 9)):
        given = inputs(*size)
        for name, wanted in model(*given).items():
            torch.testing.assert_close(program(*given)[name], wanted, rtol=0, atol=0)


@torch.no_grad()
def test_results__of_patches_take_any_size(monkeypatch):
    """EoMT, padded inside the file to the multiples of its patches that the config asks for."""
    pytest.importorskip("timm")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    cfg = load_config(CONFIGS / "eomt/eomt_tiny_shapes-panoptic_demo.py").model
    cfg.backbone.update(patch_size=14, num_joint_blocks=1, img_size=(28, 28), model_options=dict(depth=2))
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    full = Results(model, PLAIN._replace(size_divisor=28))
    program = trace(full, Shape(), dtype=torch.uint8)
    for size in ((1, 30, 41), (2, 56, 28)):
        images = torch.randint(256, (size[0], 3, *size[1:]), dtype=torch.uint8)
        expected, found = full(images), program(dict(images=images))
        assert found["panoptic"].shape == size
        assert torch.equal(found["panoptic"], expected["panoptic"])
        torch.testing.assert_close(found["object_scores"], expected["object_scores"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("task", ["semantic", "panoptic", "instance"])
@torch.no_grad()
def test_results__of_the_onnx_file_are_the_models(task, images, tmp_path, monkeypatch):
    """Through onnxruntime, for images that are padded; one program for other sizes than the example's."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    cfg = model_config()
    cfg.decode_head.query_decoder.num_layers = 2
    cfg.decode_head.pixel_decoder.num_layers = 1
    metainfo = dict(ori_shape=SIZE, img_shape=SIZE, img_padding_size=(0, 6, 0, 4))
    if task == "semantic":
        model = build(cfg)
        samples = model.predict(prepare(images), [SegDataSample(metainfo=metainfo) for _ in images])
    else:
        tasks = dict(panoptic=task == "panoptic", instance=task == "instance", object_threshold=0.2)
        model = build(cfg, type="mmseg_m2f.MaskDetector", thing_classes=[0, 3], test_cfg=tasks)
        samples = model.predict(prepare(images), [DetDataSample(metainfo=metainfo) for _ in images])
    traced = trace(Results(model, PLAIN), Shape(), dtype=torch.uint8)
    write_onnx(traced, tmp_path / "staged.onnx")
    record = ExportRecord(output="full", tasks=(task,), config="{}", classes=tuple("abcd"))
    finish_onnx(tmp_path / "staged.onnx", tmp_path / "full.onnx", record, outputs=traced.outputs)
    found = ExportedModel(tmp_path / "full.onnx")(images.numpy())
    differences = [
        compare_image({name: value[image] for name, value in found.items()}, sample)
        for image, sample in enumerate(samples)
    ]
    assert [each.labels + each.panoptic + each.objects for each in differences] == [0, 0]
    assert max(each.scores for each in differences) <= 1e-5
    assert task != "instance" or min(each.num_objects for each in differences) > 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(test_cfg=dict(mode="slide", crop_size=(32, 32), stride=(16, 16))), "windows"),
        (dict(test_cfg=dict(return_scores=True)), r"views are joined by \(test_cfg.return_scores\)"),
        (
            dict(data_preprocessor=dict(type="mmseg.SegDataPreProcessor", test_cfg=dict(size=(64, 96)))),
            "padding to one size",
        ),
        (
            dict(type="mmseg_m2f.MaskDetector", thing_classes=[0], test_cfg=dict(soft_masks=True)),
            "mask probabilities",
        ),
        (dict(test_cfg=dict(temperature=1.5)), "confidences"),
        (
            dict(type="mmseg_m2f.MaskDetector", thing_classes=[0], test_cfg=dict(panoptic_rule="detr")),
            "DETR's panoptic rule",
        ),
        (
            dict(type="mmseg_m2f.MaskDetector", thing_classes=[0], test_cfg=dict(mask_nms_threshold=0.5)),
            "suppression of masks",
        ),
    ],
)
def test_results__refuse_what_has_no_fixed_shape(changes, reason):
    with pytest.raises(ValueError, match=f"expected results of a fixed shape.*{reason}.*--output logits"):
        check_expressible(build(model_config(), **changes))


@pytest.mark.parametrize("name", ["mmengine.RandomFlip", "RandomFlip", "mmengine.TestTimeAug"])
def test_results__refuse_flips(name):
    check_no_views([dict(type="mmengine.Resize"), dict(type="mmseg.PackSegInputs")])
    with pytest.raises(ValueError, match="expected no flips for --output full, got .*--output logits"):
        check_no_views([dict(type="mmengine.Resize"), dict(type=name)])
