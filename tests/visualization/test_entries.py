import torch
from mmengine.structures import BaseDataElement, PixelData

from mmseg_m2f.visualization.entries import sheet_entry


def sample(path: str = "folder/street.jpg", **metainfo: object) -> BaseDataElement:
    element = BaseDataElement(metainfo=dict(img_path=path, **metainfo))
    element.pred_sem_seg = PixelData(data=torch.tensor([[[0, 1], [1, 1]]]))
    element.gt_sem_seg = PixelData(data=torch.tensor([[[0, 1], [255, 1]]]))
    return element


def batch(size: int = 1) -> dict:
    return dict(inputs=[torch.arange(12, dtype=torch.uint8).view(3, 2, 2)] * size)


def test_sheet_entry__image_is_rgb_and_channels_last() -> None:
    entry = sheet_entry(batch(), 0, sample(), num_classes=2)
    assert entry is not None
    assert entry.name == "street"
    assert entry.image[0, 1].tolist() == [9, 5, 1]  # channel order of the batch is BGR
    assert entry.truth is not None
    assert entry.truth.semantic.tolist() == [[0, 1], [255, 1]]


def test_sheet_entry__augmented_views_show_the_largest_upright_one() -> None:
    views = [torch.full((3, side, side), side, dtype=torch.uint8) for side in (2, 8, 9)]
    samples = [sample(flip=side == 9) for side in (2, 8, 9)]
    data_batch = dict(inputs=[[view] for view in views], data_samples=[[s] for s in samples])
    prediction = sample()
    prediction.pred_sem_seg = PixelData(data=torch.zeros(2, 2, dtype=torch.long)[None])
    entry = sheet_entry(data_batch, 0, prediction, num_classes=2)
    assert entry is not None
    assert entry.image.shape == (8, 8, 3)
