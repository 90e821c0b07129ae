from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from mmseg_m2f.engine import ParameterRule
from mmseg_m2f.engine.parameter_rule import _can_fuse
from mmseg_m2f.layers.lora import LoRASettings, add_lora
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
    with pytest.raises(
        ValueError, match=r"knows backbone_lr_mult, layer_decay, full_lr and decay_all, got \['custom_keys'\] as well"
    ):
        ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0)), dict(custom_keys={}))


class TinyViT(torch.nn.Module):
    """Names and order of parameters as timm has them."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, 2))
        self.patch_embed = torch.nn.Conv2d(3, 2, 4)
        self.blocks = torch.nn.Sequential(
            *(torch.nn.ModuleDict(dict(norm1=torch.nn.LayerNorm(2), mlp=torch.nn.Linear(2, 2))) for _ in range(3))
        )
        self.norm = torch.nn.LayerNorm(2)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token"}


def tiny_model() -> torch.nn.Module:
    backbone = torch.nn.ModuleDict(dict(vit=TinyViT()))
    decoder = torch.nn.ModuleDict(dict(query_feat=torch.nn.Embedding(2, 2), cls_embed=torch.nn.Linear(2, 2)))
    return torch.nn.ModuleDict(dict(backbone=backbone, decode_head=decoder))


def layer_decay_groups(**rule: object) -> tuple[torch.nn.Module, list[dict]]:
    model = tiny_model()
    settings = dict(optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1))
    rule = dict(backbone_lr_mult=1.0, layer_decay=0.5) | rule
    return model, ParameterRule(settings, rule).parameter_groups(model)


def test_parameter_rule__layer_decay_by_hand():
    model, groups = layer_decay_groups()
    settings = {id(p): (g["lr"], g["weight_decay"], g.get("in_backbone", False)) for g in groups for p in g["params"]}
    found = {name: settings[id(p)] for name, p in model.named_parameters() if not name.endswith(".bias")}
    assert found == {
        "backbone.vit.cls_token": (0.25, 0.0, True),
        "backbone.vit.patch_embed.weight": (0.25, 0.1, True),
        "backbone.vit.blocks.0.norm1.weight": (0.25, 0.0, True),
        "backbone.vit.blocks.0.mlp.weight": (0.25, 0.1, True),
        "backbone.vit.blocks.1.norm1.weight": (0.5, 0.0, True),
        "backbone.vit.blocks.1.mlp.weight": (0.5, 0.1, True),
        "backbone.vit.blocks.2.norm1.weight": (1.0, 0.0, True),
        "backbone.vit.blocks.2.mlp.weight": (1.0, 0.1, True),
        "backbone.vit.norm.weight": (1.0, 0.0, True),
        "decode_head.query_feat.weight": (1.0, 0.0, False),
        "decode_head.cls_embed.weight": (1.0, 0.1, False),
    }


@pytest.mark.parametrize("decay", [None, 0.5])
def test_parameter_rule__new_parts_of_the_backbone_learn_like_the_head(decay):
    model = tiny_model()
    add_lora(model["backbone"]["vit"], LoRASettings(1, layers=("blocks.0.mlp",)))
    model["backbone"]["adapter"] = torch.nn.Linear(2, 2)
    settings = dict(optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1))
    groups = ParameterRule(settings, dict(layer_decay=decay)).parameter_groups(model)
    found = {id(p): (group["lr"], group.get("in_backbone", False)) for group in groups for p in group["params"]}
    new = [p for name, p in model.named_parameters() if "lora_" in name or "adapter" in name]
    assert len(new) == 4
    assert [found[id(p)] for p in new] == [(1.0, False)] * 4
    groups = ParameterRule(settings, dict(full_lr=())).parameter_groups(model)
    found = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert [found[id(p)] for p in new] == [0.1] * 4


def test_parameter_rule__layer_decay_merges_groups():
    _, groups = layer_decay_groups()
    assert len(groups) == 2 * 3 + 2
    _, groups = layer_decay_groups(decay_all=True)
    assert len(groups) == 3 + 1
    assert {group["weight_decay"] for group in groups} == {0.1}


def test_parameter_rule__decay_all_alone():
    rule = ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1)), dict(decay_all=True))
    groups = rule.parameter_groups(tiny_model())
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.1), (1.0, 0.1)]
    assert not any("in_backbone" in group for group in groups)


def test_parameter_rule__layer_decay_of_stages():
    model = torch.nn.ModuleDict(dict(backbone=torch.nn.ModuleDict(dict(stages=torch.nn.Sequential(tiny_model())))))
    rule = ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0)), dict(layer_decay=0.8))
    with pytest.raises(ValueError, match="layer_decay: expected a plain vision transformer with blocks.0"):
        rule.parameter_groups(model)


#: What the rule told by names alone before modules could say it themselves.
FORMER_NAMES = {
    "layer_scale_1", "layer_scale_2", "sim_alpha", "sim_beta", "relative_position_bias_table", "absolute_pos_embed",
    "pos_embed", "cls_token", "reg_token", "mask_token",
}  # fmt: skip


@pytest.mark.parametrize("file", sorted((CONFIGS / "_base_/backbones").glob("*.py")), ids=lambda file: file.stem)
def test_parameter_rule__groups_of_published_backbones_stay(file, monkeypatch):
    linspace = torch.linspace  # drop-path rates, which the backbones read as numbers
    monkeypatch.setattr(torch, "linspace", lambda *args, **_: linspace(*args, device="cpu"))
    cfg = Config.fromfile(file).backbone
    cfg.pop("init_cfg", None)
    if "pretrained" in cfg:
        cfg.pretrained = False if "model_name" in cfg else None
    if cfg.type.endswith((".VisionTransformer", ".ShrunkVisionTransformer", ".TimmTokenStream")):
        cfg.img_size = (64, 64)
    with torch.device("meta"):
        model = torch.nn.ModuleDict(dict(backbone=MODELS.build(cfg)))
    groups = ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1))).parameter_groups(model)
    undecayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    for module in model.modules():
        by_type = isinstance(module, (torch.nn.modules.batchnorm._NormBase, torch.nn.GroupNorm, torch.nn.LayerNorm))
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                assert (id(parameter) in undecayed) == (by_type or name in FORMER_NAMES), (type(module), name)


def test_parameter_rule__module_names_what_is_not_decayed():
    class Table(torch.nn.Linear):
        def no_weight_decay(self) -> set[str]:
            return {"bias"}

    model = torch.nn.ModuleDict(dict(decode_head=torch.nn.Sequential(Table(2, 3))))
    rule = ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1)))
    sizes = {group["weight_decay"]: [p.numel() for p in group["params"]] for group in rule.parameter_groups(model)}
    assert sizes == {0.1: [6], 0.0: [3]}


@pytest.mark.parametrize(
    ("options", "is_cuda", "expected"),
    [
        (dict(type="AdamW"), True, True),
        (dict(type=torch.optim.SGD), True, True),
        (dict(type="AdamW"), False, False),  # on the CPU torch chooses
        (dict(type="AdamW", foreach=True), True, False),
        (dict(type="AdamW", fused=False), True, False),
        (dict(type="LBFGS"), True, False),  # has no fused kernel
    ],
)
def test_parameter_rule__steps_in_one_kernel_on_a_gpu(options, is_cuda, expected):
    parameter = SimpleNamespace(is_cuda=is_cuda)
    assert _can_fuse(dict(options, params=[dict(params=[parameter])])) is expected


def test_parameter_rule__keeps_torch_s_choice_on_a_cpu():
    rule = ParameterRule(dict(optimizer=dict(type="AdamW", lr=1.0)))
    assert rule(torch.nn.Linear(2, 2)).optimizer.defaults["fused"] is None
