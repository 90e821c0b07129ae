"""The images of a split outside a run: batches prepared in this process, in the same order every time."""

from typing import Literal

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmseg_m2f.engine.run_checks import drop_worker_settings


def split_loader(cfg: Config, split: Literal["train", "val", "test"]) -> DataLoader:
    """The loader of a config's split, with seed 0 and without data workers.

    Raises:
        FileNotFoundError: Data are missing.
    """
    loader = dict(cfg[f"{split}_dataloader"], num_workers=0)
    drop_worker_settings(loader)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        return Runner.build_dataloader(loader, seed=0)
