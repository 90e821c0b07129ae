"""Options for fine-tuning: lower rates for early layers, an average of the weights."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.options import apply_options
from mmseg_m2f.engine.launch import train
from tests.command_line import ROOT
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

SEMANTIC = ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py"
NAME = "decode_head.conv_seg.weight"


@HOOKS.register_module()
class KeepEachWeight(Hook):
    """Notes a weight after each iteration."""

    seen: Sequence[torch.Tensor]

    def before_train(self, runner: Runner) -> None:
        type(self).seen = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        self.seen.append(runner.model.state_dict()[NAME].clone())


def test_layer_decay__is_the_rules() -> None:
    cfg = load_config(SEMANTIC, {"layer_decay": 0.75, "optim_wrapper.paramwise_cfg.backbone_lr_mult": 1.0})
    assert cfg.optim_wrapper.paramwise_cfg == dict(backbone_lr_mult=1.0, layer_decay=0.75)
    apply_options(cfg, {"layer_decay": None})
    assert "layer_decay" not in cfg.optim_wrapper.paramwise_cfg


def test_layer_decay__refuses_what_it_cannot_reach() -> None:
    for wrong in (0, 1.5, "high"):
        with pytest.raises(ValueError, match=r"layer_decay=.*expected a factor above 0, at most 1"):
            load_config(SEMANTIC, {"layer_decay": wrong})
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1.0)), model=dict()))
    with pytest.raises(ValueError, match=r"layer_decay=0.5: .*ParameterRule.* got 'mmengine.DefaultOptim"):
        apply_options(cfg, {"layer_decay": 0.5})


@pytest.mark.parametrize(("value", "momentum"), [(True, 0.0002), ("on", 0.0002), (0.999, 0.001)])
def test_ema__adds_one_hook(value: object, momentum: float) -> None:
    hooks = [dict(type="mmseg_m2f.Report", num_images=2)]
    with pytest.raises(ValueError, match=r"ema=.* and a setting beside it, .* contradict"):
        load_config(SEMANTIC, {"ema": value, "custom_hooks": hooks})
    cfg = load_config(SEMANTIC, {"custom_hooks": hooks})
    apply_options(cfg, {"ema": 0.5})
    apply_options(cfg, {"ema": value})
    assert [hook.type for hook in cfg.custom_hooks] == ["mmseg_m2f.Report", "mmengine.EMAHook"]
    assert cfg.custom_hooks[1].momentum == momentum
    apply_options(cfg, {"ema": "off"})
    assert [hook.type for hook in cfg.custom_hooks] == ["mmseg_m2f.Report"]
    with pytest.raises(ValueError, match=r"ema=0.0002: expected the share of the average"):
        apply_options(cfg, {"ema": 0.0002})


def test_ema__stores_the_average_by_hand(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    cfg = tiny_config(tmp_path / "data", max_iters=3)
    for key in ("val_cfg", "val_dataloader", "val_evaluator"):
        cfg.pop(key)
    cfg.custom_hooks = [dict(type="KeepEachWeight")]
    cfg.report = False
    runner = train(write_config(cfg, tmp_path / "tiny.py"), {"ema": 0.5}, work_dir=str(tmp_path / "run"))
    assert {"Preflight", "NonFiniteGuard", "ExactResume", "EMAHook"} <= {type(hook).__name__ for hook in runner.hooks}
    first, second, third = KeepEachWeight.seen
    average = torch.lerp(first, second, 100 / 101)  # the first iteration copies
    average = torch.lerp(average, third, 100 / 102)
    stored = check_checkpoint(tmp_path / "run/iter_3.pth")["state_dict"]
    torch.testing.assert_close(stored[NAME], average, rtol=1e-6, atol=1e-8)
    assert not torch.equal(stored[NAME], third)
