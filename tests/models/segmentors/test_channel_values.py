import pytest
import torch
from torch import nn

from mmseg_m2f.models.segmentors.channel_values import check_batch, check_shown, set_channel_values


def preprocessor(**values: object) -> nn.Module:
    module = nn.Module()
    given = dict(num_channels=2, mean=None, std=None, shown=None) | values
    set_channel_values(module, **given)
    return module


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(mean=[1.0], std=[1.0, 1.0]), "mean: expected a value for each of the 2 channels"),
        (dict(mean=[1.0, 2.0]), "expected mean and std"),
        (dict(mean=[1.0, 2.0], std=[1.0, 0.0]), "all of std above 0"),
        (dict(shown=[2]), r"expected one channel or three \(red, green, blue\) of 0…1"),
        (dict(shown=[0, 1]), "expected one channel or three"),
    ],
)
def test_set_channel_values__refused(values, message):
    with pytest.raises(ValueError, match=message):
        preprocessor(**values)


def test_check_shown__first_three_or_the_only_one():
    assert check_shown(None, 6) == (0, 1, 2)
    assert check_shown(None, 2) == (0,)
    assert check_shown([3, 2, 1], 6) == (3, 2, 1)


def test_check_batch__without_mean_names_the_command():
    with pytest.raises(ValueError, match=r"expected mean and std of the 2 channels, got none.*doctor CONFIG --stat"):
        check_batch(preprocessor(), [torch.zeros(2, 4, 4)])


def test_check_batch__other_channels():
    module = preprocessor(mean=[0.0, 0.0], std=[1.0, 1.0])
    check_batch(module, [torch.zeros(2, 4, 4)])
    with pytest.raises(ValueError, match=r"expected images of 2 channels \(num_channels\), got 3. Set channels=3"):
        check_batch(module, [torch.zeros(2, 4, 4), torch.zeros(3, 4, 4)])
