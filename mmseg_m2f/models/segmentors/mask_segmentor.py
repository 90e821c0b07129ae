"""`MaskHead` as a segmentor of mmsegmentation."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from mmengine.config import Config, ConfigDict
from mmengine.structures import BaseDataElement
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_m2f.core.confidence import Certainty, certainty_maps, check_temperature, image_certainty
from mmseg_m2f.core.postprocess import resize_maps, semantic_scores
from mmseg_m2f.core.selection import vote_logits
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.core.view_merging import mean_scores
from mmseg_m2f.core.windows import average_windows
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.label_maps import label_maps
from mmseg_m2f.models.cuda_graphs import make_graphs
from mmseg_m2f.models.equal_sizes import group_equal, take_images
from mmseg_m2f.models.image_pipeline import use_upstream_loading
from mmseg_m2f.models.network import last_prediction, lay_out, predict_for_training
from mmseg_m2f.models.segmentors.construction import build_parts
from mmseg_m2f.models.segmentors.own_canvas import split_by_canvas
from mmseg_m2f.models.segmentors.sliding import check_sliding, check_window_size, rescaled, window_scales
from mmseg_m2f.registry import MODELS
from mmseg_m2f.samples import read_targets, write_certainty, write_semantic

_DEFAULTS = dict(
    mode="whole",
    scale=1.0,
    blend="mean",
    return_scores=False,
    max_memory_mb=None,
    keep_batch_padding=False,
    layers=None,
    queries=None,
    temperature=None,
)
_TEST_CFG_KEYS = {
    "mode",
    "crop_size",
    "stride",
    "scale",
    "blend",
    "return_scores",
    "max_memory_mb",
    "keep_batch_padding",
    "layers",
    "queries",
    "temperature",
}


@MODELS.register_module()
class MaskSegmentor(BaseSegmentor):
    """Backbone, optional neck and `MaskHead`; predicts a label map per image.

    Args:
        backbone: any backbone whose output is a list of maps, fine to coarse; see `probe_feature_spec`.
        decode_head: config of the `MaskHead`.
        neck: between backbone and head.
        test_cfg: `mode` "whole" (default) or "slide" with `crop_size` and `stride` (both height, width): class scores
            are averaged over windows, after resizing the image by `scale`, and over scales if that is a list. `blend`
            "mean" (default, as in mmseg) or "gaussian", which hides the seams; see `core.windows.average_windows`.
            Images of a batch are predicted with the padding that each would have alone, so that results do not depend
            on the images beside them; `keep_batch_padding=True` restores the published behaviour.
            `return_scores=True` keeps the class scores K H W of each image as `seg_logits`. They lie in
            [0, Q] and are neither logits nor probabilities. `max_memory_mb` bounds what label maps take besides the
            mask logits, where scores are not kept, windows not averaged and nothing is flipped; by default 64 on a
            CPU and a quarter of the free memory on a GPU. `layers` and `queries` predict with fewer decoder layers and
            queries than were trained, see `MaskHead.shorten`. With a `temperature`, each sample also gets
            `pred_certainty`: the probability of each pixel's label (`confidence`) and of none of the classes
            (`unknown`), see `core.confidence.known_probs`. `tools/calibrate.py` fits it; labels and scores stay.
        ignore_index: label of void pixels.
        trainable: beginnings of the names of the parameters to train; all unless given. The others get no gradients,
            and modules without trainable parameters stay in evaluation mode. ["decode_head."] freezes backbone and
            neck.
        freeze_backbone: former name of `trainable=["decode_head."]`.
        compile: run backbone, neck and head through `torch.compile`; True, or a dict of its arguments.
        cuda_graphs: on a GPU, record backbone, neck and head as CUDA graphs for image sizes that come again; True, or
            a dict of arguments of `GraphedNetwork`. Elsewhere it changes nothing, and says so.
        pretrained: None, as `mmseg.apis.init_model` sets it. Initial weights are named in `backbone.init_cfg`.
    """

    def __init__(
        self,
        backbone: ConfigDict | dict,
        decode_head: ConfigDict | dict,
        *,
        neck: ConfigDict | dict | None = None,
        data_preprocessor: ConfigDict | dict | None = None,
        train_cfg: ConfigDict | dict | None = None,
        test_cfg: ConfigDict | dict | None = None,
        ignore_index: int = 255,
        trainable: Sequence[str] | None = None,
        freeze_backbone: bool = False,
        compile: bool | ConfigDict | dict = False,
        cuda_graphs: bool | ConfigDict | dict = False,
        pretrained: None = None,
        init_cfg: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if freeze_backbone:
            warnings.warn(
                "model.freeze_backbone is now model.trainable=['decode_head.'], in MaskSegmentor as in MaskDetector; "
                "the old name goes in the next minor release.",
                FutureWarning,
                stacklevel=2,
            )
            trainable = ["decode_head."] if trainable is None else trainable
        self.train_cfg = train_cfg
        self._test_cfg = _checked_test_cfg(test_cfg)
        self.ignore_index = ignore_index
        self._frozen = build_parts(
            self,
            backbone=backbone,
            neck=neck,
            decode_head=decode_head,
            crop_size=self.test_cfg.get("crop_size"),
            trainable=trainable,
            compile=compile,
        )
        check_window_size(self.test_cfg, self.feature_strides)
        self.decode_head.shorten(layers=self.test_cfg.layers, queries=self.test_cfg.queries)
        self.graphs = make_graphs(cuda_graphs, compile=compile)

    def train(self, mode: bool = True) -> "MaskSegmentor":
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
        checked = _checked_test_cfg(test_cfg)
        self.decode_head.shorten(layers=checked.layers, queries=checked.queries)
        self._test_cfg = checked

    @property
    def cfg(self) -> Config | ConfigDict:
        """The whole config, once one is assigned, as upstream's interfaces do; see `use_upstream_loading`."""
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: Config | ConfigDict) -> None:
        self._cfg = use_upstream_loading(cfg)

    def extract_feat(self, inputs: Float[Tensor, "B C H W"]) -> Sequence[Tensor]:
        """Maps of backbone and neck, fine to coarse."""
        features = self.backbone(lay_out(inputs))
        return self.neck(features) if self.with_neck else features

    def loss(self, inputs: Float[Tensor, "B C H W"], data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """Losses of a batch; names are mmdet's (`loss_cls`, `d0.loss_cls` …)."""
        head = self.decode_head
        with_boxes = head.reads_boxes and head.box_frame == "canvas"
        targets = read_targets(data_samples, head.num_classes, ignore_index=self.ignore_index, with_boxes=with_boxes)
        return head.losses_of(*predict_for_training(self, inputs, None, targets), targets)

    @torch.no_grad()
    def encode_decode(
        self, inputs: Float[Tensor, "B C H W"], batch_img_metas: Sequence[dict] | None = None
    ) -> Float[Tensor, "B K H W"]:
        """Class scores at the size of the inputs; nothing depends on `batch_img_metas`."""
        prediction = last_prediction(self, inputs)
        size = (inputs.shape[-2], inputs.shape[-1])
        votes = vote_logits(prediction.class_logits, self.decode_head.class_activation)
        return semantic_scores(votes, resize_maps(prediction.mask_logits(), size))

    def predict(
        self, inputs: Float[Tensor, "B C H W"], data_samples: Sequence[BaseDataElement] | None = None
    ) -> Sequence[BaseDataElement]:
        """Fill `pred_sem_seg` of each sample, at its `ori_shape`, with padding and test-time flips undone."""
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
        margins = [_padding(sample.metainfo) for sample in data_samples]
        if self.test_cfg.keep_batch_padding or any(left or top for left, _, top, _ in margins):
            return self._predict_as_padded(inputs, data_samples)
        shapes = [(inputs.shape[-2] - bottom, inputs.shape[-1] - right) for _, right, _, bottom in margins]
        for images, numbers in split_by_canvas(inputs, shapes, self.data_preprocessor):
            some = [data_samples[number] for number in numbers]
            before = [dict(sample.metainfo) for sample in some]
            if images is not inputs:
                for sample in some:
                    _set_padding(sample, (images.shape[-2], images.shape[-1]), inputs)
            self._predict_as_padded(images, some)
            for sample, metainfo in zip(some, before, strict=True):
                _restore_padding(sample, metainfo)
        return data_samples

    def _predict_as_padded(
        self, inputs: Float[Tensor, "B C H W"], data_samples: Sequence[BaseDataElement]
    ) -> Sequence[BaseDataElement]:
        """Fill the samples of images of one canvas."""
        streamed = self.test_cfg.mode == "whole" and not self.test_cfg.return_scores
        if streamed and not any(_is_moved(sample.metainfo) for sample in data_samples):
            return self._predict_label_maps(inputs, data_samples)
        for sample, image_scores in zip(data_samples, self._scores(inputs), strict=True):
            scores = _undo_geometry(image_scores, sample.metainfo)
            kept = scores if self.test_cfg.return_scores else None
            labels = scores.argmax(0)
            write_semantic(sample, labels, kept)
            if self.test_cfg.temperature is not None:
                write_certainty(sample, image_certainty(scores, labels, self.test_cfg.temperature))
        return data_samples

    @torch.no_grad()
    def _predict_label_maps(
        self, inputs: Float[Tensor, "B C H W"], data_samples: Sequence[BaseDataElement]
    ) -> Sequence[BaseDataElement]:
        """The same label maps without ever holding the scores of all classes; images of one size at once."""
        prediction = last_prediction(self, inputs)
        class_logits = vote_logits(prediction.class_logits, self.decode_head.class_activation)
        mask_logits = prediction.mask_logits()
        canvas = (inputs.shape[-2], inputs.shape[-1])
        resizings = [_resizing(canvas, sample.metainfo) for sample in data_samples]
        for resizing, images in group_equal(resizings):
            some = (take_images(class_logits, images), take_images(mask_logits, images))
            options = dict(resize_scores=True, max_memory_mb=self.test_cfg.max_memory_mb)
            maps = label_maps(*some, resizing, **options)
            for image, labels in zip(images, maps, strict=True):
                write_semantic(data_samples[image], labels)
            if self.test_cfg.temperature is None:
                continue
            found = certainty_maps(*some, maps, resizing, temperature=self.test_cfg.temperature, **options)
            for image, *certainty in zip(images, *found, strict=True):
                write_certainty(data_samples[image], Certainty(*certainty))
        return data_samples

    def _scores(self, inputs: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        if self.test_cfg.mode == "whole":
            return self.encode_decode(inputs)
        cfg, size = self.test_cfg, (inputs.shape[-2], inputs.shape[-1])
        options = dict(crop_size=cfg.crop_size, stride=cfg.stride, blend=cfg.blend)
        views = (
            average_windows(rescaled(inputs, scale), self.encode_decode, **options) for scale in window_scales(cfg)
        )
        return mean_scores([resize_maps(scores, size) for scores in views])

    def _forward(
        self, inputs: Float[Tensor, "B C H W"], data_samples: Sequence[BaseDataElement] | None = None
    ) -> tuple[Float[Tensor, "B Q K1"], Float[Tensor, "B Q _ _"]]:
        """Class and mask logits of the last layer, before any post-processing."""
        prediction = self.decode_head(self.extract_feat(inputs), last_only=True)[-1]
        return prediction.class_logits, prediction.mask_logits()


def _undo_geometry(scores: Float[Tensor, "K H W"], metainfo: dict) -> Float[Tensor, "K H1 W1"]:
    """Crop the padding, undo the flip of test-time augmentation, and resize to the original image."""
    left, right, top, bottom = _padding(metainfo)
    scores = scores[:, top : scores.shape[1] - bottom, left : scores.shape[2] - right]
    if metainfo.get("flip"):
        axes = dict(horizontal=[2], vertical=[1], diagonal=[1, 2])[metainfo["flip_direction"]]
        scores = scores.flip(axes)
    if "ori_shape" not in metainfo:
        return scores
    return resize_maps(scores.unsqueeze(0), tuple(metainfo["ori_shape"][:2])).squeeze(0)


def _padding(metainfo: dict) -> tuple[int, int, int, int]:
    """Left, right, top, bottom."""
    left, right, top, bottom = metainfo.get("img_padding_size") or metainfo.get("padding_size") or (0, 0, 0, 0)
    return int(left), int(right), int(top), int(bottom)  # mmseg computes them with numpy


def _set_padding(sample: BaseDataElement, canvas: tuple[int, int], inputs: Float[Tensor, "B C H W"]) -> None:
    """Note the padding of an image that was moved from the canvas of its batch to another one."""
    _, right, _, bottom = _padding(sample.metainfo)
    height, width = inputs.shape[-2] - bottom, inputs.shape[-1] - right
    margins = (0, canvas[1] - width, 0, canvas[0] - height)
    sample.set_metainfo(dict(img_padding_size=margins, padding_size=margins, pad_shape=canvas))


def _restore_padding(sample: BaseDataElement, metainfo: dict) -> None:
    """Put back what `_set_padding` replaced: the sample goes on describing its place in the batch."""
    for key in ("img_padding_size", "padding_size", "pad_shape"):
        if key in metainfo:
            sample.set_metainfo({key: metainfo[key]})
        elif key in sample.metainfo:
            sample.pop(key)


def _resizing(canvas: tuple[int, int], metainfo: dict) -> Resizing:
    """From the canvas to the original image, where that lies in the upper left corner."""
    _, right, _, bottom = _padding(metainfo)
    crop = (canvas[0] - bottom, canvas[1] - right)
    height, width = metainfo.get("ori_shape", crop)[:2]
    return Resizing(canvas, crop, (height, width))


def _is_moved(metainfo: dict) -> bool:
    """Whether the image is flipped, or does not lie in the upper left corner."""
    left, _, top, _ = _padding(metainfo)
    return bool(metainfo.get("flip") or left or top)


def _checked_test_cfg(test_cfg: ConfigDict | dict | None) -> ConfigDict:
    checked = ConfigDict(_DEFAULTS | dict(test_cfg or {}))
    unknown = set(checked) - _TEST_CFG_KEYS
    if unknown:
        raise InvalidValueError(
            f"model.test_cfg: expected keys {sorted(_TEST_CFG_KEYS)}, got {sorted(unknown)} as well."
        )
    check_sliding(checked)
    if checked.temperature is not None:
        check_temperature(checked.temperature, where="model.test_cfg.temperature")
    return checked
