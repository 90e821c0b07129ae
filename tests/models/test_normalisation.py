import pytest
from mmengine.registry import MODELS
from torch import nn

from mmseg_m2f.models.normalisation import Normalisation
from mmseg_m2f.runtime import ExportRecord


class Model(nn.Module):
    """A model of which only the data preprocessor is read."""

    def __init__(self, **preprocessor: object) -> None:
        super().__init__()
        self.data_preprocessor = MODELS.build(preprocessor)


@pytest.mark.parametrize(
    ("preprocessor", "padding"),
    [
        (dict(type="mmseg.SegDataPreProcessor", size=(32, 32), pad_val=3, test_cfg=dict(size_divisor=16)), (16, 3.0)),
        (dict(type="mmdet.DetDataPreprocessor", pad_size_divisor=32, pad_value=2), (32, 2.0)),
    ],
)
def test_normalisation__is_the_preprocessors(preprocessor, padding):
    model = Model(**preprocessor, mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=True)
    assert Normalisation.of_model(model) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), True, *padding)


def test_normalisation__none_changes_nothing():
    model = Model(type="mmengine.BaseDataPreprocessor")
    assert Normalisation.of_model(model, channels=2) == ((0.0, 0.0), (1.0, 1.0), False, 1, 0.0)


def test_normalisation__of_a_file():
    record = ExportRecord("full", ("semantic",), "{}", ("a",), mean=(1.0,), std=(2.0,), size_divisor=8, pad_value=0.5)
    assert Normalisation.of(record) == ((1.0,), (2.0,), True, 8, 0.5)
