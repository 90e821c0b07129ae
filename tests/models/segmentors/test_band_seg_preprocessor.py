import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_m2f.models.segmentors.band_seg_preprocessor import BandSegPreProcessor


def test_band_seg_preprocessor__normalises_each_channel_and_pads():
    module = BandSegPreProcessor(num_channels=4, mean=[0.0, 10.0, 20.0, 30.0], std=[1.0, 2.0, 4.0, 5.0], size=(3, 3))
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.ones(1, 2, 2, dtype=torch.long)))
    image = torch.full((4, 2, 2), 40.0)
    batch = module(dict(inputs=[image], data_samples=[sample]), training=True)
    assert batch["inputs"][0, :, 0, 0].tolist() == [40, 15, 5, 2]
    assert batch["inputs"].shape == (1, 4, 3, 3)
    assert batch["inputs"][0, :, 2, 2].tolist() == [0, 0, 0, 0]
    assert batch["data_samples"][0].gt_sem_seg.data[0, 2, 2] == 255


def test_band_seg_preprocessor__values_are_not_in_checkpoints():
    module = BandSegPreProcessor(num_channels=1, mean=[5.0], std=[2.0])
    assert not module.state_dict()
