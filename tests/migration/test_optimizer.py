from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.migration import MigrationReport
from mmseg_m2f.migration.optimizer import migrate_optim_wrapper


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("panoptic_head.query_embed", "decode_head.query_decoder.query_embed"),
        ("panoptic_head", "decode_head"),
        ("query", None),  # would match everything below `query_decoder`
    ],
)
def test_migrate__optimizer_keys_name_our_parameters(key, ours):
    cfg = Config.fromfile(Path(__file__).parents[2] / "configs/mask2former/mask2former_r18_shapes-panoptic_demo.py")
    drop_initial_weights(cfg.model)
    model = MODELS.build(cfg.model)
    wrapper = dict(
        type="mmengine.OptimWrapper",
        optimizer=dict(type="mmengine.SGD", lr=1.0, weight_decay=0.1),
        paramwise_cfg=dict(custom_keys={key: dict(lr_mult=0.5)}),
    )
    if ours is None:
        with pytest.raises(ValueError, match=r"level_embed.weight has learning rate and weight decay \(1.0, 0.1\) up"):
            migrate_optim_wrapper(wrapper, model, head="panoptic_head", report=MigrationReport())
        return
    migrated = migrate_optim_wrapper(wrapper, model, head="panoptic_head", report=MigrationReport())
    assert migrated["paramwise_cfg"] == dict(custom_keys={ours: dict(lr_mult=0.5)})
