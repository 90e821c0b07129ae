from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

ROOT = Path(__file__).parents[2]


def test_segvit_recipe__decay_and_learning_rates_are_the_published_ones():
    cfg = Config.fromfile(ROOT / "configs/segvit/segvit_vit_b_ade20k-512_160k.py")
    cfg.model.backbone.update(num_layers=1, out_indices=(0,), init_cfg=None)
    model = MODELS.build(cfg.model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found["backbone.layers.0.ln1.weight"] == (2e-5, 0.0)
    assert found["backbone.layers.0.attn.attn.in_proj_weight"] == (2e-5, 0.01)
    assert found["decode_head.query_decoder.stages.0.layers.0.norms.0.weight"] == (pytest.approx(2e-4), 0.01)
    assert found["decode_head.query_decoder.query_feat.weight"] == (pytest.approx(2e-4), 0.01)
