from mmengine.config import Config

from tests.tiny_segmentation import CLASSES, PALETTE


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
