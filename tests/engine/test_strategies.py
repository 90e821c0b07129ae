from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_m2f.engine.sharding import MIN_BLOCK
from mmseg_m2f.engine.strategies import Sharding, resolve_strategy, sharding_of
from tests.tiny_segmentation import tiny_config


def config(**settings: object) -> Config:
    cfg = tiny_config(Path("data"))
    cfg.merge_from_dict(settings)
    return cfg


FSDP = dict(type="FSDPStrategy")


@pytest.mark.parametrize(
    ("settings", "launcher", "message"),
    [
        (dict(strategy="fsdp"), "none", r"strategy='fsdp': expected dict\(type="),
        (dict(strategy=dict(type="ColossalAIStrategy")), "none", "strategy.type='ColossalAIStrategy': expected Single"),
        (dict(strategy=dict(type="DeepSpeedStrategy")), "pytorch", "folders of pickled parts.*Use FSDPStrategy"),
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
