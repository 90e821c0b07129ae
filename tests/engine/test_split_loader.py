import torch

from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.split_loader import split_loader


def test_split_loader__prepares_the_same_batches_here_whatever_the_workers():
    cfg = load_config("mask2former_r18_shapes_demo")
    cfg.val_dataloader.update(num_workers=2, persistent_workers=True, prefetch_factor=4, batch_size=3)
    loader = split_loader(cfg, "val")
    assert loader.num_workers == 0
    first, again = next(iter(loader)), next(iter(split_loader(cfg, "val")))
    assert len(first["inputs"]) == 3
    assert all(map(torch.equal, first["inputs"], again["inputs"]))
    assert cfg.val_dataloader.num_workers == 2
