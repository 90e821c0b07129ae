"""Mask2Former of mmseg."""

from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Int
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import Tensor

from mmseg_m2f.benchmark.implementations.interface import (
    LEAST_SIZE,
    Layer,
    Masks,
    Outputs,
    Weights,
    masks_of_layers,
    only_losses,
)
from mmseg_m2f.benchmark.made_samples import make_samples
from mmseg_m2f.benchmark.setting import Batch, Setting
from mmseg_m2f.benchmark.shipped.catalogue import find_shipped
from mmseg_m2f.checkpoints.layouts import convert
from mmseg_m2f.config.initial_weights import drop_initial_weights


class Upstream:
    """mmseg's Mask2Former with R50, from the config that the installed package ships."""

    name = "mmseg"
    least_size = LEAST_SIZE

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

    def forward(self, batch: Batch) -> Outputs:
        images = batch.images
        return self.model.decode_head(self.model.extract_feat(images), make_samples(images[:, 0]))

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        head = self.model.decode_head
        targets = head._seg_data_to_instance_data(make_samples(batch.label_maps))
        return only_losses(head.loss_by_feat(*outputs, *targets))

    def step(self) -> None:
        self.wrapper.step()

    def predict(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
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
    path = find_shipped("mmseg", "mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py")
    return Config.fromfile(path, import_custom_modules=False)
