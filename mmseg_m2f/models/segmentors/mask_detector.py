"""`MaskHead` as a detector of mmdetection: instance, panoptic and semantic answers from one forward pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from mmdet.models.detectors.base import BaseDetector
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn

from mmseg_m2f.checkpoints.openmmlab import adopt_detector_keys
from mmseg_m2f.core.postprocess import detr_panoptic_map, resize_maps, top_boxes
from mmseg_m2f.core.selection import INSTANCE_OFFSET
from mmseg_m2f.core.streaming import Resizing, semantic_labels, streamed_panoptic_map, streamed_top_instances
from mmseg_m2f.layers.matrix_products import use_fast_products
from mmseg_m2f.models.compilation import compile_parts
from mmseg_m2f.models.feature_spec import check_head, probe_feature_spec
from mmseg_m2f.models.segmentors.upload import upload_batches_at_once
from mmseg_m2f.registry import MODELS
from mmseg_m2f.samples import read_segments_targets, valid_pixels, write_instances, write_panoptic
from mmseg_m2f.structures import BoxPrediction

_TEST_CFG = dict(
    panoptic=True,
    instance=True,
    semantic=False,
    panoptic_rule="mask2former",
    object_threshold=0.8,
    overlap_threshold=0.8,
    keep_low_pixels=False,
    min_area=4,
    merge_stuff=False,
    max_per_image=100,
    things_first=True,
    score_threshold=0.0,
    one_class_per_query=False,
    mask_nms_threshold=None,
    soft_masks=False,
    max_memory_mb=64,
)
_PANOPTIC_KEYS = dict(
    mask2former=("object_threshold", "overlap_threshold", "keep_low_pixels"),
    detr=("object_threshold", "min_area", "merge_stuff"),
)
_INSTANCE_KEYS = (
    "max_per_image",
    "things_first",
    "score_threshold",
    "one_class_per_query",
    "mask_nms_threshold",
    "soft_masks",
)
_BOX_KEYS = ("max_per_image", "score_threshold", "soft_masks")


@MODELS.register_module()
class MaskDetector(BaseDetector):
    """Backbone, optional neck and `MaskHead`; the weights are `MaskSegmentor`'s and load strictly there.

    Args:
        backbone: any backbone whose output is a list of maps, fine to coarse.
        decode_head: config of the `MaskHead`.
        thing_classes: which of the classes are countable objects; the others are stuff.
        neck: between backbone and head.
        trainable: beginnings of the names of the only parameters to train, for example the mask head of a trained
            DETR; all by default.
        test_cfg: which of `panoptic`, `instance`, `semantic` to answer; `panoptic_rule` "mask2former" (also
            MaskFormer's) or "detr"; and the arguments of `core.postprocess.panoptic_map`, `detr_panoptic_map`,
            `top_instances` and `top_boxes`; `max_memory_mb` bounds what an answer takes besides itself and the mask
            logits, except with boxes or DETR's rule. A head with boxes alone needs `panoptic=False, semantic=False`.
        compile: run backbone, neck and head through `torch.compile`; True, or a dict of its arguments.
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
        trainable: Sequence[str] | None = None,
        compile: bool | ConfigDict | dict = False,
        init_cfg: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        if neck is not None:
            self.neck = MODELS.build(neck)
        feature_spec = probe_feature_spec(self.backbone, self.extract_feat)
        check_head(decode_head)
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
        if trainable is not None:
            _freeze_others(self, trainable)
        use_fast_products(self)
        upload_batches_at_once(self.data_preprocessor)
        compile_parts(self, compile)
        self.register_load_state_dict_pre_hook(adopt_detector_keys)

    def extract_feat(self, batch_inputs: Float[Tensor, "B C H W"]) -> Sequence[Tensor]:
        """Maps of backbone and neck, fine to coarse."""
        features = self.backbone(batch_inputs)
        return self.neck(features) if self.with_neck else features

    def loss(
        self, batch_inputs: Float[Tensor, "B C H W"], batch_data_samples: Sequence[BaseDataElement]
    ) -> dict[str, Tensor]:
        """Losses of a batch; names are mmdet's."""
        targets = read_segments_targets(batch_data_samples, self.is_thing, with_boxes=self.decode_head.reads_boxes)
        valid = valid_pixels(batch_data_samples, _size(batch_inputs), batch_inputs)
        return self.decode_head.loss(self.extract_feat(batch_inputs), targets, valid)

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
        canvas = _size(batch_inputs)
        valid = valid_pixels(batch_data_samples, canvas, batch_inputs)
        prediction = self.decode_head.predict(self.extract_feat(batch_inputs), valid)
        all_logits = prediction.mask_logits() if prediction.has_masks else None
        for index, sample in enumerate(batch_data_samples):
            crop = tuple(sample.metainfo.get("img_shape", canvas)[:2])
            size = tuple(sample.ori_shape[:2]) if rescale and "ori_shape" in sample.metainfo else crop
            masks = None if all_logits is None else all_logits[index]
            boxes = prediction.boxes[index] if isinstance(prediction, BoxPrediction) else None
            self._answer(sample, prediction.class_logits[index], masks, boxes, Resizing(canvas, crop, size))
        return batch_data_samples

    def _answer(
        self,
        sample: BaseDataElement,
        class_logits: Float[Tensor, "Q K1"],
        masks: Float[Tensor, "Q _ _"] | None,
        boxes: Float[Tensor, "Q 4"] | None,
        resizing: Resizing,
    ) -> None:
        """Write what `test_cfg` asks for; `masks` are mask logits as predicted."""
        cfg, is_thing, bound = self.test_cfg, self.is_thing, dict(max_memory_mb=self.test_cfg.max_memory_mb)
        if cfg.instance and boxes is not None:
            options = {key: cfg[key] for key in _BOX_KEYS}
            full = None if masks is None else _enlarge(masks, resizing, resizing.size)
            found = top_boxes(class_logits, boxes, is_thing, size=resizing.size, mask_logits=full, **options)
            write_instances(sample, found)
        elif cfg.instance:
            options = {key: cfg[key] for key in _INSTANCE_KEYS} | bound
            found = streamed_top_instances(class_logits, self._required(masks), is_thing, resizing, **options)
            write_instances(sample, found)
        if cfg.panoptic:
            options = {key: cfg[key] for key in _PANOPTIC_KEYS[cfg.panoptic_rule]}
            if cfg.panoptic_rule == "detr":
                processed = _enlarge(self._required(masks), resizing, resizing.crop)
                panoptic = detr_panoptic_map(class_logits, processed, is_thing, size=resizing.size, **options)
            else:
                options |= bound
                panoptic = streamed_panoptic_map(class_logits, self._required(masks), is_thing, resizing, **options)
            write_panoptic(sample, panoptic)
        if cfg.semantic:
            labels = semantic_labels(class_logits, self._required(masks), resizing, **bound)
            sample.pred_sem_seg = PixelData(sem_seg=labels.unsqueeze(0))

    @staticmethod
    def _required(masks: Float[Tensor, "Q _ _"] | None) -> Float[Tensor, "Q _ _"]:
        if masks is None:
            raise ValueError(
                "MaskDetector: model.test_cfg asks for panoptic or semantic answers, but the decoder predicts boxes "
                "alone. Set panoptic=False and semantic=False, or give decode_head.query_decoder a mask_head."
            )
        return masks

    def _forward(
        self, batch_inputs: Float[Tensor, "B C H W"], batch_data_samples: Sequence[BaseDataElement] | None = None
    ) -> tuple[Tensor, ...]:
        """Of the last layer, before any post-processing: class logits, boxes and mask logits as far as there are."""
        valid = valid_pixels(batch_data_samples or (), _size(batch_inputs), batch_inputs)
        prediction = self.decode_head(self.extract_feat(batch_inputs), valid, last_only=True)[-1]
        boxes = (prediction.boxes,) if isinstance(prediction, BoxPrediction) else ()
        masks = (prediction.mask_logits(),) if prediction.has_masks else ()
        return (prediction.class_logits, *boxes, *masks)


def _size(batch_inputs: Float[Tensor, "B C H W"]) -> tuple[int, int]:
    return batch_inputs.shape[-2], batch_inputs.shape[-1]


def _enlarge(masks: Float[Tensor, "Q _ _"], resizing: Resizing, size: tuple[int, int]) -> Float[Tensor, "Q H W"]:
    """The mask logits of the image, cut out of the canvas, at a size."""
    height, width = resizing.crop
    cropped = resize_maps(masks.unsqueeze(0), resizing.canvas)[:, :, :height, :width]
    return resize_maps(cropped, size).squeeze(0)


def _freeze_others(model: nn.Module, trainable: Sequence[str]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for start in trainable:
        if not any(name.startswith(start) for name in names):
            parts = sorted({".".join(name.split(".")[:3]) for name in names})
            raise ValueError(
                f"model.trainable: expected beginnings of parameter names, got '{start}', with which none begins. "
                f"There are: {', '.join(parts)}."
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(trainable)))


def _checked_test_cfg(test_cfg: ConfigDict | dict | None) -> ConfigDict:
    unknown = set(test_cfg or {}) - set(_TEST_CFG)
    if unknown:
        raise ValueError(f"model.test_cfg: expected keys {sorted(_TEST_CFG)}, got {sorted(unknown)} as well.")
    checked = ConfigDict({**_TEST_CFG, **(test_cfg or {})})
    if checked.panoptic_rule not in _PANOPTIC_KEYS:
        raise ValueError(
            f"model.test_cfg.panoptic_rule: expected one of {list(_PANOPTIC_KEYS)}, got {checked.panoptic_rule!r}."
        )
    return checked
