"""A batch survives a file that holds plain values alone."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmseg_m2f.engine.non_finite.plain_batches import from_plain, to_plain


def test_to_plain__and_back(tmp_path):
    seg = SegDataSample(
        gt_sem_seg=PixelData(data=torch.tensor([[[1, 2]]])), metainfo=dict(img_path="a.png", size=(1, 2))
    )
    det = DetDataSample(metainfo=dict(img_id=7))
    masks = BitmapMasks(np.array([[[1, 0]]], dtype=np.uint8), 1, 2)
    det.gt_instances = InstanceData(labels=torch.tensor([3]), masks=masks)
    batch = dict(inputs=[torch.ones(3, 1, 2)], data_samples=[seg, det], note=(1, None, "x", np.float32(2)))
    torch.save(to_plain(batch), tmp_path / "batch.pth")
    again = from_plain(torch.load(tmp_path / "batch.pth", weights_only=True))
    assert torch.equal(again["inputs"][0], batch["inputs"][0])
    assert again["note"] == (1, None, "x", 2.0)
    first, second = again["data_samples"]
    assert isinstance(first, SegDataSample)
    assert (first.img_path, first.size) == ("a.png", (1, 2))
    assert first.gt_sem_seg.data.tolist() == [[[1, 2]]]
    assert second.gt_instances.masks.masks.tolist() == [[[1, 0]]]
    assert second.gt_instances.labels.tolist() == [3]


def test_from_plain__refuses_unknown_containers():
    with pytest.raises(ValueError, match="The batch holds a Nothing; expected one of"):
        from_plain({"__element__": "Nothing", "metainfo": {}, "fields": {}})
