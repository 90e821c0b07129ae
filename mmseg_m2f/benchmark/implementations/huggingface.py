"""Mask2Former of transformers."""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmseg_m2f.benchmark.implementations.interface import (
    LEAST_SIZE,
    Layer,
    Masks,
    Outputs,
    Weights,
    masks_of_layers,
)
from mmseg_m2f.benchmark.setting import Batch, Setting
from mmseg_m2f.checkpoints.layouts import convert


class HuggingFace:
    """The Mask2Former of transformers with its ResNet-50.

    Its own post-processing makes scores at 384² and resizes those. Here scores are made at the size of the images, by
    the same formula, so that all implementations compute the same result.
    """

    name = "huggingface"
    least_size = LEAST_SIZE

    def __init__(self, weights: Weights, setting: Setting) -> None:
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig
        from transformers.utils.logging import set_verbosity_error

        set_verbosity_error()  # it warns that its ResNet is no Swin
        backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
        self.model = Mask2FormerForUniversalSegmentation(
            Mask2FormerConfig(
                backbone_config=backbone,
                num_labels=setting.classes,
                num_queries=setting.queries,
                train_num_points=setting.points,
                output_auxiliary_logits=True,
            )
        )
        converted = convert(weights, to="transformers").weights
        report = self.model.load_state_dict(converted, strict=False)
        # Counters of batches and the weight of "no object" are not in the files.
        missing = [name for name in report.missing_keys if name in dict(self.model.named_parameters())]
        assert not missing, missing
        assert not report.unexpected_keys, report.unexpected_keys
        norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        self.model.to(setting.device).train()
        for norm in norms:
            norm.eval().requires_grad_(False)
            norm.train = lambda mode=True, norm=norm: norm  # type: ignore[method-assign,misc]  # as `norm_eval` does
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        matrices = [p for p in self.trained if p.dim() > 1]
        vectors = [p for p in self.trained if p.dim() <= 1]
        # What its Trainer sets up: two groups, and the fused kernel.
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [dict(params=matrices, weight_decay=0.05), dict(params=vectors, weight_decay=0.0)], lr=1e-4, fused=True
        )

    def forward(self, batch: Batch) -> Outputs:
        return self.model(pixel_values=batch.images)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        classes = [label_map.unique() for label_map in batch.label_maps]
        masks = [(labels == c[:, None, None]).float() for labels, c in zip(batch.label_maps, classes, strict=True)]
        return self.model.get_loss_dict(
            masks_queries_logits=outputs.masks_queries_logits,
            class_queries_logits=outputs.class_queries_logits,
            mask_labels=masks,
            class_labels=classes,
            auxiliary_predictions=outputs.auxiliary_logits,
        )

    def step(self) -> None:
        nn.utils.clip_grad_norm_(self.trained, 0.01)
        self.optimizer.step()

    def predict(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        outputs = self.model(pixel_values=images)
        class_probs = outputs.class_queries_logits.softmax(-1)[..., :-1]
        mask_logits = F.interpolate(outputs.masks_queries_logits, images.shape[-2:], mode="bilinear")
        scores = torch.einsum("bqk,bqhw->bkhw", class_probs, mask_logits.sigmoid())
        return list(scores.argmax(1))

    def layers(self, outputs: Outputs) -> list[Layer]:
        last = dict(
            class_queries_logits=outputs.class_queries_logits, masks_queries_logits=outputs.masks_queries_logits
        )
        layers = [*outputs.auxiliary_logits, last]
        return [Layer(layer["class_queries_logits"], layer["masks_queries_logits"]) for layer in layers]

    def recorded_masks(self) -> AbstractContextManager[Masks]:
        decoder = self.model.model.transformer_module.decoder
        return masks_of_layers(decoder.layers, "encoder_attention_mask", self.model.config.num_attention_heads)
