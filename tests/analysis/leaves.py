"""One leaf for each task, with random weights and four images: what the analyses of trained models are tried on."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmseg_m2f.config.load import load_config
from mmseg_m2f.registry import MODELS

LEAVES = dict(
    semantic="mask2former_r18_shapes_debug",
    instance="mask2former_r18_shapes-instance_demo",
    panoptic="mask2former_r18_shapes-panoptic_demo",
)
OPTIONS = {
    "test_dataloader.dataset.length": 3,
    "test_dataloader.num_workers": 0,
    "test_dataloader.persistent_workers": False,
    "crop_size": 64,
}


def write_weights(task: str, folder: Path) -> str:
    """A checkpoint of the leaf's model, of seeded random weights, whose queries are not all sure of the same class."""
    torch.manual_seed(0)
    cfg: Config = load_config(LEAVES[task], OPTIONS)
    model_cfg = dict(cfg.model)
    with DefaultScope.overwrite_default_scope("mmengine"):
        model = MODELS.build(model_cfg)
    layer = model.decode_head.query_decoder.cls_embed
    torch.nn.init.normal_(layer.weight, std=1.0)
    path = folder / f"{task}.pth"
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)
