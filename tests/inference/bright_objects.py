"""A detector with known results."""

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor, nn

from mmseg_m2f.registry import MODELS
from tests.tiny_segmentation import CLASSES, PALETTE


@MODELS.register_module(name="BrightObjects")
class BrightObjects(BaseModel):
    """Finds one object, of the second class, where the image is bright, and the first class elsewhere."""

    def __init__(self, results: tuple[str, ...] = ("panoptic", "instances"), *, with_masks: bool = True) -> None:
        super().__init__(data_preprocessor=dict(type="mmdet.DetDataPreprocessor"))
        self.results, self.with_masks = results, with_masks

    def forward(self, inputs: Tensor, data_samples: list[BaseDataElement], mode: str) -> list[BaseDataElement]:
        for image, sample in zip(inputs, data_samples, strict=True):
            bright = nn.functional.interpolate(image.mean(0)[None, None], sample.ori_shape)[0] > 100
            if "panoptic" in self.results:
                sample.pred_panoptic_seg = PixelData(sem_seg=bright * 1001)
            if "instances" in self.results:
                sample.pred_instances = InstanceData(
                    labels=torch.ones(1, dtype=torch.long),
                    scores=torch.full((1,), 0.4),
                    bboxes=torch.tensor([[1.0, 2.0, 11.0, 22.0]]),
                )
                if self.with_masks:
                    sample.pred_instances.masks = bright
        return data_samples


def detector_config(**model: object) -> Config:
    """The usual test pipeline of a detector, which doubles the image's sides."""
    pipeline = [
        dict(type="mmengine.LoadImageFromFile"),
        dict(type="mmdet.Resize", scale_factor=2.0),
        dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="mmdet.PackDetInputs"),
    ]
    dataset = dict(type="mmdet.CocoDataset", metainfo=dict(classes=CLASSES, palette=PALETTE), pipeline=pipeline)
    return Config(dict(model=dict(type="mmseg_m2f.BrightObjects", **model), test_dataloader=dict(dataset=dataset)))
