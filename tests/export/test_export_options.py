"""What is refused before any work, and which images a file takes."""

from pathlib import Path

import pytest
from mmengine.registry import MODELS
from torch import nn

from mmseg_m2f.export import export_options
from mmseg_m2f.export.export_options import ExportOptions, channels_of, check_options, shape_of


class Model(nn.Module):
    """What the checks ask a model for."""

    def __init__(self, *, instance: bool | None = None, divisor: int = 1) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(4, 8, 1)
        self.test_cfg = dict(instance=instance)
        preprocessor = dict(type="mmdet.DetDataPreprocessor", pad_size_divisor=divisor)
        self.data_preprocessor = MODELS.build(preprocessor)
        self.graphs = None
        if instance is not None:
            self.is_thing = [True]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.onnx", dict(opset=17), "--opset: expected 18 or newer, got 17"),
        ("a.onnx", dict(opset=99), "--opset: expected at most .*, got 99"),
        ("a.engine", {}, "expected a name that ends in one of .onnx, .pt2, .xml"),
        ("a.pt2", dict(precision="float16"), "expected .onnx for a file in float16"),
        ("a.xml", dict(precision="int8"), "expected .onnx for a file in int8"),
        ("a.onnx", dict(precision="int8"), "--int8: expected --calibration"),
        ("a.onnx", dict(with_script=True), "--with-script: expected an ONNX file of full results"),
        ("a.pt2", dict(with_script=True, output="full"), "--with-script: expected an ONNX file of full results"),
        ("a.onnx", dict(size=(0, 64)), "--size 0 64: expected a height and a width of at least 1 pixel"),
        ("a.onnx", dict(max_per_image=5), "--max-per-image 5: .*got --output logits of Model without objects"),
        ("a.onnx", dict(max_per_image=5, output="full"), "--max-per-image 5: .*got --output full of Model without"),
    ],
)
def test_check_options__refuses(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(Path(name), Model(), ExportOptions(**options), has_images=False)


def test_check_options__number_of_objects() -> None:
    for model, options, message in (
        (Model(instance=True), ExportOptions(max_per_image=0, output="full"), "--max-per-image 0: expected at least 1"),
        (Model(instance=True), ExportOptions(max_per_image=5), "got --output logits of Model. Leave it out"),
        (Model(instance=False), ExportOptions(max_per_image=5, output="full"), "of Model without objects"),
    ):
        with pytest.raises(ValueError, match=message):
            check_options(Path("a.onnx"), model, options, has_images=False)
    check_options(Path("a.onnx"), Model(instance=True), ExportOptions(max_per_image=5, output="full"), has_images=False)


def test_check_options__sizes_off_the_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_options, "size_multiple", lambda model: 16)
    with pytest.raises(ValueError, match="--size 40 64: expected multiples of 16, the patch size.*Take 48 64"):
        check_options(Path("a.onnx"), Model(), ExportOptions(size=(40, 64)), has_images=False)
    check_options(Path("a.onnx"), Model(divisor=32), ExportOptions(size=(40, 64), output="full"), has_images=False)


def test_shape_of__full_files_pad_to_the_patches_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_options, "size_multiple", lambda model: 16)
    full = ExportOptions(output="full")
    assert shape_of(Model(divisor=32), ExportOptions()).multiple == 16
    assert shape_of(Model(divisor=32), full).multiple == 1
    assert shape_of(Model(divisor=24), full).multiple == 16
    assert shape_of(Model(), ExportOptions(size=(32, 48))) == (1, (32, 48), 16, 4)


def test_channels_of__the_first_convolution() -> None:
    assert channels_of(Model()) == 4
