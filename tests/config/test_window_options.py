import pytest
from mmengine.config import Config

from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.window_options import (
    set_window_overlap,
    set_window_scale,
    set_window_size,
    window_overlap,
    window_size,
)


def config(**test_cfg: object) -> Config:
    return Config(dict(model=dict(type="mmseg_m2f.MaskDetector", test_cfg=test_cfg)))


def test_set_window_size__half_overlapping():
    cfg = config(max_per_image=7)
    set_window_size(cfg, 65)
    assert cfg.model.test_cfg == dict(max_per_image=7, mode="slide", crop_size=(65, 65), stride=(32, 32))
    assert (window_size(cfg), window_overlap(cfg)) == ((65, 65), (33, 33))


def test_set_window_overlap__after_the_size_whatever_the_order():
    options = {"window_overlap": [16, 8], "window_size": [64, 32]}
    cfg = load_config("mask2former_r18_shapes-instance_demo", options)
    assert (cfg.model.test_cfg.crop_size, cfg.model.test_cfg.stride) == ((64, 32), (48, 24))


def test_window_size__none_for_whole_images():
    assert window_size(config()) is None
    assert window_overlap(config(mode="whole", crop_size=(3, 3))) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cfg: set_window_size(cfg, 0), "window_size=0: expected at least 1 pixels"),
        (lambda cfg: set_window_size(cfg, [1, 2, 3]), "expected height and width in pixels"),
        (lambda cfg: set_window_overlap(cfg, 8), "got one that predicts whole images. Set window_size as well"),
        (lambda cfg: set_window_scale(cfg, 0), "window_scale=0: expected a factor above 0"),
        (lambda cfg: set_window_scale(cfg, [2.0, -1]), r"window_scale=\[2.0, -1\]: expected a factor above 0"),
        (lambda cfg: set_window_scale(cfg, []), r"window_scale=\[\]: expected a factor above 0"),
    ],
)
def test_options__refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(config())


def test_set_window_overlap__as_large_as_the_window():
    cfg = config(mode="slide", crop_size=(64, 32), stride=(1, 1))
    with pytest.raises(ValueError, match=r"window_overlap=32: expected less than the windows' size \(64, 32\)"):
        set_window_overlap(cfg, 32)


def test_set_window_scale__needs_a_mask_classifier():
    cfg = Config(dict(model=dict(type="mmseg.EncoderDecoder")))
    with pytest.raises(ValueError, match="expected a MaskDetector or MaskSegmentor, got EncoderDecoder"):
        set_window_scale(cfg, 0.5)
