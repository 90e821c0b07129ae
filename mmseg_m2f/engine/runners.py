"""mmengine's Runner, writing its files in one step, with models spread over processes as `strategy` says."""

import os
from typing import Any

from mmengine.device import get_device
from mmengine.dist import is_main_process, master_only
from mmengine.model import convert_sync_batchnorm, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmseg_m2f.engine.sharding import is_sharded, shard, whole
from mmseg_m2f.engine.strategies import Sharding, sharding_of, zero_of
from mmseg_m2f.engine.zero import Zero, ZeroModel, spread
from mmseg_m2f.files import replace_file


class SafeRunner(Runner):
    """mmengine's Runner, whose copy of the config in the work folder is never half written.

    With `strategy=dict(type="FSDPStrategy")` it shards the model when weights and optimizer are complete, and gathers
    them for checkpoints; with `DeepSpeedStrategy` it does so with the optimizer. Hooks may have a method
    `before_gather_checkpoint(runner)`, which all processes call.
    """

    model: nn.Module

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As mmengine does; a model that is to be spread stays as it is, one to be sharded on the CPU."""
        if self._sharding() is None and self._zero() is None:
            return super().wrap_model(model_wrapper_cfg, model)
        if self._sharding() is None:
            model = model.to(get_device())
        return convert_sync_batchnorm(model, self.cfg.sync_bn) if self.cfg.get("sync_bn") else model

    def load_or_resume(self) -> None:
        """Loads weights and states, then spreads them over processes."""
        super().load_or_resume()
        zero = self._zero()
        if zero is not None and isinstance(self.optim_wrapper, OptimWrapper) and not is_model_wrapper(self.model):
            self.model = spread(self.model, self.optim_wrapper, zero)
        sharding = self._sharding()
        if sharding is None or is_sharded(self.model):
            return
        wrapper: Any = self.optim_wrapper if isinstance(self.optim_wrapper, OptimWrapper) else None
        optimizer = None if wrapper is None else wrapper.optimizer
        shard(self.model, optimizer, device=get_device(), min_parameters=sharding.min_parameters)
        if wrapper is not None and wrapper.clip_grad_kwargs:
            clip = wrapper.clip_func

            def clip_and_gather(*args: object, **kwargs: object) -> object:
                norm = clip(*args, **kwargs)
                return None if norm is None else whole(norm)

            wrapper.clip_func = clip_and_gather

    def save_checkpoint(self, *args: object, **kwargs: Any) -> None:  # noqa: ANN401  (mmengine's signature)
        """Writes a checkpoint on the first process; the others give their parts of it."""
        self.call_hook("before_gather_checkpoint")
        if not is_main_process():
            if is_sharded(self.model):
                self.model.state_dict()
            if kwargs.get("save_optimizer", True) and (is_sharded(self.model) or isinstance(self.model, ZeroModel)):
                self.optim_wrapper.state_dict()
        super().save_checkpoint(*args, **kwargs)

    @master_only
    def dump_config(self) -> None:
        """Writes the config to the work folder; beside the file that it was read from, never over it."""
        name = os.path.basename(self.cfg.filename or f"{self.timestamp}.py")
        if self.cfg.filename and os.path.realpath(self.cfg.filename) == os.path.realpath(
            os.path.join(self.work_dir, name)
        ):
            name = f"{self.timestamp}.py"
        replace_file(os.path.join(self.work_dir, name), self.cfg.pretty_text.encode())

    def _sharding(self) -> Sharding | None:
        """How the model is sharded; None where each process holds all of it."""
        return sharding_of(self.cfg) if self.distributed else None

    def _zero(self) -> Zero | None:
        """How DeepSpeed trains the model; None where it does not."""
        return zero_of(self.cfg) if self.distributed else None
