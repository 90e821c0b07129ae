"""Checkpoints that replace earlier ones only when they are complete, on the disk, and of any use."""

import os
from collections import deque
from collections.abc import Mapping
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import BaseStorageBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmseg_m2f.checkpoints.checking import non_finite_names
from mmseg_m2f.engine.hooks.exact_resume import ExactResume
from mmseg_m2f.engine.resume.run_state import RUN_STATE, unwrapped
from mmseg_m2f.errors import NonFiniteError
from mmseg_m2f.files import is_remote, replace_file
from mmseg_m2f.registry import HOOKS

_OUTDATED = "outdated_ckpts"  # in the message hub: names of files that go when the new one is there


class _KeepsOutdated:
    """A file backend that notes what it is told to remove."""

    def __init__(self, backend: BaseStorageBackend, outdated: list[str]) -> None:
        self._backend = backend
        self._outdated = outdated

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    rmtree = remove

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook of checkpoints, in another order: first write, then delete. The launcher puts it in its place.

    A new file is written beside the old one, synced with its folder and renamed; then those that it replaces are
    deleted, the best checkpoint too. What was to be deleted is in the new file, so that a run that is killed in between
    deletes it when it is resumed. Weights, moving averages or optimizer states with NaN or infinite numbers are not
    written. Each checkpoint to resume from holds the state that `ExactResume` restores.

    Raises:
        NonFiniteError: Weights are not finite.
    """

    out_dir: Any
    file_backend: Any
    backend_args: dict | None
    keep_ckpt_ids: deque[int]

    def before_train(self, runner: Runner) -> None:
        """Finds the files of the run in the folder it is in now, and deletes what a killed run had left to delete."""
        self._outdated: list[str] = []
        self._run_state: Mapping[str, Any] | None = None
        if self.backend_args is None and self.file_client_args is None and not is_remote(self.out_dir or "."):
            self.backend_args = dict(backend="mmseg_m2f.atomic")
        # Buffers of a model may be infinite on purpose; its parameters may not.
        model = unwrapped(runner.model)
        self._allowed = set(non_finite_names(model.state_dict())) - {name for name, _ in model.named_parameters()}
        super().before_train(runner)
        self._find_best(runner)
        hub = runner.message_hub
        names = hub.get_info(_OUTDATED) if _OUTDATED in hub.runtime_info else []
        self._outdated = [self.file_backend.join_path(self.out_dir, name) for name in names]
        self._delete_outdated(keep=hub.runtime_info.get("last_ckpt"))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Notes that this iteration is validated, then keeps the best checkpoint."""
        runner.message_hub.update_info("last_validated_iter", runner.iter)
        super().after_val_epoch(runner, metrics or {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuses numbers that are not finite, and adds the state of the run to what is resumed from."""
        parts = {"weights": checkpoint["state_dict"], "moving averages": checkpoint.get("ema_state_dict") or {}}
        optimizer = (checkpoint.get("optimizer") or {}).get("state") or {}
        parts["optimizer states"] = {
            f"{key} of parameter {index}": value for index, s in optimizer.items() for key, value in s.items()
        }
        for what, tensors in parts.items():
            found = [name for name in non_finite_names(tensors) if name.removeprefix("module.") not in self._allowed]
            if found:
                raise NonFiniteError(_message(runner, what, found, self.out_dir))
        if "optimizer" in checkpoint and self._run_state is not None:
            checkpoint[RUN_STATE] = self._run_state

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        hub, written = runner.message_hub, self.filename_tmpl.format(step)
        if self.max_keep_ckpts > 0:
            kept = [*(id_ for id_ in self.keep_ckpt_ids if id_ != step), step]
            gone, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            hub.update_info("keep_ckpt_ids", kept)
            for id_ in gone:
                self._outdated.append(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(id_)))
        hub.update_info(_OUTDATED, [os.path.basename(path) for path in self._outdated])
        self.last_ckpt = self.file_backend.join_path(self.out_dir, written)
        hub.update_info("last_ckpt", self.last_ckpt)
        resume = next((hook for hook in runner.hooks if isinstance(hook, ExactResume)), None)
        self._run_state = None if resume is None else resume.collect(runner, iteration=meta["iter"])
        runner.save_checkpoint(
            self.out_dir,
            written,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._run_state = None
        if is_main_process():
            replace_file(os.path.join(runner.work_dir, "last_checkpoint"), str(self.last_ckpt).encode())
        self._delete_outdated(keep=self.last_ckpt)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend = self.file_backend
        self.file_backend = _KeepsOutdated(backend, self._outdated)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        self._delete_outdated(keep=self.last_ckpt)

    def _delete_outdated(self, *, keep: object) -> None:
        """Delete what the file just written replaces, unless a caller higher up is not done writing."""
        if isinstance(self.file_backend, _KeepsOutdated):
            return
        paths, self._outdated[:] = list(self._outdated), []
        current = {os.path.basename(str(path)) for path in (keep, *self._best_paths()) if path}
        for path in paths if is_main_process() else []:
            if os.path.basename(path) in current:
                continue
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):
                self.file_backend.rmtree(path)

    def _best_paths(self) -> list[str | None]:
        if not self.save_best:
            return []
        if len(self.key_indicators) == 1:
            return [self.best_ckpt_path]
        return list(self.best_ckpt_path_dict.values())

    def _find_best(self, runner: Runner) -> None:
        """Look for the best checkpoints of a resumed run in this folder; forget the score of one that is not here."""
        hub = runner.message_hub
        for key in self.key_indicators if self.save_best else []:
            suffix = "" if len(self.key_indicators) == 1 else f"_{key}"
            stored = hub.runtime_info.get(f"best_ckpt{suffix}")
            if not stored:
                continue
            path = self.file_backend.join_path(self.out_dir, os.path.basename(stored))
            if not self.file_backend.exists(path):
                runner.logger.warning(
                    f"The best checkpoint, {os.path.basename(stored)} ({key} {hub.get_info(f'best_score{suffix}')}), "
                    f"is not in {self.out_dir}: the next validation keeps a new one. Copy it there and resume again to "
                    "keep it."
                )
                hub.pop_info(f"best_ckpt{suffix}")
                hub.pop_info(f"best_score{suffix}")
                path = None
            else:
                hub.update_info(f"best_ckpt{suffix}", path)
            if len(self.key_indicators) == 1:
                self.best_ckpt_path = path
            else:
                self.best_ckpt_path_dict[key] = path


def _message(runner: Runner, what: str, names: list[str], folder: object) -> str:
    listed = ", ".join(names[:3]) + (" ..." if names[3:] else "")
    return (
        f"Iteration {runner.iter}: {len(names)} {what} hold NaN or infinite numbers ({listed}); expected finite ones. "
        f"No checkpoint was written, and those in {folder} stay. Lower the learning rate or clip the gradients "
        "(optim_wrapper.clip_grad=dict(max_norm=0.01, norm_type=2)), and go on from the last one with --resume."
    )
