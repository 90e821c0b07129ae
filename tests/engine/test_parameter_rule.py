import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from mmseg_m2f.engine import ParameterRule
from tests.models.conftest import CONFIGS
from tests.parity.conftest import upstream_config

ADE20K = "mask2former_{}_8xb2-160k_ade20k-512x512.py"


def upstream_model_and_groups(backbone: str) -> tuple[torch.nn.Module, dict[str, tuple[float, float]]]:
    """mmseg's model with the learning rate and decay that its own config gives each parameter."""
    cfg = upstream_config(ADE20K.format(backbone))
    for part in (cfg.model, cfg.model.backbone, cfg.model.decode_head):
        part.type = f"mmseg.{part.type}"
    cfg.model.data_preprocessor = None
    cfg.model.backbone.init_cfg = None
    if backbone == "r50":
        cfg.model.backbone.norm_cfg.type = "BN"
    model = MODELS.build(cfg.model)
    return model, groups_by_name(model, build_optim_wrapper(model, cfg.optim_wrapper).optimizer)


def groups_by_name(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    settings = {
        id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    return {name: settings[id(p)] for name, p in model.named_parameters() if id(p) in settings}


def our_groups(backbone: str) -> tuple[torch.optim.Optimizer, dict[str, tuple[float, float]]]:
    cfg = Config.fromfile(CONFIGS / f"mask2former/mask2former_{backbone}_ade20k-512_160k.py")
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    return optimizer, {name.replace("query_decoder.", ""): v for name, v in groups_by_name(model, optimizer).items()}


@pytest.mark.parametrize("backbone", ["r50", "swin_t"])
def test_parameter_rule__gives_the_published_groups(backbone):
    _, expected = upstream_model_and_groups(backbone.replace("_", "-"))
    optimizer, actual = our_groups(backbone)
    assert actual == expected
    assert len(optimizer.param_groups) <= 4


def test_parameter_rule__shared_parameters_are_listed_once():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    rule = ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1)))
    (group,) = rule.parameter_groups(model)
    assert len(group["params"]) == 3


def test_parameter_rule__frozen_parameters_are_left_out():
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(requires_grad=False)
    rule = ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0)))
    assert [len(group["params"]) for group in rule.parameter_groups(model)] == [1]


def test_parameter_rule__unknown_key():
    with pytest.raises(ValueError, match=r"knows backbone_lr_mult, got \['custom_keys'\] as well"):
        ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0)), dict(custom_keys={}))
