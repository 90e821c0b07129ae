import pytest
from torch import nn

from mmseg_m2f.models.segmentors.construction import freeze_others


def make_model() -> nn.ModuleDict:
    head = nn.ModuleDict(dict(decoder=nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), mask_head=nn.Linear(2, 2)))
    return nn.ModuleDict(
        dict(backbone=nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)), head=head, loss=nn.Identity())
    )


def test_freeze_others__outermost_modules_without_trainable_parameters():
    model = make_model()
    frozen = freeze_others(model, ["head.mask_head."])
    assert len(frozen) == 2
    assert frozen[0] is model.backbone
    assert frozen[1] is model["head"]["decoder"]
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "head.mask_head.weight",
        "head.mask_head.bias",
    ]


def test_freeze_others__what_is_frozen_stays_frozen():
    model = make_model()
    model.backbone[1].requires_grad_(False)
    frozen = freeze_others(model, ["backbone."])
    assert model.backbone[0].weight.requires_grad
    assert not model.backbone[1].weight.requires_grad
    assert any(module is model.backbone[1] for module in frozen)


def test_freeze_others__unknown_beginning():
    with pytest.raises(ValueError, match=r"got 'neck.', with which none begins. There are: backbone.0.bias, "):
        freeze_others(make_model(), ["neck."])
