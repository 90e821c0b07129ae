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


def assert_equals_mmdet(config: dict, ours: torch.nn.Module, *, padding: int = 0) -> None:
    """The same mask features and memory from the same weights.

    Args:
        padding: columns of the coarsest map in which the second image has no pixels.
    """
    theirs = MODELS.build(ConfigDict(config)).eval()
    ours.load_state_dict(theirs.state_dict())
    features = feature_maps(SMALL)
    metas = [dict(batch_input_shape=(64, 96), img_shape=(64, 96 - 32 * i * padding)) for i in range(2)]
    valid = torch.ones(2, 2, 3, dtype=torch.bool)
    valid[1, :, 3 - padding :] = False
    with torch.no_grad():
        expected, expected_memory = theirs(features, metas)
        actual = ours.eval()(features, valid)
    torch.testing.assert_close(actual.mask_features, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(actual.memory, expected_memory, rtol=0, atol=1e-5)


@pytest.mark.parity
def test_fpn__equals_mmdet():
    assert_equals_mmdet(MMDET_FPN, FPNPixelDecoder(SMALL, channels=32))


def test_fpn__memory_is_the_coarsest_map():
    features = feature_maps(SMALL)
    assert FPNPixelDecoder(SMALL, channels=32)(features).memory is features[-1]
