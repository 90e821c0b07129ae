"""Whether implementations compute the same thing; no number is printed before they are found to.

Compared in float32 with the same weights and images, at 256² or the setting's size if that is smaller, batch 2, at
most 10 objects. The decoders attend at the same places (see `Ours.forced_masks`); bits that had to be forced must lie
on logits that are zero up to rounding, and be few.

Where two points are uncertain to the same degree up to rounding, implementations may choose different ones, which moves
losses and gradients of that batch beyond rounding. A mistake moves every batch: one of three must agree.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mmseg_m2f.benchmark.implementations import (
    Implementation,
    LabelMapImplementation,
    Layer,
    Masks,
    Ours,
    Upstream,
    build_all,
)
from mmseg_m2f.benchmark.setting import Batch, Setting, make_batch
from mmseg_m2f.checkpoints.layouts import convert
from mmseg_m2f.core.postprocess import resize_maps, semantic_scores

_LIMIT = 1e-5  # of losses; of tied logits and scores
_PREDICTION_LIMIT = 1e-4
# ReLUs and sampling amplify rounding: a change of the images in the seventh digit moves our own gradients by 4e-5.
_GRADIENT_LIMIT = 1e-4
_BATCHES = 3
# Attention bits that are zero up to rounding are not forced in graphs: one moves predictions by 1e-4.
_REPLAY_LIMIT = 1e-4
_TIED_BITS = 1e-5  # of all bits of the attention masks
_OTHER_POINTS = 0.02  # between totals of losses that are sampled at other points


class UnequalError(RuntimeError):
    """Two implementations do not compute the same thing."""


@dataclass(frozen=True)
class Comparison:
    """What was found about one implementation beside the first.

    Args:
        compared: False where the weights of the first do not fit, and for models that give objects; nothing else is
            known then.
        figures: what was compared, and the difference found.
        failures: one sentence for each difference that is too large.
    """

    name: str
    compared: bool
    figures: dict[str, float]
    failures: list[str]


def check_equality(names: Sequence[str], setting: Setting) -> list[Comparison]:
    """Compare all other implementations with the first, built for it with the weights of the first.

    Raises:
        UnequalError: they differ by more than rounding; says where.
    """
    small = replace(setting, size=min(setting.size, 256), batch=2, objects=min(setting.objects, 10), dtype="float32")
    first, *others = build_all(names, small)
    assert isinstance(first, Ours)
    comparisons = []
    with _exact_products():
        for other in others:
            for seed in range(_BATCHES):
                found = compare(first, other, make_batch(small, seed))
                found.figures["batches tried"] = float(seed + 1)
                if not found.failures:
                    break
            comparisons.append(found)
    failures = [f"{found.name}: {failure}" for found in comparisons for failure in found.failures]
    if failures:
        raise UnequalError(
            f"Not the same computation as {first.name} ({small.title}):\n  " + "\n  ".join(failures) + "\nNothing was "
            "measured. Compare the versions with constraints.txt, or leave the implementation out."
        )
    return comparisons


def compare(first: Ours, other: Implementation, batch: Batch) -> Comparison:
    """Predictions, losses, gradients and label maps of two implementations in training mode."""
    if not _is_comparable(first, other):
        return Comparison(other.name, compared=False, figures={}, failures=[])
    figures: dict[str, float] = {}
    failures: list[str] = []

    def limit(what: str, value: float, most: float) -> None:
        figures[what] = value
        if not value <= most:
            failures.append(f"{what}: expected at most {most:g}, got {value:.3g}")

    assert isinstance(other, LabelMapImplementation)
    with other.recorded_masks() as masks, _reference(other):
        theirs, their_losses = _train(other, batch)
    with first.forced_masks(masks) as ties, first.reference_numbers():
        ours, our_losses = _train(first, batch)
    limit("class logits, largest difference", _difference(ours, theirs, 0), _PREDICTION_LIMIT)
    limit("mask logits, largest difference", _difference(ours, theirs, 1), _PREDICTION_LIMIT)
    limit("attention bits that differ, fraction", _fraction(ties, masks), _TIED_BITS)
    limit("their logits, largest", max([0.0, *(tie.abs().max().item() for tie in ties if len(tie))]), _LIMIT)
    if _same_points(other):
        limit("losses, largest difference", _loss_difference(our_losses, their_losses), _LIMIT)
        limit("gradients, relative", _gradient_difference(first, other), _GRADIENT_LIMIT)
    else:  # it draws other random points
        total, expected = (_total(losses).item() for losses in (our_losses, their_losses))
        limit("sum of losses at other points, relative", abs(total - expected) / abs(expected), _OTHER_POINTS)
    limit("pixels whose label differs", float(_different_pixels(first, other, batch)), 0.0)
    if isinstance(other, Ours) and other.model.graphs is not None:
        losses, gradients, pixels = _replay_differences(other, batch)
        limit("losses of replayed graphs, largest difference", losses, _REPLAY_LIMIT)
        limit("gradients of replayed graphs, relative", gradients, 10 * _REPLAY_LIMIT)
        limit("pixels whose label differs in replayed graphs, fraction", pixels, _REPLAY_LIMIT)
    for implementation in (first, other):
        implementation.model.zero_grad(set_to_none=True)
        implementation.model.train()
    return Comparison(other.name, True, figures, failures)


def _train(implementation: LabelMapImplementation, batch: Batch) -> tuple[list[Layer], dict[str, Tensor]]:
    implementation.model.zero_grad(set_to_none=True)
    torch.manual_seed(7)
    outputs = implementation.forward(batch)
    layers = [Layer(*(x.detach().clone() for x in layer)) for layer in implementation.layers(outputs)]
    losses = implementation.losses(outputs, batch)
    _total(losses).backward()
    return layers, losses


def _replay_differences(ours: Ours, batch: Batch) -> tuple[float, float, float]:
    """Between replayed CUDA graphs and the network run as usual: of losses, of gradients and pixels relative."""
    ours.model.train()
    with ours.without_graphs():
        _, expected = _train(ours, batch)
        expected_gradients = {name: grad.clone() for name, grad in _gradients(ours.model).items()}
        ours.model.eval()
        labels = torch.stack(ours.predict(batch.images))
    ours.model.train()
    for _ in range(3):  # as usual, recorded, replayed
        _, losses = _train(ours, batch)
    gradients = _norm_of_difference(_gradients(ours.model), expected_gradients)
    ours.model.eval()
    for _ in range(3):
        found = torch.stack(ours.predict(batch.images))
    ours.model.train()
    return _loss_difference(losses, expected), gradients, (found != labels).float().mean().item()


def _total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _reference(implementation: Implementation) -> AbstractContextManager[None]:
    return implementation.reference_numbers() if isinstance(implementation, Ours) else nullcontext()


def _same_points(implementation: Implementation) -> bool:
    return isinstance(implementation, (Ours, Upstream))


def _difference(ours: list[Layer], theirs: list[Layer], part: int) -> float:
    assert len(ours) == len(theirs)
    return max((a[part] - b[part]).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def _fraction(ties: list[Tensor], masks: Masks) -> float:
    return sum(tie.numel() for tie in ties) / max(sum(mask.numel() for mask in masks), 1)


def _loss_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest over the losses: absolute below one, relative above."""
    assert ours.keys() == theirs.keys(), (sorted(ours), sorted(theirs))
    return max(((ours[name] - theirs[name]).abs() / theirs[name].abs().clamp(min=1)).item() for name in ours)


def _gradient_difference(first: Ours, other: Implementation) -> float:
    """Norm of the difference over the norm, of all trained parameters together."""
    ours, theirs = _gradients(first.model), _gradients(other.model)
    if isinstance(other, Upstream):
        theirs = convert(theirs, to="ours").weights
    return _norm_of_difference(ours, theirs)


def _norm_of_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    ours_flat, theirs_flat = (torch.cat([x[name].flatten().double() for name in ours]) for x in (ours, theirs))
    return ((ours_flat - theirs_flat).norm() / theirs_flat.norm()).item()


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _different_pixels(first: Ours, other: LabelMapImplementation, batch: Batch) -> int:
    """Pixels with another label, where the scores of the two labels differ by more than rounding."""
    first.model.eval()
    other.model.eval()
    with torch.no_grad():
        with other.recorded_masks() as masks:
            theirs = torch.stack(other.predict(batch.images))
        with first.forced_masks(masks):
            ours = torch.stack(first.predict(batch.images))
        with first.forced_masks(masks):
            layer = first.layers(first.forward(batch))[-1]
    height, width = batch.images.shape[-2:]
    scores = semantic_scores(layer.class_logits, resize_maps(layer.mask_logits, (height, width)))
    gaps = (scores.gather(1, ours.unsqueeze(1)) - scores.gather(1, theirs.unsqueeze(1))).squeeze(1)
    return int(((ours != theirs) & (gaps.abs() > _LIMIT)).sum())


def _is_comparable(first: Ours, other: Implementation) -> bool:
    """Whether both give label maps, with the same weights."""
    if isinstance(other, Ours):
        return other.task == "label maps" and _same_weights(first.model, other.model)
    return isinstance(other, LabelMapImplementation)


def _same_weights(first: nn.Module, other: nn.Module) -> bool:
    """Whether the weights of one fit the other, and the same ones are trained."""
    ours, theirs = (
        (
            {name: x.shape for name, x in model.state_dict().items()},
            {name for name, parameter in model.named_parameters() if parameter.requires_grad},
        )
        for model in (first, other)
    )
    return ours == theirs


@contextmanager
def _exact_products() -> Iterator[None]:
    """No TF32 on a GPU."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions
