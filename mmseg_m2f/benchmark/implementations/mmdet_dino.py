"""DINO of mmdet, which Mask DINO extends by masks."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmseg_m2f.benchmark.implementations.interface import least_size_to_choose_from, only_losses
from mmseg_m2f.benchmark.implementations.ours import Ours
from mmseg_m2f.benchmark.made_samples import make_samples
from mmseg_m2f.benchmark.setting import Batch, Setting
from mmseg_m2f.benchmark.shipped.catalogue import find_shipped
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.pixel_decoders import DeformablePixelDecoder
from mmseg_m2f.models.query_decoders import AnchorMaskDecoder

_DEPTH, _CHANNELS, _NUM_LEVELS = 50, 256, 4  # of the config below


class MmdetDino:
    """mmdet's DINO with R50 and four levels, from the config that the installed package ships.

    Decoder layers, encoder layers, the widths of their feed-forward networks, slots for noisy copies, trained stages of
    the backbone and objects per image are those of `first`; the weights are its own. It predicts no masks.

    Args:
        first: Mask DINO with R50, four levels and queries chosen from cells.

    Raises:
        ValueError: `first` is another model.
    """

    name = "mmdet-dino"

    def __init__(self, first: Ours, setting: Setting) -> None:
        counts = _read_counts(first)
        cfg = dino_config()
        drop_initial_weights(cfg.model)
        model = cfg.model
        model.pop("data_preprocessor")  # images are normalised already
        model.num_queries = setting.queries
        model.backbone.frozen_stages = counts.frozen_stages
        model.encoder.num_layers, model.decoder.num_layers = counts.encoder_layers, counts.decoder_layers
        model.encoder.layer_cfg.ffn_cfg.feedforward_channels = counts.encoder_width
        model.decoder.layer_cfg.ffn_cfg.feedforward_channels = counts.decoder_width
        model.bbox_head.num_classes = setting.classes
        # A copy of mmdet's takes two slots, one for a box that is so noisy that it should be rejected.
        model.dn_cfg.group_cfg.num_dn_queries = counts.denoising_slots // 2
        model.test_cfg.max_per_img = min(counts.max_per_image, setting.queries * setting.classes)
        with DefaultScope.overwrite_default_scope("mmdet"):
            self.model = MODELS.build(model)
        self.model.init_weights()
        self.model.to(setting.device).train()
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.optimizer: torch.optim.Optimizer = self.wrapper.optimizer
        self.least_size = least_size_to_choose_from(setting.queries)

    def forward(self, batch: Batch) -> dict[str, Any]:
        predictions = self.model.forward_transformer(self.model.extract_feat(batch.images), batch.objects)
        class_logits, boxes = self.model.bbox_head(predictions.pop("hidden_states"), predictions.pop("references"))
        return dict(predictions, all_layers_cls_scores=class_logits, all_layers_bbox_preds=boxes)

    def losses(self, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        losses = self.model.bbox_head.loss_by_feat(
            outputs["all_layers_cls_scores"],
            outputs["all_layers_bbox_preds"],
            outputs["enc_outputs_class"],
            outputs["enc_outputs_coord"],
            [sample.gt_instances for sample in batch.objects],
            [sample.metainfo for sample in batch.objects],
            outputs["dn_meta"],
        )
        return only_losses(losses)

    def step(self) -> None:
        self.wrapper.step()

    def predict(self, images: Float[Tensor, "B 3 H W"]) -> list[InstanceData]:
        samples = self.model.predict(images, make_samples(images[:, 0]), rescale=False)
        return [sample.pred_instances for sample in samples]


def dino_config() -> Config:
    """The config that the installed package ships.

    Raises:
        FileNotFoundError: it is not there.
    """
    return Config.fromfile(find_shipped("mmdet", "dino/dino-4scale_r50_8xb2-12e_coco.py"), import_custom_modules=False)


class _Counts(NamedTuple):
    encoder_layers: int
    encoder_width: int
    decoder_layers: int
    decoder_width: int
    denoising_slots: int
    frozen_stages: int
    max_per_image: int


def _read_counts(first: Ours) -> _Counts:
    backbone, head = first.model.backbone, first.model.decode_head
    encoder, decoder = head.pixel_decoder, head.query_decoder
    expected = dict(
        backbone=f"ResNet of depth {_DEPTH}",
        pixel_decoder=f"DeformablePixelDecoder of {_NUM_LEVELS} levels of {_CHANNELS} channels",
        query_decoder="AnchorMaskDecoder with select=True and denoising",
    )
    got = dict(
        backbone=type(backbone).__name__,
        pixel_decoder=type(encoder).__name__,
        query_decoder=type(decoder).__name__,
    )
    if hasattr(backbone, "depth"):
        got["backbone"] += f" of depth {backbone.depth}"
    if isinstance(encoder, DeformablePixelDecoder):
        levels = encoder.spec.levels
        got["pixel_decoder"] += f" of {len(levels)} levels of {levels[0]} channels"
    if isinstance(decoder, AnchorMaskDecoder):
        got["query_decoder"] += f" with select={decoder.selection is not None}"
        got["query_decoder"] += f" and {'no ' if decoder.denoising is None else ''}denoising"
    for part, wanted in expected.items():
        if got[part] != wanted:
            raise InvalidValueError(
                f"implementations: mmdet-dino expected a first config with a {part} {wanted}, but {first.name} has a "
                f"{got[part]}. Give mask-dino_r50_coco-instance-1024_50e or a config made of it first."
            )
    assert decoder.denoising is not None
    return _Counts(
        encoder_layers=len(encoder.encoder.layers),
        encoder_width=_width(encoder.encoder.layers[0].ffn),
        decoder_layers=len(decoder.transformer_decoder.layers),
        decoder_width=_width(decoder.transformer_decoder.layers[0].ffn),
        denoising_slots=decoder.denoising.num_queries,
        frozen_stages=backbone.frozen_stages,
        max_per_image=first.model.test_cfg.max_per_image,
    )


def _width(ffn: nn.Module) -> int:
    return next(module.out_features for module in ffn.modules() if isinstance(module, nn.Linear))
