"""Mask2Former of this package."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import Tensor

from mmseg_m2f.benchmark.implementations.interface import Layer, Masks, Outputs, make_samples, only_losses
from mmseg_m2f.benchmark.setting import Batch, Setting
from mmseg_m2f.engine.hooks import keep_norm_on_device
from mmseg_m2f.engine.launch import load_config
from mmseg_m2f.engine.options import drop_initial_weights
from mmseg_m2f.samples import read_targets

#: Added to "ours" or to a config: with `model.compile=True`.
COMPILED = "+compile"
_OURS = Path(__file__).parents[3] / "configs/mask2former/mask2former_r50_ade20k-512_160k.py"


class Ours:
    """A `MaskSegmentor` from a config, with the setting's numbers of queries, classes and points.

    Raises:
        ValueError: the config's model is no `MaskSegmentor`.
    """

    def __init__(self, name: str, config: str | Path, setting: Setting) -> None:
        cfg = load_config(config)
        if name.endswith(COMPILED):
            cfg.model.compile = True
        if cfg.model.type != "mmseg_m2f.MaskSegmentor":
            raise ValueError(
                f"{config}: expected model.type 'mmseg_m2f.MaskSegmentor', got {cfg.model.type!r}. The benchmark "
                "trains on label maps; give the config of a semantic segmentor."
            )
        drop_initial_weights(cfg.model)
        cfg.model.pop("data_preprocessor", None)  # images are normalised already
        head = cfg.model.decode_head
        head.num_classes = setting.classes
        head.query_decoder.num_queries = setting.queries
        if "num_points" in head.criterion.sampling:
            head.criterion.sampling.num_points = setting.points
        self.name = name
        self.model = MODELS.build(cfg.model)
        self.model.init_weights()
        self.model.to(setting.device).train()
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        keep_norm_on_device(self.wrapper, lambda _: None)  # it is logged later, as losses are
        self.optimizer: torch.optim.Optimizer = self.wrapper.optimizer

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Outputs:
        return self.model.decode_head(self.model.extract_feat(images))

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        head = self.model.decode_head
        samples = make_samples(batch.label_maps)
        for sample, classes in zip(samples, batch.classes, strict=True):
            sample.set_metainfo(dict(present_classes=classes))  # as the data worker does
        return only_losses(head.criterion(outputs, read_targets(samples, head.num_classes)))

    def step(self) -> None:
        self.wrapper.step()

    def label_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        answers = self.model.predict(images, make_samples(images[:, 0]))
        return [sample.pred_sem_seg.data.squeeze(0) for sample in answers]

    def layers(self, outputs: Outputs) -> list[Layer]:
        return [Layer(prediction.class_logits, prediction.mask_logits()) for prediction in outputs]

    @contextmanager
    def recorded_masks(self) -> Iterator[Masks]:
        recorded: Masks = []

        def record(may_attend: Tensor, _: Tensor) -> Tensor:
            recorded.append(may_attend)
            return may_attend

        with self._masks_through(record):
            yield recorded

    @contextmanager
    def forced_masks(self, masks: Sequence[Bool[Tensor, "B Q _"]]) -> Iterator[list[Tensor]]:
        """Let the decoder attend where another did; collects the logits of the bits it would have set otherwise.

        A logit that is zero up to rounding falls on either side of zero in any two implementations, and one such bit
        moves all later predictions by about 1e-4.
        """
        remaining, ties = iter(masks), []

        def force(may_attend: Tensor, logits: Tensor) -> Tensor:
            forced = next(remaining)
            ties.append(logits[may_attend != forced])
            return forced

        with self._masks_through(force):
            yield ties

    @contextmanager
    def reference_numbers(self) -> Iterator[None]:
        """Draw random points in mmdet's order, and count what mmdet counts."""
        criterion = self.model.decode_head.criterion
        usual, criterion.reference = criterion.reference, "mmdet"
        try:
            yield
        finally:
            criterion.reference = usual

    @contextmanager
    def _masks_through(self, replace: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
        decoder = self.model.decode_head.query_decoder
        usual = getattr(decoder, "_may_attend", None)
        if usual is None:  # a decoder without masked attention
            yield
            return

        def may_attend(embeddings: Tensor, features: Tensor) -> Tensor:
            return replace(usual(embeddings, features), torch.bmm(embeddings, features))

        decoder._may_attend = may_attend
        try:
            yield
        finally:
            del decoder._may_attend


def config_of(name: str) -> Path:
    """The file that "ours", or a path, stands for."""
    source = name.removesuffix(COMPILED)
    return _OURS if source == "ours" else Path(source)
