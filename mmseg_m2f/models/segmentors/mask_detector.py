"""`MaskHead` as a detector of mmdetection: instances, panoptic map and label map from one forward pass."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures.bbox import bbox_flip
from mmengine.config import Config, ConfigDict
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor

from mmseg_m2f.core.query_merging import QueryProbs
from mmseg_m2f.core.selection import INSTANCE_OFFSET
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.cuda_graphs import make_graphs
from mmseg_m2f.models.equal_sizes import group_equal
from mmseg_m2f.models.image_pipeline import use_upstream_loading
from mmseg_m2f.models.network import last_prediction, lay_out, predict_for_training
from mmseg_m2f.models.segmentors.construction import build_parts
from mmseg_m2f.models.segmentors.detector_results import (
    DetectorResult,
    QueryOutputs,
    checked_test_cfg,
    detector_results,
    query_probs,
    results_of_probs,
)
from mmseg_m2f.models.segmentors.object_windows import ImageView, result_of_views, view_by_windows, windows_of
from mmseg_m2f.models.segmentors.own_canvas import split_by_canvas
from mmseg_m2f.models.segmentors.sliding import check_window_size, rescaled, window_scales
from mmseg_m2f.registry import MODELS
from mmseg_m2f.samples import read_segments_targets, valid_pixels
from mmseg_m2f.structures import predicted_boxes


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
            `mode` "slide" looks at the image through windows of `crop_size` every `stride` pixels (height, width),
            after resizing it by `scale`, and joins what they find (`core.window_objects`): objects whose masks have an
            IoU of `min_iou` in the overlap of two windows are one. `max_per_image` then counts for each window, and
            `max_objects` for the image. If `scale` is a list, the image is seen at each of these scales, and what is
            found becomes one result (`core.view_merging`). Class scores are averaged, with weights that `blend` says
            ("mean" or "gaussian", see `core.windows.average_windows`).
            Images of a batch are predicted with the padding that each would have alone, so that results do not depend
            on the images beside them; `keep_batch_padding=True` restores the published behaviour. `return_queries=True`
            gives probabilities of all queries (`pred_queries`), or what is found through windows (`pred_views`),
            instead of results, as `QueryTTA` needs them.
            `layers` and `queries` predict with fewer decoder layers and queries than were trained, see
            `MaskHead.shorten`.
            With `temperature`, label maps come with `pred_certainty`, as of `MaskSegmentor`; with `score_temperature`,
            `pred_instances` have `confidences`, the probability that an object is right
            (`core.confidence.temper_scores`). `tools/calibrate.py` fits both; labels, scores and maps stay.
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
        self._test_cfg = checked_test_cfg(test_cfg)
        check_window_size(self.test_cfg, self.feature_strides)
        self.decode_head.shorten(layers=self.test_cfg.layers, queries=self.test_cfg.queries)
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

    @property
    def test_cfg(self) -> ConfigDict:
        """What is predicted and how; what is assigned is checked and completed as `model.test_cfg` is."""
        return self._test_cfg

    @test_cfg.setter
    def test_cfg(self, test_cfg: ConfigDict | dict | None) -> None:
        checked = checked_test_cfg(test_cfg)
        self.decode_head.shorten(layers=checked.layers, queries=checked.queries)
        self._test_cfg = checked

    @property
    def cfg(self) -> Config | ConfigDict:
        """The whole config, once one is assigned, as upstream's interfaces do; see `use_upstream_loading`."""
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: Config | ConfigDict) -> None:
        self._cfg = use_upstream_loading(cfg)

    def extract_feat(self, batch_inputs: Float[Tensor, "B C H W"]) -> Sequence[Tensor]:
        """Maps of backbone and neck, fine to coarse."""
        features = self.backbone(lay_out(batch_inputs))
        return self.neck(features) if self.with_neck else features

    def loss(
        self, batch_inputs: Float[Tensor, "B C H W"], batch_data_samples: Sequence[BaseDataElement]
    ) -> dict[str, Tensor]:
        """Losses of a batch; names are mmdet's."""
        head = self.decode_head
        targets = read_segments_targets(
            batch_data_samples, self.is_thing, with_boxes=head.reads_boxes, box_frame=head.box_frame
        )
        valid = valid_pixels(batch_data_samples, _size(batch_inputs), batch_inputs)
        return head.losses_of(*predict_for_training(self, batch_inputs, valid, targets), targets)

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
        if self.test_cfg.keep_batch_padding:
            self._predict_as_padded(batch_inputs, batch_data_samples, rescale=rescale)
            return batch_data_samples
        canvas = _size(batch_inputs)
        shapes = [_resizing(canvas, sample.metainfo, rescale=rescale).crop for sample in batch_data_samples]
        for images, numbers in split_by_canvas(batch_inputs, shapes, self.data_preprocessor):
            self._predict_as_padded(images, [batch_data_samples[number] for number in numbers], rescale=rescale)
        return batch_data_samples

    def _predict_as_padded(
        self, batch_inputs: Float[Tensor, "B C H W"], batch_data_samples: Sequence[BaseDataElement], *, rescale: bool
    ) -> None:
        """Fill the samples of images of one canvas."""
        if self.test_cfg.mode == "slide" and self._predict_by_windows(
            batch_inputs, batch_data_samples, rescale=rescale
        ):
            return
        canvas = _size(batch_inputs)
        outputs = self._outputs(batch_inputs, valid_pixels(batch_data_samples, canvas, batch_inputs))
        resizings = [_resizing(canvas, sample.metainfo, rescale=rescale) for sample in batch_data_samples]
        if self.test_cfg.return_queries:
            for image, (sample, resizing) in enumerate(zip(batch_data_samples, resizings, strict=True)):
                found = _unflip(query_probs(outputs, image, resizing), sample.metainfo)
                parts = {name: part for name, part in found._asdict().items() if part is not None}
                sample.pred_queries = InstanceData(**parts)
            return
        for resizing, images in group_equal(resizings):
            for image, result in zip(images, self._results(outputs.of(images), resizing), strict=True):
                result.write(batch_data_samples[image], score_temperature=self.test_cfg.score_temperature)

    def _predict_by_windows(
        self, batch_inputs: Float[Tensor, "B C H W"], samples: Sequence[BaseDataElement], *, rescale: bool
    ) -> bool:
        """Fill the samples through windows, image by image.

        False, and nothing filled, where one window shows the whole of each image and queries are not asked for.
        """
        cfg = self.test_cfg
        shapes = [_resizing(_size(batch_inputs), sample.metainfo, rescale=rescale) for sample in samples]
        scales = window_scales(cfg)
        single = scales == (1,) and all(windows_of(canvas, crop, cfg).is_single for canvas, crop, _ in shapes)
        if single and not cfg.return_queries:
            return False
        for image, resizing, sample in zip(batch_inputs.split(1), shapes, samples, strict=True):
            views = [self._view(image, resizing, scale) for scale in scales]
            if cfg.return_queries:
                sample.pred_views = [view.unflipped(sample.metainfo) for view in views]
            else:
                self.result_of_views(views).write(sample, score_temperature=cfg.score_temperature)
        return True

    def _view(self, image: Float[Tensor, "1 C H W"], resizing: Resizing, scale: float) -> ImageView:
        """What is found through windows, after the image is resized by a factor."""
        crop = resizing.crop
        if scale != 1:
            image = rescaled(image[..., : crop[0], : crop[1]], scale)
            crop = _size(image)
        return view_by_windows(
            image,
            shape=crop,
            size=resizing.size,
            num_classes=len(self.is_thing),
            cfg=self.test_cfg,
            predict=self._outputs,
            finish=partial(self._results, semantic=False),
        )

    def result_of_views(self, views: Sequence[ImageView]) -> DetectorResult:
        """What `test_cfg` asks for, from all views of an image through windows; see `QueryTTA`."""
        return result_of_views(views, num_classes=len(self.is_thing), cfg=self.test_cfg, device=self.is_thing.device)

    def _outputs(self, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None) -> QueryOutputs:
        prediction = last_prediction(self, images, valid)
        masks = prediction.mask_logits() if prediction.has_masks else None
        activation = self.decode_head.class_activation
        return QueryOutputs(prediction.class_logits, masks, predicted_boxes(prediction), activation)

    def _results(
        self, outputs: QueryOutputs, resizing: Resizing, *, semantic: bool | None = None
    ) -> list[DetectorResult]:
        cfg = self.test_cfg if semantic is None else ConfigDict(self.test_cfg, semantic=semantic)
        return detector_results(outputs, resizing, self.is_thing, num_things=self.num_things, cfg=cfg)

    def results_of_probs(self, merged: QueryProbs) -> DetectorResult:
        """What `test_cfg` asks for, from probabilities of an image's queries; see `QueryTTA`."""
        return results_of_probs(
            merged,
            self.is_thing,
            class_activation=self.decode_head.class_activation,
            num_things=self.num_things,
            cfg=self.test_cfg,
        )

    def _forward(
        self, batch_inputs: Float[Tensor, "B C H W"], batch_data_samples: Sequence[BaseDataElement] | None = None
    ) -> tuple[Tensor, ...]:
        """Of the last layer, before any post-processing: class logits, boxes and mask logits as far as there are."""
        valid = valid_pixels(batch_data_samples or (), _size(batch_inputs), batch_inputs)
        prediction = self.decode_head(self.extract_feat(batch_inputs), valid, last_only=True)[-1]
        found = predicted_boxes(prediction)
        boxes = () if found is None else (found,)
        masks = (prediction.mask_logits(),) if prediction.has_masks else ()
        return (prediction.class_logits, *boxes, *masks)


def _unflip(probs: QueryProbs, metainfo: dict) -> QueryProbs:
    """Masks and boxes in the image, where it was mirrored for the network."""
    if not metainfo.get("flip"):
        return probs
    direction, masks, boxes = metainfo["flip_direction"], probs.mask_probs, probs.boxes
    axes = dict(horizontal=[2], vertical=[1], diagonal=[1, 2])[direction]
    mirrored = None if boxes is None else bbox_flip(boxes, masks.shape[1:], direction)
    return QueryProbs(probs.class_probs, masks.flip(axes), mirrored)


def _size(batch_inputs: Float[Tensor, "B C H W"]) -> tuple[int, int]:
    return batch_inputs.shape[-2], batch_inputs.shape[-1]


def _resizing(canvas: tuple[int, int], metainfo: dict, *, rescale: bool) -> Resizing:
    crop_height, crop_width = metainfo.get("img_shape", canvas)[:2]
    crop = (crop_height, crop_width)
    height, width = metainfo.get("ori_shape", crop)[:2] if rescale else crop
    return Resizing(canvas, crop, (height, width))
