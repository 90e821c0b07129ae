"""What a training step moves between host and device; `meta` stands for a GPU."""

import sys
from contextlib import nullcontext

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from mmseg_m2f.datasets import CompactSegments, ListClasses
from mmseg_m2f.models.assigners import hungarian
from mmseg_m2f.models.segmentors.upload import move_in_one_copy
from tests.models.assigners.test_fixed import CRITERION as FIXED
from tests.models.conftest import make_batch
from tests.models.segmentors.test_mask_detector import THINGS, detr_config, make_box_batch
from tests.operator_counts import OperatorCount

IMAGENET = dict(mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True)


def test_move_in_one_copy__one_copy_of_everything():
    boxes = HorizontalBoxes(torch.rand(2, 4))
    sample = DetDataSample(metainfo=dict(img_path="a.jpg"))
    sample.gt_instances = InstanceData(labels=torch.tensor([3, 1]), bboxes=boxes, names=["a", "b"])
    sample.gt_sem_seg = PixelData(sem_seg=torch.ones(1, 4, 5, dtype=torch.uint8))
    images = [torch.rand(3, 4, 5).mT, torch.zeros(0, 7, dtype=torch.bool)]
    with OperatorCount() as counted:
        moved = move_in_one_copy(dict(inputs=images, data_samples=(sample, None)), torch.device("meta"))
    assert len(counted.uploads) == 1
    assert [(x.device.type, x.shape, x.dtype) for x in moved["inputs"]] == [("meta", x.shape, x.dtype) for x in images]
    (found, nothing) = moved["data_samples"]
    assert nothing is None
    assert found.img_path == "a.jpg"
    assert found.gt_instances.names == ["a", "b"]
    assert isinstance(found.gt_instances.bboxes, HorizontalBoxes)
    tensors = [found.gt_instances.bboxes.tensor, found.gt_instances.labels, found.gt_sem_seg.sem_seg]
    assert all(x.device.type == "meta" for x in tensors)
    assert boxes.tensor.device.type == "cpu"  # the original stays as it was


def test_move_in_one_copy__values_survive():
    # To the CPU, but through the buffer.
    tensors = [torch.rand(3, 5).mT, torch.tensor([True, False]), torch.arange(3, dtype=torch.int16), torch.tensor(2.5)]
    for moved, tensor in zip(move_in_one_copy(tensors, torch.device("cpu")), tensors, strict=True):
        assert torch.equal(moved, tensor)
        assert moved.data_ptr() != tensor.data_ptr()


class Downloads:
    """Read-backs of the assigner, which get zeros, since `meta` has no values."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, ...]] = []
        monkeypatch.setattr(hungarian, "download", self._zeros)

        usual = Tensor.new_tensor

        def new_tensor(tensor: Tensor, *args: object, **options: object) -> Tensor:
            caller = sys._getframe(1).f_globals["__name__"]
            # A GPU has a kernel for deformable attention, which uploads nothing.
            assert caller == "mmseg_m2f.layers.deformable_attention" or tensor.device.type != "meta", (
                f"{caller}: new_tensor uploads a value of the host, out of sight"
            )
            return usual(tensor, *args, **options)

        monkeypatch.setattr(Tensor, "new_tensor", new_tensor)

    def _zeros(self, values: Tensor) -> Tensor:
        self.shapes.append(tuple(values.shape))
        return torch.zeros(values.shape)


@pytest.fixture(autouse=True)
def autocast_off_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switching autocast off, which `meta` does not know, switches nothing."""
    usual = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda device, *dtype, **options: nullcontext() if device == "meta" else usual(device, *dtype, **options),
    )


def train_step(model: nn.Module, inputs: list[Tensor], samples: list) -> OperatorCount:
    model = model.to("meta").train()
    with OperatorCount() as counted:
        data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), True)
        losses = model(**data, mode="loss")
        sum(value for name, value in losses.items() if "loss" in name).backward()
    return counted


def semantic_batch() -> tuple[list[Tensor], list]:
    images, samples = make_batch()
    return [*images.byte()], [ListClasses().transform(dict(data_samples=sample))["data_samples"] for sample in samples]


def object_batch() -> tuple[list[Tensor], list]:
    """Two images of different sizes with objects and stuff."""
    images, samples = [], []
    for width in (96, 80):
        (image,), (sample,) = make_box_batch()
        sample.set_metainfo(dict(stuff_classes=(1, 4), img_shape=(64, width), pad_shape=(64, width)))
        sample.gt_instances.masks = sample.gt_instances.masks.crop(torch.tensor([0, 0, width, 64]).numpy())
        sample.gt_sem_seg = PixelData(sem_seg=sample.gt_sem_seg.sem_seg[..., :width])
        images.append(image[..., :width].byte())
        samples.append(CompactSegments().transform(dict(data_samples=sample))["data_samples"])
    return images, samples


def test_training_step__semantic_segmentation(model_config, monkeypatch):
    downloads = Downloads(monkeypatch)
    model_config.data_preprocessor = dict(type="mmseg.SegDataPreProcessor", size=(64, 96), seg_pad_val=255, **IMAGENET)
    counted = train_step(MODELS.build(model_config), *semantic_batch())
    num_layers = model_config.decode_head.query_decoder.num_layers + 1
    assert len(counted.uploads) == 2  # the loader's batch, and the pairs
    assert counted.uploads[1][0] == 4
    assert [shape[:3] for shape in downloads.shapes] == [(2, num_layers, 20)]


def test_training_step__fixed_assignment_reads_nothing_back(model_config, monkeypatch):
    downloads = Downloads(monkeypatch)
    model_config.data_preprocessor = dict(type="mmseg.SegDataPreProcessor", size=(64, 96), seg_pad_val=255, **IMAGENET)
    model_config.decode_head.criterion = FIXED
    counted = train_step(MODELS.build(model_config), *semantic_batch())
    assert len(counted.uploads) == 2
    assert downloads.shapes == []


def test_training_step__objects_and_stuff(model_config, monkeypatch):
    downloads = Downloads(monkeypatch)
    preprocessor = dict(type="mmdet.DetDataPreprocessor", pad_size_divisor=32, pad_mask=False, pad_seg=False)
    model_config.update(type="mmseg_m2f.MaskDetector", thing_classes=THINGS, data_preprocessor=preprocessor | IMAGENET)
    counted = train_step(MODELS.build(model_config), *object_batch())
    assert len(counted.uploads) == 2
    assert len(downloads.shapes) == 1


@pytest.mark.parametrize("model", ["detr", "detr_panoptic"])
def test_training_step__boxes(model, monkeypatch):
    downloads = Downloads(monkeypatch)
    cfg = detr_config(model)
    cfg.data_preprocessor = dict(type="mmdet.DetDataPreprocessor", pad_mask=False, pad_seg=False, **IMAGENET)
    counted = train_step(MODELS.build(cfg), *object_batch())
    assert len(counted.uploads) == 2
    assert len(downloads.shapes) == 1
