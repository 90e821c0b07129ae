"""What each part of a network costs: parameters, multiply–adds, memory, time."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmseg_m2f.analysis.live_memory import LiveMemory
from mmseg_m2f.analysis.operation_counts import count_operations, without_gradients
from mmseg_m2f.config.channels import channels_in_use
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.config.operators import check_operators
from mmseg_m2f.core.postprocess import resize_maps, semantic_scores
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation.metric_report import format_table
from mmseg_m2f.models.decode_heads.mask_head import MaskHead
from mmseg_m2f.models.query_decoders.masked_attention import MaskedAttentionDecoder
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import MaskPrediction

_INNER = ("pixel_decoder", "query_decoder", "transformer_decoder", "transformer_encoder")
_REST = "everything else"


@dataclass
class PartCost:
    """One part, or everything.

    Attributes:
        parameters: also those that only training uses.
        multiply_adds: of matrix products, convolutions and attention, for one image.
        peak_bytes: the most bytes of tensors alive at once while the part runs, weights not counted.
        seconds: median over some turns; of the device.
    """

    name: str
    parameters: int = 0
    multiply_adds: int = 0
    peak_bytes: int = 0
    seconds: float = 0.0


@dataclass
class NetworkCosts:
    """The parts in the order of the model, what no part does, and the whole network.

    `published` is what `published_multiply_adds` gives.
    """

    parts: list[PartCost]
    total: PartCost
    size: tuple[int, int]
    device: str
    published: int | None = None

    def text(self) -> str:
        """A table for the terminal."""
        rows = [*self.parts, self.total]
        table = format_table(
            {
                "part": [row.name for row in rows],
                "parameters, M": [f"{row.parameters / 1e6:.3f}" for row in rows],
                "multiply-adds, G": [f"{row.multiply_adds / 1e9:.3f}" for row in rows],
                "memory, MB": [f"{row.peak_bytes / 2**20:.1f}" for row in rows],
                "time, ms": [f"{row.seconds * 1000:.1f}" for row in rows],
            }
        )
        lines = [f"One image of {self.size[0]} x {self.size[1]} (height x width) on {self.device}:", table]
        if self.published is not None:
            lines.append(
                f"As fvcore counts a prediction of the authors' code: {self.published / 1e9:.1f} G (norms and "
                "resizing too; of mask classifiers the mask logits of every layer and the class scores of every pixel)."
            )
        return "\n".join(lines)


def measure_network(
    cfg: Config, *, size: tuple[int, int] | None = None, device: str | None = None, repeats: int = 3
) -> NetworkCosts:
    """Costs of the network of a config on one image of noise, from pixels to the logits of the last layer.

    Results (label maps, segments, objects) are not made.

    Args:
        size: height and width; the config's `crop_size` unless given.
        device: as torch names it; the GPU if there is one, unless given. "meta" counts without computing: its times
            mean nothing.
        repeats: turns that the times are the median of, after one that does not count.

    Raises:
        ValueError: the config has no `crop_size`, or the size does not suit the network.
        RuntimeError: a part of the model needs an operator of mmcv that does not work here.
    """
    check_config(cfg)
    check_operators(cfg)
    drop_initial_weights(cfg.model)
    size = size or _configured_size(cfg)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    settings = dict(cfg.model)
    if "data_preprocessor" in cfg:
        settings.setdefault("data_preprocessor", cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"):
        model: nn.Module = MODELS.build(settings)
    model = model.eval().to(device)
    images = torch.rand(1, channels_in_use(cfg) or 3, *size, device=device)
    try:
        return measure_parts(model, images, repeats=repeats)
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise InvalidValueError(
            f"--size {size[0]} {size[1]}: the network cannot take one image of this size ({error}). Choose a multiple "
            "of its largest stride, or the size that it was made for."
        ) from error


def measure_parts(model: nn.Module, images: Float[Tensor, "1 C H W"], *, repeats: int = 3) -> NetworkCosts:
    """Costs of a model in evaluation mode, on images that are prepared already."""
    shape = (images.shape[-2], images.shape[-1])
    metainfo = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0))

    def run() -> None:
        model(images, [BaseDataElement(metainfo=metainfo)], mode="tensor")

    parts = _parts(model)
    costs = {name: PartCost(name, _parameters(module)) for name, module in parts}
    for name in costs:  # a part without its inner parts
        for inner, other in parts:
            if inner.startswith(f"{name}."):
                costs[name].parameters -= _parameters(other)
    total = PartCost("network", _parameters(model))
    with torch.no_grad(), without_gradients(model):
        run()  # makes what is made once
        _count(run, parts, costs, total)
        _weigh(run, parts, costs, total)
        _time(run, parts, costs, total, device=images.device.type, repeats=repeats)
        published = published_multiply_adds(model, images)
    rest = PartCost(
        _REST,
        total.parameters - sum(cost.parameters for cost in costs.values()),
        total.multiply_adds - sum(cost.multiply_adds for cost in costs.values()),
        seconds=max(total.seconds - sum(cost.seconds for cost in costs.values()), 0.0),
    )
    shown = [cost for cost in costs.values() if cost.parameters or cost.multiply_adds or "." not in cost.name]
    device = torch.cuda.get_device_name() if images.is_cuda else images.device.type
    return NetworkCosts([*shown, rest], total, shape, device, published)


def published_multiply_adds(model: nn.Module, images: Float[Tensor, "1 C H W"]) -> int | None:
    """Multiply–adds as fvcore counts a prediction, with which the tables of Mask2Former and SegNeXt were made.

    Norms and resizing count as well (`operation_counts`), up to scores at the size of the input. The authors' mask
    classifiers compute the mask logits of every supervised layer, resize them where a layer attends inside masks, and
    then the class scores of every pixel; ours multiplies resized features instead (`MaskedAttentionDecoder`), which is
    taken out. None for detectors of other libraries and for heads without masks of this kind.
    """
    head = getattr(model, "decode_head", None)
    with count_operations() as counter:
        if isinstance(head, MaskHead):
            attended = _predict_as_authors(model, head, images)
        elif hasattr(model, "encode_decode"):
            size = (images.shape[-2], images.shape[-1])
            model.encode_decode(images, [dict(img_shape=size, ori_shape=size, pad_shape=size)])  # type: ignore[operator]
            attended = 0
        else:
            attended = None
    return None if attended is None else counter.products + counter.others - attended


def _predict_as_authors(model: nn.Module, head: MaskHead, images: Float[Tensor, "1 C H W"]) -> int | None:
    """Compute what the authors' code does, and give how many multiply–adds of it are ours alone; None without masks."""
    if head.pixel_decoder is None:
        return None
    features = head.pixel_decoder(model.extract_feat(images))  # type: ignore[operator]
    predictions = head.query_decoder(features)
    last = predictions[-1]
    if not isinstance(last, MaskPrediction):
        return None
    for prediction in predictions:
        masks = prediction.mask_logits()
    semantic_scores(last.class_logits, resize_maps(masks, (images.shape[-2], images.shape[-1])))
    if not isinstance(head.query_decoder, MaskedAttentionDecoder):
        return 0
    _, num_queries, channels = last.mask_embeddings.shape
    cells = [level.shape[-2] * level.shape[-1] for level in features.levels]
    return num_queries * channels * sum(cells[layer % len(cells)] for layer in range(len(predictions) - 1))


def _configured_size(cfg: Config) -> tuple[int, int]:
    size = cfg.get("crop_size") or (cfg.model.get("data_preprocessor") or {}).get("size")
    if isinstance(size, int):
        return size, size
    if size is None or len(size) != 2:
        raise InvalidValueError("The config names no crop_size; expected the image's size. Give --size HEIGHT WIDTH.")
    return int(size[0]), int(size[1])


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Backbone, neck, heads; each head is followed by its decoders, under `head.decoder`."""
    parts = []
    for name, child in model.named_children():
        if name == "data_preprocessor" or not _parameters(child):
            continue
        parts.append((name, child))
        parts += [
            (f"{name}.{inner}", module)
            for inner in _INNER
            if isinstance(module := getattr(child, inner, None), nn.Module) and _parameters(module)
        ]
    return parts


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _count(
    run: Callable[[], None], parts: Sequence[tuple[str, nn.Module]], costs: dict[str, PartCost], total: PartCost
) -> None:
    with count_operations() as counter:
        begun: dict[str, int] = {}

        def enter(name: str) -> None:
            begun[name] = counter.products

        def leave(name: str) -> None:
            found = counter.products - begun[name]
            costs[name].multiply_adds += found
            parent = name.rpartition(".")[0]
            if parent in costs:
                costs[parent].multiply_adds -= found

        with _watched(parts, enter, leave):
            run()
        total.multiply_adds = counter.products


def _weigh(
    run: Callable[[], None], parts: Sequence[tuple[str, nn.Module]], costs: dict[str, PartCost], total: PartCost
) -> None:
    with LiveMemory() as memory:
        running = [total]

        def note() -> None:
            for cost in running:
                cost.peak_bytes = max(cost.peak_bytes, memory.peak)

        def enter(name: str) -> None:
            note()
            memory.restart()
            running.append(costs[name])

        def leave(_: str) -> None:
            note()
            running.pop()

        with _watched(parts, enter, leave):
            run()
        note()


def _time(
    run: Callable[[], None],
    parts: Sequence[tuple[str, nn.Module]],
    costs: dict[str, PartCost],
    total: PartCost,
    *,
    device: str,
    repeats: int,
) -> None:
    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    begun: dict[str, float] = {}
    turns: list[dict[str, float]] = []

    def enter(name: str) -> None:
        begun[name] = now()

    def leave(name: str) -> None:
        passed = now() - begun[name]
        turns[-1][name] = turns[-1].get(name, 0.0) + passed
        parent = name.rpartition(".")[0]
        if parent in costs:
            turns[-1][parent] = turns[-1].get(parent, 0.0) - passed

    with _watched(parts, enter, leave):
        for _ in range(repeats):
            turns.append({})
            start = now()
            run()
            turns[-1][total.name] = now() - start
    for cost in (*costs.values(), total):
        cost.seconds = median(turn.get(cost.name, 0.0) for turn in turns)


@contextmanager
def _watched(
    parts: Sequence[tuple[str, nn.Module]], enter: Callable[[str], None], leave: Callable[[str], None]
) -> Iterator[None]:
    """Call `enter` and `leave` around each part's `forward`, also where a model calls it without hooks."""

    def around(name: str, forward: Callable[..., object]) -> Callable[..., object]:
        def watched(*args: object, **kwargs: object) -> object:
            enter(name)
            result = forward(*args, **kwargs)
            leave(name)
            return result

        return watched

    own = [vars(module).get("forward") for _, module in parts]
    for name, module in parts:
        module.forward = around(name, module.forward)
    try:
        yield
    finally:
        for (_, module), forward in zip(parts, own, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward
