"""How a model is spread over processes: `strategy`, `runner_type` and `model_wrapper_cfg` as mmengine spells them.

mmengine has two runners, and only its `FlexibleRunner` reads `strategy`. Here one runner does both, so that checks,
report, checkpoints and resuming are the same whatever the strategy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmseg_m2f import compat
from mmseg_m2f.config.nodes import short_type
from mmseg_m2f.engine.sharding import MIN_BLOCK
from mmseg_m2f.engine.zero import Zero, clip_norm, import_deepspeed
from mmseg_m2f.errors import InvalidValueError, ResourceError

_FSDP, _FSDP_WRAPPER, _DDP_WRAPPER = "FSDPStrategy", "MMFullyShardedDataParallel", "MMDistributedDataParallel"
_DEEPSPEED = "DeepSpeedStrategy"
_ACCEPTED = "SingleDeviceStrategy, DDPStrategy, FSDPStrategy or DeepSpeedStrategy"
#: Arguments of mmengine's DeepSpeedStrategy for which this package has a key that works with every strategy.
_OTHER_KEYS = {
    "bf16": "Train with --amp: products in bfloat16, weights in float32",
    "fp16": "Train with --amp on a GPU that has bfloat16",
    "amp": "Train with --amp",
    "gradient_clipping": "Set optim_wrapper.clip_grad=dict(max_norm=NORM, norm_type=2)",
    "gradient_accumulation_steps": "Set optim_wrapper.accumulative_counts",
    "train_micro_batch_size_per_gpu": "Set train_dataloader.batch_size",
    "config": "Write zero_optimization into the strategy",
}


@dataclass(frozen=True)
class Sharding:
    """How parameters are spread.

    Attributes:
        min_parameters: Blocks of the backbone with so many are gathered one by one.
    """

    min_parameters: int = MIN_BLOCK


def resolve_strategy(cfg: Config, *, launcher: str, training: bool) -> None:
    """Check how a config spreads the model, and write it where the runner looks.

    Args:
        cfg: Changed in place: arguments of a strategy become `model_wrapper_cfg` and `sync_bn`.
        launcher: `none` for a single process.

    Raises:
        ValueError: The strategy, one of its arguments, or what it is combined with is not supported.
        RuntimeError: It needs a package or a version that is not installed.
    """
    runner = str(cfg.get("runner_type") or "Runner").rpartition(".")[2]
    if runner not in ("Runner", "FlexibleRunner"):
        raise InvalidValueError(f"runner_type={cfg.runner_type!r}: expected 'Runner' or 'FlexibleRunner'. Remove it.")
    name = _strategy_name(cfg)
    if name not in ("", "SingleDeviceStrategy", "DDPStrategy", _FSDP, _DEEPSPEED):
        raise InvalidValueError(f"strategy.type={name!r}: expected {_ACCEPTED}. Set one of them, or remove strategy.")
    wrapper = _type_name(cfg.get("model_wrapper_cfg"))
    if wrapper not in ("", _DDP_WRAPPER, _FSDP_WRAPPER) or (name and wrapper not in ("", _wrapper_of(name))):
        raise InvalidValueError(
            f"model_wrapper_cfg.type={wrapper!r}{f' with strategy {name}' if name else ''}: expected {_DDP_WRAPPER} or "
            f"{_FSDP_WRAPPER}, as the strategy has it. Remove model_wrapper_cfg."
        )
    sharding, zero = sharding_of(cfg), zero_of(cfg)
    if name and cfg.strategy.get("sync_bn"):
        cfg.sync_bn = cfg.strategy.sync_bn
    _check_batch_norms(cfg, launcher=launcher)
    if sharding is not None:
        _check_sharding(cfg, launcher=launcher, training=training)
    elif zero is not None:
        _check_zero(cfg, launcher=launcher, training=training)
    elif name == "DDPStrategy":
        _use_ddp(cfg)
    elif name:
        _refuse_arguments("strategy", cfg.strategy, ("type", "sync_bn"))
        if launcher != "none":
            raise InvalidValueError(
                f"strategy.type='SingleDeviceStrategy' with --launcher {launcher}: expected a strategy for several "
                "processes. Remove strategy, or set DDPStrategy or FSDPStrategy."
            )


def sharding_of(cfg: Config) -> Sharding | None:
    """How a config shards parameters; None where it does not.

    Raises:
        ValueError: An argument of the strategy is not supported.
    """
    wrapper: Mapping[str, Any] = cfg.get("model_wrapper_cfg") or {}
    if _strategy_name(cfg) == _FSDP:
        _refuse_arguments("strategy", cfg.strategy, ("type", "model_wrapper", "sync_bn", "state_dict_cfg"))
        stored = cfg.strategy.get("state_dict_cfg", "full")
        if stored != "full":
            raise InvalidValueError(
                f"strategy.state_dict_cfg={stored!r}: expected 'full'. Checkpoints hold whole parameters, so that they "
                "load anywhere. Remove it."
            )
        wrapper = cfg.strategy.get("model_wrapper") or wrapper
    elif _type_name(wrapper) != _FSDP_WRAPPER:
        return None
    _refuse_arguments("model_wrapper", wrapper, ("type", "auto_wrap_policy", "use_orig_params"))
    policy = wrapper.get("auto_wrap_policy")
    if policy is None:
        return Sharding()
    if not isinstance(policy, Mapping) or _type_name(policy) != "size_based_auto_wrap_policy":
        raise InvalidValueError(
            f"model_wrapper.auto_wrap_policy={policy!r}: expected dict(type='size_based_auto_wrap_policy', "
            "min_num_params=N): blocks of the backbone with N parameters are gathered one by one."
        )
    _refuse_arguments("auto_wrap_policy", policy, ("type", "min_num_params"))
    return Sharding(min_parameters=int(policy.get("min_num_params", MIN_BLOCK)))


def zero_of(cfg: Config) -> Zero | None:
    """How a config has DeepSpeed spread optimizer states; None where it does not.

    Raises:
        ValueError: An argument of the strategy is not supported.
    """
    if _strategy_name(cfg) != _DEEPSPEED:
        return None
    for name, remedy in _OTHER_KEYS.items():
        if name in cfg.strategy:
            raise InvalidValueError(f"strategy.{name}: expected a strategy without it. {remedy}, and remove it.")
    _refuse_arguments("strategy", cfg.strategy, ("type", "zero_optimization", "sync_bn"))
    given = cfg.strategy.get("zero_optimization") or {}
    if "offload_optimizer" in given or "offload_param" in given:
        raise InvalidValueError(
            "strategy.zero_optimization: expected it without offload_optimizer and offload_param, which are not "
            "supported. Remove them; to save memory, spread the model over more GPUs with FSDPStrategy."
        )
    _refuse_arguments("strategy.zero_optimization", given, ("stage", "reduce_bucket_size", "allgather_bucket_size"))
    zero = Zero(**given)
    if zero.stage not in (1, 2):
        raise InvalidValueError(
            f"strategy.zero_optimization.stage={zero.stage!r}: expected 1 (optimizer states are spread) or 2 "
            "(gradients too). Set one of them; FSDPStrategy spreads the weights as well, as stage 3 does."
        )
    return zero


def _check_batch_norms(cfg: Config, *, launcher: str) -> None:
    """Refuse what batch norms cannot share between processes."""
    kind = cfg.get("sync_bn")
    if kind not in (None, "torch", "mmcv"):
        raise InvalidValueError(f"sync_bn={kind!r}: expected 'torch', 'mmcv' or None. Set one of them.")
    wrapper = cfg.get("optim_wrapper") or {}
    is_bfloat16 = short_type(wrapper) == "Bfloat16OptimWrapper" or _is_bfloat16(wrapper)
    if kind == "mmcv" and launcher != "none" and is_bfloat16:
        raise InvalidValueError(
            "sync_bn='mmcv' with bfloat16: expected float32 or float16, which mmcv's synchronised batch norm takes. "
            "Set sync_bn='torch' (on GPUs), or train in float32."
        )


def _check_sharding(cfg: Config, *, launcher: str, training: bool) -> None:
    """Refuse what does not work with sharded parameters, or has not been shown to."""
    if not compat.has_fully_shard():
        raise ResourceError("FSDPStrategy: expected torch 2.6 or newer, got an older one. Update torch, or remove it.")
    if _is_alone(_FSDP, launcher=launcher, training=training):
        return
    hooks = [short_type(hook) for hook in cfg.get("custom_hooks") or [] if isinstance(hook, Mapping)]
    _refuse_combinations(_FSDP, cfg, (("EMAHook" in hooks, "EMAHook", "Remove it"),), training=training)


def _check_zero(cfg: Config, *, launcher: str, training: bool) -> None:
    """Refuse what does not work with DeepSpeed, or has not been shown to."""
    if _is_alone(_DEEPSPEED, launcher=launcher, training=training) or not training:
        return  # each process holds the whole model
    optimizer = cfg.get("optim_wrapper") or {}
    is_other = short_type(optimizer) == "DeepSpeedOptimWrapper"
    more = ((is_other, "DeepSpeedOptimWrapper", "Set optim_wrapper.type='mmengine.OptimWrapper'"),)
    _refuse_combinations(_DEEPSPEED, cfg, more, training=training)
    clip_norm(optimizer.get("clip_grad"))
    import_deepspeed()


def _is_alone(strategy: str, *, launcher: str, training: bool) -> bool:
    """Whether one process tests the whole model; one process does not train with a strategy for several."""
    if launcher == "none" and training:
        raise InvalidValueError(
            f"{strategy}: expected several processes, got one. Start with `torchrun --nproc_per_node N "
            "tools/train.py CONFIG --launcher pytorch`, or remove strategy."
        )
    return launcher == "none"


def _refuse_combinations(
    strategy: str, cfg: Config, more: tuple[tuple[bool, str, str], ...], *, training: bool
) -> None:
    """Refuse what a strategy is not combined with; `more` are whether, what, and what to do."""
    optimizer = cfg.get("optim_wrapper") or {}
    scaled = short_type(optimizer) == "AmpOptimWrapper" and not _is_bfloat16(optimizer)
    for found, what, remedy in (
        (cfg.model.get("cuda_graphs"), "model.cuda_graphs", "Remove it"),
        (cfg.model.get("compile"), "model.compile", "Remove it"),
        (cfg.get("compile"), "compile", "Remove it"),
        (cfg.get("activation_checkpointing"), "activation_checkpointing", "Remove it"),
        (cfg.get("efficient_conv_bn_eval"), "efficient_conv_bn_eval", "Remove it"),
        *more,
        (training and "optimizer" not in optimizer, "an optim_wrapper of several optimizers", "Take one optimizer"),
        (training and scaled, "float16 with loss scaling", "Train in bfloat16 (--amp on newer GPUs), or without --amp"),
    ):
        if found:
            raise InvalidValueError(
                f"{strategy} with {what}: expected a model without it, which can be spread over "
                f"processes. {remedy}, or train with DDP (no strategy)."
            )


def _use_ddp(cfg: Config) -> None:
    _refuse_arguments("strategy", cfg.strategy, ("type", "model_wrapper", "sync_bn"))
    wrapper = cfg.strategy.get("model_wrapper")
    if wrapper:
        if _type_name(wrapper) not in ("", _DDP_WRAPPER):
            raise InvalidValueError(f"strategy.model_wrapper.type={wrapper['type']!r}: expected {_DDP_WRAPPER!r}.")
        cfg.model_wrapper_cfg = dict(wrapper, type=f"mmengine.{_DDP_WRAPPER}")


def _is_bfloat16(wrapper: Mapping[str, Any]) -> bool:
    return str(wrapper.get("dtype")).rpartition(".")[2] == "bfloat16"


def _refuse_arguments(where: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InvalidValueError(
            f"{where}.{unknown[0]}: expected {', '.join(known)}, got an argument that is not supported. Remove it."
        )


def _wrapper_of(name: str) -> str:
    return {"DDPStrategy": _DDP_WRAPPER, _FSDP: _FSDP_WRAPPER}.get(name, "")


def _strategy_name(cfg: Config) -> str:
    strategy = cfg.get("strategy")
    if strategy is not None and not (isinstance(strategy, Mapping) and "type" in strategy):
        raise InvalidValueError(f"strategy={strategy!r}: expected dict(type=...) with {_ACCEPTED}.")
    return _type_name(strategy)


def _type_name(part: Mapping[str, object] | None) -> str:
    return "" if part is None else short_type(part)
