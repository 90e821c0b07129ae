"""`MaskHead` as a detector of mmdetection: instance, panoptic and semantic answers from one forward pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from mmdet.models.detectors.base import BaseDetector
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from mmseg_m2f.checkpoints.openmmlab import adopt_detector_keys
from mmseg_m2f.core.postprocess import INSTANCE_OFFSET, panoptic_map, resize_maps, semantic_scores, top_instances
from mmseg_m2f.models.feature_spec import probe_feature_spec
from mmseg_m2f.registry import MODELS
from mmseg_m2f.samples import read_segments_target, write_instances, write_panoptic

_TEST_CFG = dict(
    panoptic=True,
    instance=True,
    semantic=False,
    object_threshold=0.8,
    overlap_threshold=0.8,
    keep_low_pixels=False,
    max_per_image=100,
    things_first=True,
)


@MODELS.register_module()
class MaskDetector(BaseDetector):
    """Backbone, optional neck and `MaskHead`; the weights are `MaskSegmentor`'s and load strictly there.

    Args:
        backbone: any backbone whose output is a list of maps, fine to coarse.
        decode_head: config of the `MaskHead`.
        thing_classes: which of the classes are countable objects; the others are stuff.
        neck: between backbone and head.
        test_cfg: which of `panoptic`, `instance`, `semantic` to answer, and the arguments of
            `core.postprocess.panoptic_map` and `top_instances`.
    """

    def __init__(
        self,
        backbone: ConfigDict | dict,
        decode_head: ConfigDict | dict,
        *,
        thing_classes: Sequence[int],
        neck: ConfigDict | dict | None = None,
        data_preprocessor: ConfigDict | dict | None = None,
        train_cfg: ConfigDict | dict | None = None,
        test_cfg: ConfigDict | dict | None = None,
        init_cfg: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        if neck is not None:
            self.neck = MODELS.build(neck)
        feature_spec = probe_feature_spec(self.backbone, self.extract_feat)
        self.decode_head = MODELS.build(decode_head, default_args=dict(feature_spec=feature_spec))
        is_thing = torch.zeros(self.decode_head.num_classes, dtype=torch.bool)
        is_thing[list(thing_classes)] = True
        self.register_buffer("is_thing", is_thing, persistent=False)
        self.train_cfg = train_cfg
        self.test_cfg = _checked_test_cfg(test_cfg)
        if self.test_cfg.panoptic and len(is_thing) >= INSTANCE_OFFSET:
            raise ValueError(
                f"MaskDetector: panoptic maps hold class + {INSTANCE_OFFSET} · instance number, but "
                f"decode_head.num_classes is {len(is_thing)}. Expected fewer than {INSTANCE_OFFSET} classes, or "
                "test_cfg.panoptic=False."
            )
        self.register_load_state_dict_pre_hook(adopt_detector_keys)

    def extract_feat(self, batch_inputs: Float[Tensor, "B C H W"]) -> Sequence[Tensor]:
        """Maps of backbone and neck, fine to coarse."""
        features = self.backbone(batch_inputs)
        return self.neck(features) if self.with_neck else features

    def loss(
        self, batch_inputs: Float[Tensor, "B C H W"], batch_data_samples: Sequence[BaseDataElement]
    ) -> dict[str, Tensor]:
        """Losses of a batch; names are mmdet's."""
        targets = [read_segments_target(sample, self.is_thing) for sample in batch_data_samples]
        return self.decode_head.loss(self.extract_feat(batch_inputs), targets)

    @torch.no_grad()
    def predict(
        self,
        batch_inputs: Float[Tensor, "B C H W"],
        batch_data_samples: Sequence[BaseDataElement],
        rescale: bool = True,
    ) -> Sequence[BaseDataElement]:
        """Fill `pred_panoptic_seg`, `pred_instances` and `pred_sem_seg` as `test_cfg` says.

        Args:
            rescale: answer at the original size (`ori_shape`), not at that of the resized image (`img_shape`).
        """
        prediction = self.decode_head.predict(self.extract_feat(batch_inputs))
        canvas = (batch_inputs.shape[-2], batch_inputs.shape[-1])
        all_logits = resize_maps(prediction.mask_logits(), canvas)
        for sample, class_logits, mask_logits in zip(
            batch_data_samples, prediction.class_logits, all_logits, strict=True
        ):
            height, width = sample.metainfo.get("img_shape", canvas)[:2]
            mask_logits = mask_logits[:, :height, :width]
            if rescale and "ori_shape" in sample.metainfo:
                mask_logits = resize_maps(mask_logits.unsqueeze(0), tuple(sample.ori_shape[:2])).squeeze(0)
            self._answer(sample, class_logits, mask_logits)
        return batch_data_samples

    def _answer(
        self, sample: BaseDataElement, class_logits: Float[Tensor, "Q K1"], mask_logits: Float[Tensor, "Q H W"]
    ) -> None:
        cfg = self.test_cfg
        if cfg.panoptic:
            panoptic = panoptic_map(
                class_logits,
                mask_logits,
                self.is_thing,
                object_threshold=cfg.object_threshold,
                overlap_threshold=cfg.overlap_threshold,
                keep_low_pixels=cfg.keep_low_pixels,
            )
            write_panoptic(sample, panoptic)
        if cfg.instance:
            found = top_instances(
                class_logits,
                mask_logits,
                self.is_thing,
                max_per_image=cfg.max_per_image,
                things_first=cfg.things_first,
            )
            write_instances(sample, found)
        if cfg.semantic:
            scores = semantic_scores(class_logits.unsqueeze(0), mask_logits.unsqueeze(0))
            sample.pred_sem_seg = PixelData(sem_seg=scores.argmax(1))

    def _forward(
        self, batch_inputs: Float[Tensor, "B C H W"], batch_data_samples: Sequence[BaseDataElement] | None = None
    ) -> tuple[Float[Tensor, "B Q K1"], Float[Tensor, "B Q _ _"]]:
        """Class and mask logits of the last layer, before any post-processing."""
        prediction = self.decode_head(self.extract_feat(batch_inputs), last_only=True)[-1]
        return prediction.class_logits, prediction.mask_logits()


def _checked_test_cfg(test_cfg: ConfigDict | dict | None) -> ConfigDict:
    unknown = set(test_cfg or {}) - set(_TEST_CFG)
    if unknown:
        raise ValueError(f"model.test_cfg: expected keys {sorted(_TEST_CFG)}, got {sorted(unknown)} as well.")
    return ConfigDict({**_TEST_CFG, **(test_cfg or {})})
