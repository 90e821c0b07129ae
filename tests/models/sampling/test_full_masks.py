import torch

from mmseg_m2f.models.sampling import FullMaskSampling
from tests.models.sampling.samples import prediction_of, quarters


def test_full_masks__matching_reduces_to_the_nearest_pixel():
    readings = FullMaskSampling().for_matching([prediction_of(torch.randn(3, 4, 4))], quarters(), slice(0, 1))
    assert readings.logits.shape == (1, 1, 3, 16)
    assert readings.masks[0, 0, 0].view(4, 4).tolist() == [[1, 1, 0, 0]] * 2 + [[0] * 4] * 2
    assert readings.masks[0, 0, 1].view(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[0] * 4] * 2
    assert readings.validity[0, 0].view(4, 4).tolist() == [[1] * 4] * 2 + [[1, 1, 0, 0]] * 2


def test_full_masks__losses_see_every_pixel_of_the_canvas():
    logits = torch.randn(2, 4, 4)
    readings = FullMaskSampling().for_loss(logits, quarters(), torch.tensor([0, 0]), torch.tensor([1, 0]))
    assert readings.masks.view(2, 16, 16)[0, :8, 8:].all()
    assert readings.masks.sum().item() == 128
    assert readings.validity.sum().item() == 2 * 192
    enlarged = torch.nn.functional.interpolate(logits.unsqueeze(1), (16, 16), mode="bilinear", align_corners=False)
    assert torch.equal(readings.logits, enlarged.flatten(1))
