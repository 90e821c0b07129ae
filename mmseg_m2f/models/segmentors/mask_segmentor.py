"""`MaskHead` as a segmentor of mmsegmentation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_m2f.checkpoints.openmmlab import adopt_detector_keys
from mmseg_m2f.core.postprocess import resize_maps, semantic_scores
from mmseg_m2f.core.streaming import Resizing, semantic_labels
from mmseg_m2f.core.windows import average_windows
from mmseg_m2f.layers.matrix_products import use_fast_products
from mmseg_m2f.models.compilation import compile_parts
from mmseg_m2f.models.feature_spec import check_head, probe_feature_spec
from mmseg_m2f.models.segmentors.upload import upload_batches_at_once
from mmseg_m2f.registry import MODELS
from mmseg_m2f.samples import read_targets, write_semantic

_TEST_CFG_KEYS = {"mode", "crop_size", "stride", "return_scores", "max_memory_mb"}


@MODELS.register_module()
class MaskSegmentor(BaseSegmentor):
    """Backbone, optional neck and `MaskHead`, answering with a label map per image.

    Args:
        backbone: any backbone whose output is a list of maps, fine to coarse. The head learns channels and
            strides from it.
        decode_head: config of the `MaskHead`.
        neck: between backbone and head.
        test_cfg: `mode` "whole" (default) or "slide" with `crop_size` and `stride` (both height, width);
            `return_scores=True` keeps the class scores K H W of each image as `seg_logits`. They lie in
            [0, Q] and are neither logits nor probabilities. `max_memory_mb` (default 64) bounds what a label map
            takes besides the mask logits, where scores are not kept, windows not averaged and nothing is flipped.
        ignore_index: label of pixels that are not known.
        freeze_backbone: keep backbone and neck as they are: no gradients, and evaluation mode throughout.
        compile: run backbone, neck and head through `torch.compile`; True, or a dict of its arguments.
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
        freeze_backbone: bool = False,
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
        self.train_cfg = train_cfg
        self.test_cfg = _checked_test_cfg(test_cfg)
        self.ignore_index = ignore_index
        self.freeze_backbone = freeze_backbone
        if freeze_backbone:
            for part in self._body():
                part.requires_grad_(False)
        use_fast_products(self)
        upload_batches_at_once(self.data_preprocessor)
        compile_parts(self, compile)
        self.register_load_state_dict_pre_hook(adopt_detector_keys)

    def train(self, mode: bool = True) -> "MaskSegmentor":
        """Training mode, except for what is frozen."""
        super().train(mode)
        if self.freeze_backbone:
            for part in self._body():
                part.eval()
        return self

    def _body(self) -> list[nn.Module]:
        return [self.backbone, self.neck] if self.with_neck else [self.backbone]

    def extract_feat(self, inputs: Float[Tensor, "B C H W"]) -> Sequence[Tensor]:
        """Maps of backbone and neck, fine to coarse."""
        features = self.backbone(inputs)
        return self.neck(features) if self.with_neck else features

    def loss(self, inputs: Float[Tensor, "B C H W"], data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """Losses of a batch; names are mmdet's (`loss_cls`, `d0.loss_cls` …)."""
        targets = read_targets(data_samples, self.decode_head.num_classes, ignore_index=self.ignore_index)
        return self.decode_head.loss(self.extract_feat(inputs), targets)

    @torch.no_grad()
    def encode_decode(
        self, inputs: Float[Tensor, "B C H W"], batch_img_metas: Sequence[dict] | None = None
    ) -> Float[Tensor, "B K H W"]:
        """Class scores at the size of the inputs; nothing depends on `batch_img_metas`."""
        prediction = self.decode_head.predict(self.extract_feat(inputs))
        size = (inputs.shape[-2], inputs.shape[-1])
        return semantic_scores(prediction.class_logits, resize_maps(prediction.mask_logits(), size))

    def predict(
        self, inputs: Float[Tensor, "B C H W"], data_samples: Sequence[BaseDataElement] | None = None
    ) -> Sequence[BaseDataElement]:
        """Fill `pred_sem_seg` of each sample, at its `ori_shape`, with padding and test-time flips undone."""
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
        streamed = self.test_cfg.mode == "whole" and not self.test_cfg.return_scores
        if streamed and not any(_is_moved(sample.metainfo) for sample in data_samples):
            return self._predict_in_strips(inputs, data_samples)
        for sample, image_scores in zip(data_samples, self._scores(inputs), strict=True):
            scores = _undo_geometry(image_scores, sample.metainfo)
            kept = scores if self.test_cfg.return_scores else None
            write_semantic(sample, scores.argmax(0), kept)
        return data_samples

    @torch.no_grad()
    def _predict_in_strips(
        self, inputs: Float[Tensor, "B C H W"], data_samples: Sequence[BaseDataElement]
    ) -> Sequence[BaseDataElement]:
        """The same label maps without ever holding the scores of all classes or the masks of all queries."""
        prediction = self.decode_head.predict(self.extract_feat(inputs))
        canvas = (inputs.shape[-2], inputs.shape[-1])
        for sample, class_logits, mask_logits in zip(
            data_samples, prediction.class_logits, prediction.mask_logits(), strict=True
        ):
            _, right, _, bottom = _padding(sample.metainfo)
            crop = (canvas[0] - bottom, canvas[1] - right)
            resizing = Resizing(canvas, crop, tuple(sample.metainfo.get("ori_shape", crop)[:2]))
            labels = semantic_labels(
                class_logits, mask_logits, resizing, resize_scores=True, max_memory_mb=self.test_cfg.max_memory_mb
            )
            write_semantic(sample, labels)
        return data_samples

    def _scores(self, inputs: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        if self.test_cfg.mode == "whole":
            return self.encode_decode(inputs)
        return average_windows(
            inputs, self.encode_decode, crop_size=self.test_cfg.crop_size, stride=self.test_cfg.stride
        )

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


def _is_moved(metainfo: dict) -> bool:
    """Whether the image is flipped, or does not lie in the upper left corner."""
    left, _, top, _ = _padding(metainfo)
    return bool(metainfo.get("flip") or left or top)


def _checked_test_cfg(test_cfg: ConfigDict | dict | None) -> ConfigDict:
    checked = ConfigDict(dict(mode="whole", return_scores=False, max_memory_mb=64) | dict(test_cfg or {}))
    unknown = set(checked) - _TEST_CFG_KEYS
    if unknown:
        raise ValueError(f"model.test_cfg: expected keys {sorted(_TEST_CFG_KEYS)}, got {sorted(unknown)} as well.")
    if checked.mode not in ("whole", "slide"):
        raise ValueError(f"model.test_cfg.mode: expected 'whole' or 'slide', got {checked.mode!r}.")
    if checked.mode == "slide" and not {"crop_size", "stride"} <= set(checked):
        raise ValueError("model.test_cfg: mode 'slide' needs crop_size and stride, both (height, width).")
    return checked
