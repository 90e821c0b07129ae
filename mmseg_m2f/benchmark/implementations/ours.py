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
from mmseg_m2f.config.finding import find_config
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.hooks import keep_norm_on_device
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.network import run_network
from mmseg_m2f.samples import read_targets

#: Added to "ours" or to a config: with `model.compile=True`.
COMPILED = "+compile"
#: With `model.cuda_graphs=True`.
GRAPHED = "+graphs"
_OURS = "mask2former_r50_ade20k-512_160k"


class Ours:
    """A `MaskSegmentor` from a config, with the setting's numbers of queries, classes and points.

    Raises:
        ValueError: the config's model is no `MaskSegmentor`.
    """

    def __init__(self, name: str, config: str | Path, setting: Setting) -> None:
        cfg = load_config(config)
        _, options = split_name(name)
        if GRAPHED in options and setting.device != "cuda":
            raise InvalidValueError(
                f"{name}: CUDA graphs need a GPU, got --device {setting.device}. Use --device cuda."
            )
        if COMPILED in options:
            cfg.model.compile = True
        if GRAPHED in options:
            cfg.model.cuda_graphs = True
        if cfg.model.type != "mmseg_m2f.MaskSegmentor":
            raise InvalidValueError(
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
        return run_network(self.model, images)[0]

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        head = self.model.decode_head
        samples = make_samples(batch.label_maps)
        for sample, classes in zip(samples, batch.classes, strict=True):
            sample.set_metainfo(dict(present_classes=classes))  # as the data worker does
        return only_losses(head.criterion(outputs, read_targets(samples, head.num_classes)))

    def step(self) -> None:
        self.wrapper.step()

    def label_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        samples = self.model.predict(images, make_samples(images[:, 0]))
        return [sample.pred_sem_seg.data.squeeze(0) for sample in samples]

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
    def without_graphs(self) -> Iterator[None]:
        """Run the network as usual, even if the model records CUDA graphs."""
        usual, self.model.graphs = self.model.graphs, None
        try:
            yield
        finally:
            self.model.graphs = usual

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
            with self.without_graphs():  # a replay would not call the function above
                yield
        finally:
            del decoder._may_attend


def split_name(name: str) -> tuple[str, set[str]]:
    """The name "ours" or a path, and which of `COMPILED` and `GRAPHED` follow it."""
    options = set()
    while ending := next((option for option in (COMPILED, GRAPHED) if name.endswith(option)), None):
        options.add(ending)
        name = name.removesuffix(ending)
    return name, options


def config_of(name: str) -> Path:
    """The file that "ours", the name of a published config, or a path stands for."""
    source, _ = split_name(name)
    return find_config(_OURS if source == "ours" else source)
