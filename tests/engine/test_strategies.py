import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_m2f.engine.sharding import MIN_BLOCK
from mmseg_m2f.engine.strategies import Sharding, resolve_strategy, sharding_of, zero_of
from mmseg_m2f.engine.zero import Zero
from tests.tiny_segmentation import tiny_config


def config(**settings: object) -> Config:
    cfg = tiny_config(Path("data"))
    cfg.merge_from_dict(settings)
    return cfg


FSDP = dict(type="FSDPStrategy")
ZERO = dict(type="DeepSpeedStrategy")


@pytest.mark.parametrize(
    ("settings", "launcher", "message"),
    [
        (dict(strategy="fsdp"), "none", r"strategy='fsdp': expected dict\(type="),
        (dict(strategy=dict(type="ColossalAIStrategy")), "none", "strategy.type='ColossalAIStrategy': expected Single"),
        (dict(strategy=ZERO), "none", "DeepSpeedStrategy: expected several processes, got one"),
        (dict(strategy=dict(ZERO, zero_optimization=dict(stage=3))), "pytorch", r"stage=3: expected 1 .* FSDPStrategy"),
        (
            dict(strategy=dict(ZERO, zero_optimization=dict(offload_optimizer=dict(device="cpu")))),
            "pytorch",
            "without offload_optimizer and offload_param",
        ),
        (
            dict(strategy=dict(ZERO, zero_optimization=dict(overlap_comm=True))),
            "pytorch",
            "zero_optimization.overlap_comm: expected stage, reduce",
        ),
        (dict(strategy=dict(ZERO, bf16=dict(enabled=True))), "pytorch", "strategy.bf16: .*Train with --amp"),
        (dict(strategy=dict(ZERO, fp16=dict(enabled=True))), "pytorch", "strategy.fp16: .*Train with --amp"),
        (dict(strategy=dict(ZERO, gradient_clipping=1.0)), "pytorch", "gradient_clipping: .*optim_wrapper.clip_grad"),
        (dict(strategy=dict(ZERO, gradient_accumulation_steps=2)), "pytorch", "Set optim_wrapper.accumulative_counts"),
        (dict(strategy=dict(ZERO, train_micro_batch_size_per_gpu=2)), "pytorch", "Set train_dataloader.batch_size"),
        (dict(strategy=dict(ZERO, exclude_frozen_parameters=True)), "pytorch", "strategy.exclude_frozen_parameters"),
        (dict(strategy=ZERO, model=dict(cuda_graphs=True)), "pytorch", "DeepSpeedStrategy with model.cuda_graphs"),
        (dict(strategy=ZERO, model=dict(compile=True)), "pytorch", "DeepSpeedStrategy with model.compile"),
        (
            dict(strategy=ZERO, optim_wrapper=dict(type="mmengine.AmpOptimWrapper", loss_scale="dynamic")),
            "pytorch",
            "DeepSpeedStrategy with float16 with loss scaling",
        ),
        (
            dict(strategy=ZERO, optim_wrapper=dict(type="mmengine.DeepSpeedOptimWrapper")),
            "pytorch",
            "with DeepSpeedOptimWrapper: .*mmengine.OptimWrapper",
        ),
        (
            dict(strategy=ZERO, optim_wrapper=dict(clip_grad=dict(norm_type=1))),
            "pytorch",
            r"clip_grad=.*expected dict\(max_norm",
        ),
        (
            dict(strategy=ZERO, model_wrapper_cfg=dict(type="MMDistributedDataParallel")),
            "pytorch",
            "with strategy DeepSpeedStrategy: expected",
        ),
        (dict(runner_type="MyRunner"), "none", "runner_type='MyRunner': expected 'Runner' or 'FlexibleRunner'"),
        (dict(model_wrapper_cfg=dict(type="MyDDP")), "none", "model_wrapper_cfg.type='MyDDP': expected MMDistributed"),
        (
            dict(strategy=dict(type="DDPStrategy"), model_wrapper_cfg=dict(type="MMFullyShardedDataParallel")),
            "pytorch",
            "with strategy DDPStrategy: expected",
        ),
        (dict(strategy=dict(type="SingleDeviceStrategy")), "pytorch", "expected a strategy for several processes"),
        (
            dict(strategy=dict(type="DDPStrategy", zero=1)),
            "pytorch",
            "strategy.zero: expected type, model_wrapper, sync",
        ),
        (dict(strategy=FSDP), "none", "expected several processes, got one"),
        (dict(sync_bn="all"), "none", "sync_bn='all': expected 'torch', 'mmcv' or None"),
        (
            dict(strategy=dict(FSDP, sync_bn="mmcv"), optim_wrapper=dict(type="mmseg_m2f.Bfloat16OptimWrapper")),
            "pytorch",
            "sync_bn='mmcv' with bfloat16: expected float32 or float16",
        ),
        (dict(strategy=dict(FSDP, state_dict_cfg="local")), "pytorch", "state_dict_cfg='local': expected 'full'"),
        (
            dict(strategy=dict(FSDP, model_wrapper=dict(mixed_precision=dict(param_dtype="float16")))),
            "pytorch",
            "model_wrapper.mixed_precision: expected type, auto_wrap_policy",
        ),
        (
            dict(strategy=dict(FSDP, model_wrapper=dict(auto_wrap_policy="mine"))),
            "pytorch",
            "auto_wrap_policy='mine': expected dict",
        ),
        (dict(strategy=FSDP, model=dict(cuda_graphs=True)), "pytorch", "FSDPStrategy with model.cuda_graphs"),
        (dict(strategy=FSDP, model=dict(compile=True)), "pytorch", "FSDPStrategy with model.compile"),
        (dict(strategy=FSDP, custom_hooks=[dict(type="mmengine.EMAHook")]), "pytorch", "FSDPStrategy with EMAHook"),
        (
            dict(strategy=FSDP, optim_wrapper=dict(type="mmengine.AmpOptimWrapper", loss_scale="dynamic")),
            "pytorch",
            "FSDPStrategy with float16 with loss scaling",
        ),
    ],
)
def test_resolve_strategy__refuses(settings: dict, launcher: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_strategy(config(**settings), launcher=launcher, training=True)


def test_resolve_strategy__needs_a_torch_that_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmseg_m2f.compat.has_fully_shard", lambda: False)
    with pytest.raises(RuntimeError, match=r"expected torch 2\.6 or newer"):
        resolve_strategy(config(strategy=FSDP), launcher="pytorch", training=True)


@pytest.mark.parametrize("runner_type", ["Runner", "mmengine.FlexibleRunner"])
def test_resolve_strategy__takes_both_runners(runner_type: str) -> None:
    resolve_strategy(config(runner_type=runner_type), launcher="none", training=True)


def test_resolve_strategy__gives_the_arguments_of_ddp_to_the_runner() -> None:
    wrapper = dict(type="MMDistributedDataParallel", find_unused_parameters=True)
    cfg = config(strategy=dict(type="mmengine.DDPStrategy", model_wrapper=wrapper, sync_bn="torch"))
    resolve_strategy(cfg, launcher="pytorch", training=True)
    assert cfg.model_wrapper_cfg == dict(type="mmengine.MMDistributedDataParallel", find_unused_parameters=True)
    assert cfg.sync_bn == "torch"


@pytest.mark.parametrize("name", ["FSDPStrategy", "DDPStrategy"])
def test_resolve_strategy__gives_the_runner_the_batch_norms(name: str) -> None:
    cfg = config(strategy=dict(type=name, sync_bn="mmcv"))
    resolve_strategy(cfg, launcher="pytorch", training=True)
    assert cfg.sync_bn == "mmcv"


def test_resolve_strategy__tests_a_sharded_config_in_one_process() -> None:
    resolve_strategy(config(strategy=FSDP), launcher="none", training=False)


def test_sharding_of__reads_both_spellings() -> None:
    wrapper = dict(
        type="mmengine.MMFullyShardedDataParallel",
        auto_wrap_policy=dict(type="torch.distributed.fsdp.wrap.size_based_auto_wrap_policy", min_num_params=100),
    )
    assert sharding_of(config()) is None
    assert sharding_of(config(strategy=FSDP)) == Sharding(MIN_BLOCK)
    assert sharding_of(config(model_wrapper_cfg=wrapper)) == Sharding(100)
    assert sharding_of(config(strategy=dict(FSDP, model_wrapper=wrapper))) == Sharding(100)


def test_resolve_strategy__names_the_extra_of_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(TypeError, match=r"mmseg-m2f\[deepspeed\]"):
        resolve_strategy(config(strategy=ZERO), launcher="pytorch", training=True)
    resolve_strategy(config(strategy=ZERO), launcher="pytorch", training=False)  # testing needs no DeepSpeed


def test_zero_of__reads_the_arguments_of_mmengine() -> None:
    assert zero_of(config()) is None
    assert zero_of(config(strategy=FSDP)) is None
    assert zero_of(config(strategy=ZERO)) == Zero(stage=1)
    given = dict(stage=2, reduce_bucket_size=1000)
    assert zero_of(config(strategy=dict(ZERO, zero_optimization=given))) == Zero(stage=2, reduce_bucket_size=1000)
