"""`MaskHead` as a detector of mmdetection: instances, panoptic map and label map from one forward pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from mmdet.models.detectors.base import BaseDetector
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from mmseg_m2f.core.postprocess import Instances, detr_panoptic_map, resize_maps, top_boxes
from mmseg_m2f.core.results import panoptic_maps, top_instances
from mmseg_m2f.core.selection import INSTANCE_OFFSET
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.label_maps import label_maps
from mmseg_m2f.models.cuda_graphs import make_graphs
from mmseg_m2f.models.equal_sizes import group_equal, take_images
from mmseg_m2f.models.network import last_prediction, lay_out, run_network
from mmseg_m2f.models.segmentors.construction import build_parts
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
    max_memory_mb=None,
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
        backbone: any backbone whose output is a list of maps, fine to coarse; see `probe_feature_spec`.
        decode_head: config of the `MaskHead`.
        thing_classes: which of the classes are countable objects; the others are stuff.
        neck: between backbone and head.
        trainable: beginnings of the names of the parameters to train, for example the mask head of a trained DETR; all
            unless given. The others get no gradients, and modules without trainable parameters stay in evaluation mode.
        test_cfg: which of `panoptic`, `instance`, `semantic` to predict; `panoptic_rule` "mask2former" (also
            MaskFormer's) or "detr"; and the arguments of `core.results.panoptic_maps` and `top_instances`, and of
            `core.postprocess.detr_panoptic_map` and `top_boxes`; `max_memory_mb` bounds what post-processing takes
            besides its results and the mask logits (by default 64 on a CPU and a quarter of the free memory on a
            GPU), except with boxes or DETR's rule. A head with boxes alone needs `panoptic=False, semantic=False`.
        compile: run backbone, neck and head through `torch.compile`; True, or a dict of its arguments.
        cuda_graphs: on a GPU, record backbone, neck and head as CUDA graphs for image sizes that come again; True, or
            a dict of arguments of `GraphedNetwork`. Elsewhere it changes nothing, and says so.
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
        cuda_graphs: bool | ConfigDict | dict = False,
        init_cfg: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self._frozen = build_parts(
            self, backbone=backbone, neck=neck, decode_head=decode_head, trainable=trainable, compile=compile
        )
        self.graphs = make_graphs(cuda_graphs, compile=compile)
        is_thing = torch.zeros(self.decode_head.num_classes, dtype=torch.bool)
        is_thing[list(thing_classes)] = True
        self.register_buffer("is_thing", is_thing, persistent=False)
        self.num_things = len(set(thing_classes))
        self.train_cfg = train_cfg
        self.test_cfg = _checked_test_cfg(test_cfg)
        if self.test_cfg.panoptic and len(is_thing) >= INSTANCE_OFFSET:
            raise InvalidValueError(
                f"MaskDetector: panoptic maps hold class + {INSTANCE_OFFSET} · instance number, but "
                f"decode_head.num_classes is {len(is_thing)}. Expected fewer than {INSTANCE_OFFSET} classes, or "
                "test_cfg.panoptic=False."
            )

    def train(self, mode: bool = True) -> "MaskDetector":
        """Training mode, except for frozen parts, which stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def extract_feat(self, batch_inputs: Float[Tensor, "B C H W"]) -> Sequence[Tensor]:
        """Maps of backbone and neck, fine to coarse."""
        features = self.backbone(lay_out(batch_inputs))
        return self.neck(features) if self.with_neck else features

    def loss(
        self, batch_inputs: Float[Tensor, "B C H W"], batch_data_samples: Sequence[BaseDataElement]
    ) -> dict[str, Tensor]:
        """Losses of a batch; names are mmdet's."""
        targets = read_segments_targets(batch_data_samples, self.is_thing, with_boxes=self.decode_head.reads_boxes)
        valid = valid_pixels(batch_data_samples, _size(batch_inputs), batch_inputs)
        return self.decode_head.losses_of(*run_network(self, batch_inputs, valid), targets)

    @torch.no_grad()
    def predict(
        self,
        batch_inputs: Float[Tensor, "B C H W"],
        batch_data_samples: Sequence[BaseDataElement],
        rescale: bool = True,
    ) -> Sequence[BaseDataElement]:
        """Fill `pred_panoptic_seg`, `pred_instances` and `pred_sem_seg` as `test_cfg` says.

        Args:
            rescale: give results at the original size (`ori_shape`), not at that of the resized image (`img_shape`).
        """
        canvas = _size(batch_inputs)
        valid = valid_pixels(batch_data_samples, canvas, batch_inputs)
        prediction = last_prediction(self, batch_inputs, valid)
        masks = prediction.mask_logits() if prediction.has_masks else None
        boxes = prediction.boxes if isinstance(prediction, BoxPrediction) else None
        resizings = [_resizing(canvas, sample.metainfo, rescale=rescale) for sample in batch_data_samples]
        for resizing, images in group_equal(resizings):
            self._post_process(
                [batch_data_samples[image] for image in images],
                take_images(prediction.class_logits, images),
                None if masks is None else take_images(masks, images),
                None if boxes is None else take_images(boxes, images),
                resizing,
            )
        return batch_data_samples

    def _post_process(
        self,
        samples: Sequence[BaseDataElement],
        class_logits: Float[Tensor, "B Q K1"],
        masks: Float[Tensor, "B Q h w"] | None,
        boxes: Float[Tensor, "B Q 4"] | None,
        resizing: Resizing,
    ) -> None:
        """Write what `test_cfg` asks for into samples of one size; `masks` are mask logits as predicted."""
        cfg, is_thing, bound = self.test_cfg, self.is_thing, dict(max_memory_mb=self.test_cfg.max_memory_mb)
        if cfg.instance:
            if boxes is not None:
                instances = self._instances_of_boxes(class_logits, masks, boxes, resizing)
            else:
                options = {key: cfg[key] for key in _INSTANCE_KEYS} | bound
                instances = top_instances(
                    class_logits, self._required(masks), is_thing, resizing, num_things=self.num_things, **options
                )
            for sample, found in zip(samples, instances, strict=True):
                write_instances(sample, found)
        if cfg.panoptic:
            for sample, panoptic in zip(
                samples, self._panoptic_maps(class_logits, self._required(masks), resizing), strict=True
            ):
                write_panoptic(sample, panoptic)
        if cfg.semantic:
            maps = label_maps(class_logits, self._required(masks), resizing, **bound)
            for sample, labels in zip(samples, maps, strict=True):
                sample.pred_sem_seg = PixelData(sem_seg=labels.unsqueeze(0))

    def _instances_of_boxes(
        self,
        class_logits: Float[Tensor, "B Q K1"],
        masks: Float[Tensor, "B Q h w"] | None,
        boxes: Float[Tensor, "B Q 4"],
        resizing: Resizing,
    ) -> list[Instances]:
        options = {key: self.test_cfg[key] for key in _BOX_KEYS}
        found = []
        for image, (logits, corners) in enumerate(zip(class_logits, boxes, strict=True)):
            full = None if masks is None else _enlarge(masks[image], resizing, resizing.size)
            found.append(top_boxes(logits, corners, self.is_thing, size=resizing.size, mask_logits=full, **options))
        return found

    def _panoptic_maps(
        self, class_logits: Float[Tensor, "B Q K1"], masks: Float[Tensor, "B Q h w"], resizing: Resizing
    ) -> Sequence[Int[Tensor, "H W"]]:
        cfg, is_thing = self.test_cfg, self.is_thing
        options = {key: cfg[key] for key in _PANOPTIC_KEYS[cfg.panoptic_rule]}
        if cfg.panoptic_rule == "detr":
            return [
                detr_panoptic_map(
                    logits, _enlarge(mask, resizing, resizing.crop), is_thing, size=resizing.size, **options
                )
                for logits, mask in zip(class_logits, masks, strict=True)
            ]
        options["max_memory_mb"] = cfg.max_memory_mb
        return list(panoptic_maps(class_logits, masks, is_thing, resizing, **options))

    @staticmethod
    def _required(masks: Float[Tensor, "B Q h w"] | None) -> Float[Tensor, "B Q h w"]:
        if masks is None:
            raise InvalidValueError(
                "MaskDetector: model.test_cfg asks for panoptic or semantic results, but the decoder predicts boxes "
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


def _resizing(canvas: tuple[int, int], metainfo: dict, *, rescale: bool) -> Resizing:
    crop_height, crop_width = metainfo.get("img_shape", canvas)[:2]
    crop = (crop_height, crop_width)
    height, width = metainfo.get("ori_shape", crop)[:2] if rescale else crop
    return Resizing(canvas, crop, (height, width))


def _enlarge(masks: Float[Tensor, "Q _ _"], resizing: Resizing, size: tuple[int, int]) -> Float[Tensor, "Q H W"]:
    """The mask logits of the image, cut out of the canvas, at a size."""
    height, width = resizing.crop
    cropped = resize_maps(masks.unsqueeze(0), resizing.canvas)[:, :, :height, :width]
    return resize_maps(cropped, size).squeeze(0)


def _checked_test_cfg(test_cfg: ConfigDict | dict | None) -> ConfigDict:
    unknown = set(test_cfg or {}) - set(_TEST_CFG)
    if unknown:
        raise InvalidValueError(f"model.test_cfg: expected keys {sorted(_TEST_CFG)}, got {sorted(unknown)} as well.")
    checked = ConfigDict({**_TEST_CFG, **(test_cfg or {})})
    if checked.panoptic_rule not in _PANOPTIC_KEYS:
        raise InvalidValueError(
            f"model.test_cfg.panoptic_rule: expected one of {list(_PANOPTIC_KEYS)}, got {checked.panoptic_rule!r}."
        )
    return checked
