"""Mask2Former of mmseg."""

import importlib.util
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from jaxtyping import Float, Int
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import Tensor

from mmseg_m2f.benchmark.implementations.interface import (
    Layer,
    Masks,
    Outputs,
    Weights,
    make_samples,
    masks_of_layers,
    only_losses,
)
from mmseg_m2f.benchmark.setting import Batch, Setting
from mmseg_m2f.checkpoints.layouts import convert
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.errors import MissingFileError

_UPSTREAM = ".mim/configs/mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py"


class Upstream:
    """mmseg's Mask2Former with R50, from the config that the installed package ships."""

    name = "mmseg"

    def __init__(self, weights: Weights, setting: Setting) -> None:
        cfg = upstream_config()
        drop_initial_weights(cfg.model)
        model, head = cfg.model, cfg.model.decode_head
        model.backbone.update(norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True)
        model.pop("data_preprocessor")
        head.update(num_classes=setting.classes, num_queries=setting.queries)
        head.loss_cls.class_weight = [1.0] * setting.classes + [0.1]
        head.train_cfg.num_points = setting.points
        for part in (model, model.backbone, head):
            part.type = f"mmseg.{part.type}"
        self.model = MODELS.build(model)
        self.model.load_state_dict(convert(weights, to="mmseg").weights)
        self.model.to(setting.device).train()
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.optimizer: torch.optim.Optimizer = self.wrapper.optimizer

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Outputs:
        return self.model.decode_head(self.model.extract_feat(images), make_samples(images[:, 0]))

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        head = self.model.decode_head
        targets = head._seg_data_to_instance_data(make_samples(batch.label_maps))
        return only_losses(head.loss_by_feat(*outputs, *targets))

    def step(self) -> None:
        self.wrapper.step()

    def label_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        samples = self.model.predict(images, make_samples(images[:, 0]))
        return [sample.pred_sem_seg.data.squeeze(0) for sample in samples]

    def layers(self, outputs: Outputs) -> list[Layer]:
        return [Layer(*layer) for layer in zip(*outputs, strict=True)]

    def recorded_masks(self) -> AbstractContextManager[Masks]:
        layers = self.model.decode_head.transformer_decoder.layers
        return masks_of_layers(layers, "cross_attn_mask", self.model.decode_head.num_heads)


def upstream_config() -> Config:
    """The config that the installed package ships.

    Raises:
        FileNotFoundError: it is not there.
    """
    spec = importlib.util.find_spec("mmseg")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [path for folder in folders if (path := Path(folder) / _UPSTREAM).is_file()]
    if not found:
        raise MissingFileError(
            f"mmseg: expected its config {_UPSTREAM} in {folders or 'an installed package'}, got none. Install "
            "mmsegmentation with its configs (pip does), or leave mmseg out."
        )
    return Config.fromfile(found[0], import_custom_modules=False)
