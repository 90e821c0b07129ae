"""Mask classifiers of this package."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from mmseg_m2f.benchmark.implementations.interface import (
    LEAST_SIZE,
    Layer,
    Masks,
    least_size_to_choose_from,
    only_losses,
)
from mmseg_m2f.benchmark.made_samples import make_samples
from mmseg_m2f.benchmark.setting import Batch, Setting
from mmseg_m2f.config.finding import find_config
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.hooks import keep_norm_on_device
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.network import predict_for_training, run_network
from mmseg_m2f.samples import read_segments_targets, read_targets
from mmseg_m2f.structures import Prediction, TargetBatch, TrainingPredictions, TrainingQueryDecoder

#: Added to "ours" or to a config: with `model.compile=True`.
COMPILED = "+compile"
#: With `model.cuda_graphs=True`.
GRAPHED = "+graphs"
_OURS = "mask2former_r50_ade20k-512_160k"
#: What a model is trained on and gives.
Task = Literal["label maps", "objects"]


class TrainingOutputs(NamedTuple):
    """What the network predicts; and the targets, if it has read them to make noisy copies."""

    predictions: list[Prediction] | TrainingPredictions
    targets: TargetBatch | None


class Ours:
    """A model from a config, with the setting's numbers of queries, classes and points.

    Raises:
        ValueError: the config's model gives neither label maps nor objects alone; see `task_of`.
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
        self.task = task_of(cfg, config)
        if self.task == "objects":
            cfg.model.thing_classes = list(range(setting.classes))
        drop_initial_weights(cfg.model)
        cfg.model.pop("data_preprocessor", None)  # images are normalised already
        head = cfg.model.decode_head
        head.num_classes = setting.classes
        head.query_decoder.num_queries = setting.queries
        if "num_points" in (head.criterion.get("sampling") or {}):
            head.criterion.sampling.num_points = setting.points
        self.name = name
        self.model = MODELS.build(cfg.model)
        self.model.init_weights()
        self.model.to(setting.device).train()
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        keep_norm_on_device(self.wrapper, lambda _: None)  # it is logged later, as losses are
        self.optimizer: torch.optim.Optimizer = self.wrapper.optimizer
        chooses = getattr(self.model.decode_head.query_decoder, "selection", None) is not None
        self.least_size = least_size_to_choose_from(setting.queries) if chooses else LEAST_SIZE

    def forward(self, batch: Batch) -> TrainingOutputs:
        if not isinstance(self.model.decode_head.query_decoder, TrainingQueryDecoder):
            return TrainingOutputs(run_network(self.model, batch.images)[0], None)
        targets = self._read_targets(batch)
        return TrainingOutputs(predict_for_training(self.model, batch.images, None, targets)[0], targets)

    def losses(self, outputs: TrainingOutputs, batch: Batch) -> dict[str, Tensor]:
        targets = self._read_targets(batch) if outputs.targets is None else outputs.targets
        return only_losses(self.model.decode_head.criterion(outputs.predictions, targets))

    def step(self) -> None:
        self.wrapper.step()

    def predict(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]] | list[InstanceData]:
        samples = self.model.predict(images, make_samples(images[:, 0]))
        if self.task == "objects":
            return [sample.pred_instances for sample in samples]
        return [sample.pred_sem_seg.data.squeeze(0) for sample in samples]

    def layers(self, outputs: TrainingOutputs) -> list[Layer]:
        predictions = outputs.predictions
        layers = predictions.layers if isinstance(predictions, TrainingPredictions) else predictions
        return [Layer(prediction.class_logits, prediction.mask_logits()) for prediction in layers]

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

    def _read_targets(self, batch: Batch) -> TargetBatch:
        head = self.model.decode_head
        if self.task == "objects":
            return read_segments_targets(
                batch.objects, self.model.is_thing, with_boxes=head.reads_boxes, box_frame=head.box_frame
            )
        samples = make_samples(batch.label_maps)
        for sample, classes in zip(samples, batch.classes, strict=True):
            sample.set_metainfo(dict(present_classes=classes))  # as the data worker does
        return read_targets(samples, head.num_classes, with_boxes=head.reads_boxes and head.box_frame == "canvas")

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


def task_of(cfg: Config, config: str | Path) -> Task:
    """What the model of a config is trained on and gives.

    Args:
        config: what to call it in a message.

    Raises:
        ValueError: neither label maps alone nor objects alone.
    """
    model = cfg.model
    if model.type == "mmseg_m2f.MaskSegmentor":
        return "label maps"
    results = model.get("test_cfg") or {}
    if model.type == "mmseg_m2f.MaskDetector" and not results.get("panoptic", True) and results.get("instance", True):
        return "objects"
    raise InvalidValueError(
        f"{config}: expected model.type 'mmseg_m2f.MaskSegmentor', or 'mmseg_m2f.MaskDetector' with "
        f"test_cfg.panoptic=False, got {model.type!r} with test_cfg {dict(results)}. The benchmark trains on label "
        "maps or on objects; give a semantic or an instance config."
    )


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
