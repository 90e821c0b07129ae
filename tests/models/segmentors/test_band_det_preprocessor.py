import pytest
import torch

mmdet_structures = pytest.importorskip("mmdet.structures")

from mmseg_m2f.models.segmentors.band_det_preprocessor import BandDetPreprocessor  # noqa: E402


def test_band_det_preprocessor__normalises_each_channel_and_pads():
    module = BandDetPreprocessor(
        num_channels=4, mean=[0.0, 10.0, 20.0, 30.0], std=[1.0, 2.0, 4.0, 5.0], pad_size_divisor=4
    )
    sample = mmdet_structures.DetDataSample(metainfo=dict(img_shape=(2, 2)))
    batch = module(dict(inputs=[torch.full((4, 2, 2), 40.0)], data_samples=[sample]))
    assert batch["inputs"].shape == (1, 4, 4, 4)
    assert batch["inputs"][0, :, 0, 0].tolist() == [40, 15, 5, 2]
    assert batch["inputs"][0, :, 3, 3].tolist() == [0, 0, 0, 0]
