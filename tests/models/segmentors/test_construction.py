import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from mmseg_m2f.core.low_rank import merge_low_rank
from mmseg_m2f.models.segmentors.construction import freeze_others
from mmseg_m2f.registry import MODELS
from tests.models.conftest import make_batch


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


def test_build_parts__any_backbone_takes_lora(model_config: ConfigDict):
    model_config.backbone.update(lora=dict(rank=2), norm_eval=False)
    torch.manual_seed(0)
    model = MODELS.build(model_config).train()
    images, samples = make_batch()
    sum(model.loss(images, samples).values()).backward()
    trained = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    assert all(p.grad is not None for p in model.backbone.parameters() if p.requires_grad)
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)

    for name, parameter in model.backbone.named_parameters():
        if name.endswith("lora_up"):
            nn.init.normal_(parameter, std=0.1)
    del model_config.backbone["lora"]
    plain = MODELS.build(model_config)
    plain.load_state_dict(model.state_dict())  # whose changes are added to the weights
    assert plain.state_dict().keys() == merge_low_rank(model.state_dict()).keys()
    for ours, theirs in zip(plain.eval().extract_feat(images), model.eval().extract_feat(images), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (dict(rank=2, layers=["convs"]), "model.backbone.lora.layers: .*got 'convs'.* Nearest: conv.*There are: conv1"),
        (dict(rang=2), "model.backbone.lora: expected keys out of .*, got 'rang'"),
    ],
)
def test_build_parts__lora_that_fits_no_layer(model_config: ConfigDict, lora: dict, message: str):
    model_config.backbone.lora = lora
    with pytest.raises(KeyError, match=message):
        MODELS.build(model_config)
