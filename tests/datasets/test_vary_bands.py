import numpy as np
import pytest

from mmseg_m2f.datasets import VaryBands


def vary(image: np.ndarray, seed: int) -> np.ndarray:
    np.random.seed(seed)  # noqa: NPY002
    return VaryBands()(dict(img=image))["img"]


@pytest.mark.parametrize("channels", [1, 4, 16])
def test_vary_bands__does_not_depend_on_the_unit(channels):
    image = np.random.default_rng(0).normal(3, 2, (8, 9, channels))
    for seed in range(12):
        np.testing.assert_allclose(vary(1000 * image + 50, seed), 1000 * vary(image, seed) + 50, rtol=1e-4, atol=0.05)


def test_vary_bands__changes_within_its_bounds():
    image = np.random.default_rng(0).normal(3, 2, (64, 64, 5))
    results = [vary(image, seed) for seed in range(60)]
    assert any(np.allclose(each, image, atol=1e-5) for each in results)
    gains = np.array([each.std((0, 1)) / image.std((0, 1)) for each in results])
    shifts = np.array([(each - image).mean((0, 1)) / image.std((0, 1)) for each in results])
    assert 0.5 * 0.8 <= gains.min() < 0.7
    assert 1.3 < gains.max() <= 1.5 * 1.2
    assert -0.5 <= shifts.min() < -0.3
    assert 0.3 < shifts.max() <= 0.5
    assert np.ptp(gains, axis=1).max() > 0.1  # the balance of the channels


def test_vary_bands__constant_channel_stays():
    image = np.ones((4, 4, 2), np.uint16) * np.array([7, 60000], np.uint16)
    for seed in range(8):
        np.testing.assert_allclose(vary(image, seed), image, rtol=1e-6)


def test_vary_bands__bounds():
    with pytest.raises(ValueError, match="expected contrast and balance"):
        VaryBands(contrast=1.5)
