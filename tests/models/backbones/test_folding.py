import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_m2f.layers import matrix_products
from mmseg_m2f.layers.matrix_products import use_fast_products
from mmseg_m2f.models.backbones import FrozenBN
from mmseg_m2f.models.backbones.folding import fold_norms


def shaken(backbone: nn.Module) -> nn.Module:
    """With statistics as training leaves them, in evaluation mode."""
    for norm in backbone.modules():
        if isinstance(norm, _BatchNorm):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_(0, 0.1)
    backbone.eval()  # mmseg's gives nothing back
    return backbone


def assert_same_maps(folded: nn.Module, plain: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for actual, expected in zip(folded(images), plain(images), strict=True):
            assert (actual - expected).norm() < 1e-5 * expected.norm()


def norms(backbone: nn.Module) -> list[nn.Module]:
    return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]


MMSEG = dict(type="mmseg.ResNet", depth=50, base_channels=8)
TIMM = dict(type="mmseg.TIMMBackbone", features_only=True, pretrained=False)


@pytest.mark.parametrize(
    ("config", "left"),
    [
        (dict(MMSEG, norm_cfg=dict(type="BN")), set()),
        (dict(MMSEG, norm_cfg=dict(type="mmseg_m2f.FrozenBN"), norm_eval=True), set()),
        (dict(MMSEG, type="mmseg.ResNetV1c", norm_cfg=dict(type="SyncBN")), set()),
        (dict(TIMM, model_name="resnet18"), set()),
        (dict(TIMM, model_name="mobilenetv3_small_050"), {"BatchNormAct2d"}),  # an activation follows inside
    ],
)
def test_fold_norms__maps_are_the_same(config, left):
    if config["type"] == "mmseg.TIMMBackbone":
        pytest.importorskip("timm")
    plain = shaken(MODELS.build(config))
    folded = copy.deepcopy(plain)
    assert fold_norms(folded) == len(norms(plain)) - len(norms(folded)) > 0
    assert {type(norm).__name__ for norm in norms(folded)} == left
    assert_same_maps(folded, plain)


def test_fold_norms__pointwise_convolutions_stay_fast(monkeypatch):
    monkeypatch.setattr(matrix_products, "products_are_slow", lambda: True)
    plain = shaken(MODELS.build(dict(MMSEG, norm_cfg=dict(type="BN"))))
    use_fast_products(plain)
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    assert type(folded.layer1[0].conv1) is matrix_products.PointwiseConv
    assert_same_maps(folded, plain)


def test_fold_norms__without_norms():
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert fold_norms(backbone) == 0


class Block(nn.Module):
    """Norms before a convolution, after one changed in place, after one, after none; perhaps with a shortcut."""

    def __init__(self, *, shortcut: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.before, self.changed = nn.BatchNorm2d(3), nn.BatchNorm2d(4)
        self.after, self.last = FrozenBN(4), nn.BatchNorm2d(4)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.second(self.changed(self.first(self.before(x)).relu_()))
        normed = self.after(x)
        return [self.last(normed + x if self.shortcut else normed.relu())]


def test_fold_norms__only_norms_that_read_a_convolution():
    plain = shaken(Block(shortcut=False))
    folded = copy.deepcopy(plain)
    assert fold_norms(folded) == 1
    assert type(folded.after) is nn.Identity
    assert_same_maps(folded, plain)


def test_fold_norms__refuses_where_something_else_reads_the_convolution():
    plain = shaken(Block(shortcut=True))
    refused = copy.deepcopy(plain)
    with pytest.raises(ValueError, match=r"Block returns other maps after folding.* Leave fold_norms out"):
        fold_norms(refused)
    assert list(refused.state_dict()) == list(plain.state_dict())
    assert_same_maps(refused, plain)
