import numpy as np
from torch import nn

from mmseg_m2f.visualization.bands import show_bands, shown_channels


def test_show_bands__bgr_without_choice():
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    assert np.array_equal(show_bands(image, None), image[::-1].transpose(1, 2, 0))


def test_show_bands__chosen_channels_are_stretched():
    ramp = np.linspace(0, 1, 101).reshape(1, 101)
    image = np.stack([ramp * 0, ramp * 60000, 5 - ramp, ramp * 0 + 3]).astype(np.float32)
    shown = show_bands(image, (1, 2, 3))
    assert shown.dtype == np.uint8
    np.testing.assert_allclose(shown[0, [0, 2, 50, 98, 100], 0], [0, 0, 127.5, 255, 255], atol=0.5)
    np.testing.assert_allclose(shown[0, [0, 50, 100], 1], [255, 127.5, 0], atol=0.5)
    assert not shown[..., 2].any()


def test_show_bands__one_channel_is_grey():
    shown = show_bands(np.random.default_rng(0).random((5, 4, 4)), (4,))
    assert np.array_equal(shown[..., 0], shown[..., 1])
    assert np.array_equal(shown[..., 0], shown[..., 2])


def test_shown_channels__below_a_wrapper():
    model, wrapper = nn.Module(), nn.Module()
    model.data_preprocessor = nn.Module()
    wrapper.module = model
    assert shown_channels(wrapper) is None
    model.data_preprocessor.shown = (3, 2, 1)
    assert shown_channels(wrapper) == shown_channels(model) == (3, 2, 1)
