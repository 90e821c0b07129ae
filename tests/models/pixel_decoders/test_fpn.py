import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from mmseg_m2f.models.pixel_decoders import FPNPixelDecoder
from tests.models.pixel_decoders.maps import SMALL, feature_maps

MMDET_FPN = dict(
    type="mmdet.PixelDecoder",
    in_channels=SMALL.channels,
    feat_channels=32,
    out_channels=32,
    norm_cfg=dict(type="GN", num_groups=32),
    act_cfg=dict(type="ReLU"),
)


def assert_equals_mmdet(config: dict, ours: torch.nn.Module) -> None:
    """The same mask features from the same weights."""
    theirs = MODELS.build(ConfigDict(config)).eval()
    ours.load_state_dict(theirs.state_dict())
    features = feature_maps(SMALL)
    metas = [dict(batch_input_shape=(64, 96), img_shape=(64, 96))] * 2
    with torch.no_grad():
        expected, _ = theirs(features, metas)
        actual = ours.eval()(features).mask_features
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parity
def test_fpn__equals_mmdet():
    assert_equals_mmdet(MMDET_FPN, FPNPixelDecoder(SMALL, channels=32))


def test_fpn__memory_is_the_coarsest_map():
    features = feature_maps(SMALL)
    assert FPNPixelDecoder(SMALL, channels=32)(features).memory is features[-1]
