"""What an exported file must pass before it gets its name: standard operators, and eager's numbers at several sizes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_m2f.core.postprocess import semantic_scores
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.object_order import align_objects
from mmseg_m2f.export.writers import require

#: Largest difference of logits, and of maps on the way as a part of their largest value.
TOLERANCE = 1e-4
#: Attention bits may differ where the logit is nearer to 0 than this.
BIT_MARGIN = 1e-4
#: Largest difference of logits behind differing attention bits; bits of later layers may differ where logits are nearer
#: to 0 than this.
EXCUSED = 0.1
#: Share of pixels that may get another class.
LABEL_TOLERANCE = 1e-4
#: Largest difference of scores of objects.
SCORE_TOLERANCE = 1e-5

_ON_THE_WAY = ("features", "mask_features")
_STAGES = (*_ON_THE_WAY, "attention_")  # which the written file need not give
_BEHIND_BITS = ("class_logits", "mask_logits", "scores")
_RELATIVE = (*_ON_THE_WAY, "object_boxes")  # in pixels
_RANDOM = ("Bernoulli", "Multinomial")


class ExportRefusedError(InvalidValueError):
    """A file that is not what the model computes, or not what was asked."""


@dataclass
class Comparison:
    """One run of a file beside the model.

    Attributes:
        name: Where the numbers come from, and the shape of the images.
        errors: Largest difference of each output; of maps on the way relative to their largest value, if above 1.
        bits: How many attention bits there are, and how many differ.
        margin: Largest distance from 0 of a logit whose bit differs, in the first layer of an image where bits do.
        margin_behind: The same in the layers after it, which have seen differing bits.
        of_stages: Whether bits and margin are those of a file that also gives its stages, see `with_bits_of`.
        label_disagreement: Share of pixels, or of queries without masks, with another class.
        classes: How many classes the model itself gives.
    """

    name: str
    errors: dict[str, float] = field(default_factory=dict)
    bits: tuple[int, int] = (0, 0)
    margin: float = 0.0
    margin_behind: float = 0.0
    of_stages: bool = False
    label_disagreement: float = 0.0
    classes: int = 0

    def with_bits_of(self, staged: "Comparison") -> "Comparison":
        """This comparison of a file without stages, judged by the bits of the same graph that gives them.

        A bit whose logit is next to 0 changes masks, and the file alone does not show it.
        """
        return replace(self, bits=staged.bits, margin=staged.margin, margin_behind=staged.margin_behind, of_stages=True)

    def faults(self, *, tolerance: float, label_tolerance: float) -> list[str]:
        """What is wrong, in words; logits behind differing attention bits may differ by more, see `EXCUSED`."""
        found = []
        for margin, most in ((self.margin, BIT_MARGIN), (self.margin_behind, EXCUSED)):
            if not margin < most:
                found.append(
                    f"attention bits differ where logits are up to {margin:.1e} from 0, expected below {most:.0e}"
                )
        for name, error in self.errors.items():
            excused = self.bits[1] > 0 and self.margin < BIT_MARGIN and name in _BEHIND_BITS
            most = max(tolerance, EXCUSED) if excused else tolerance
            if not error <= most:
                found.append(f"{name} differs by {error:.1e}, expected at most {most:.0e}")
        if not self.label_disagreement <= label_tolerance:
            found.append(f"{self.label_disagreement:.2%} of the labels differ, expected at most {label_tolerance:.2%}")
        return [f"{self.name}: {fault}" for fault in found]


def check_operators(path: Path, *, opset: int) -> None:
    """Refuse an ONNX file that stock runtimes do not run, or that draws random numbers.

    Raises:
        ValueError: Operators outside of the standard domain, local functions, random operators, or another version.
    """
    model = require("onnx").load(str(path), load_external_data=False)
    nodes = list(_nodes(model.graph))
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")})
    random = sorted({node.op_type for node in nodes if node.op_type.startswith("Random") or node.op_type in _RANDOM})
    versions = {each.domain: each.version for each in model.opset_import}
    found = []
    if foreign:
        found.append(f"operators outside of the standard domain ({', '.join(foreign)})")
    if model.functions:
        found.append(f"local functions ({', '.join(function.name for function in model.functions)})")
    if random:
        found.append(f"random operators ({', '.join(random)}): results would change from call to call")
    if versions.get("") != opset or set(versions) - {"", "ai.onnx"}:
        found.append(f"the versions {versions}")
    if found:
        raise ExportRefusedError(
            f"{path.name}: expected standard operators of version {opset} alone, got "
            f"{'; '.join(found)}. The file was not "
            "written. Replace the part of the model that needs them."
        )


def smooth_images(batch: int, height: int, width: int, *, channels: int = 3, seed: int = 0) -> Tensor:
    """Normalised random images B C H W with large and small structures, so that models see more than one class."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, channels, 5, 7, generator=generator)
    fine = torch.randn(batch, channels, height, width, generator=generator)
    return 1.5 * F.interpolate(coarse, (height, width), mode="bicubic") + 0.3 * fine


def compare(name: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Comparison:
    """Compare what a model and a program give, output by output; objects of equal scores in any order."""
    comparison, found = Comparison(name), align_objects(expected, found, score_tolerance=SCORE_TOLERANCE)
    behind = torch.tensor(False)
    for output, wanted in expected.items():
        if output not in found:
            if not output.startswith(_STAGES):
                comparison.errors[output] = float("inf")
            continue
        got = found[output]
        if got.shape != wanted.shape:
            comparison.errors[output] = float("inf")
            continue
        if output == "object_boxes" and "object_masks" in expected and "object_masks" in found:
            # A pixel at the edge of a mask moves its box; masks are judged by their pixels.
            same = torch.eq(expected["object_masks"], found["object_masks"]).flatten(2).all(2)
            wanted, got = wanted[same], got[same]
        if output.startswith("attention_"):
            behind = _compare_bits(comparison, wanted, got, behind)
        elif wanted.is_floating_point():
            difference = float((wanted - got).abs().max()) if wanted.numel() else 0.0
            scale = max(1.0, float(wanted.abs().max())) if output.startswith(_RELATIVE) and wanted.numel() else 1.0
            comparison.errors[output] = difference / scale if math.isfinite(difference) else float("inf")
        else:
            comparison.label_disagreement = max(
                comparison.label_disagreement, float(torch.ne(wanted, got).float().mean()) if wanted.numel() else 0.0
            )
            if output in ("labels", "panoptic"):
                comparison.classes = max(comparison.classes, len(wanted.unique()))
    labels = _labels(expected)
    if labels is not None and all(output in found for output in ("class_logits", "scores") if output in expected):
        comparison.classes = len(labels.unique())
        predicted = _labels({key: value for key, value in found.items() if key in expected})
        differing = 1.0
        if predicted is not None and predicted.shape == labels.shape:
            differing = float(torch.ne(labels, predicted).float().mean()) if labels.numel() else 0.0
        comparison.label_disagreement = max(comparison.label_disagreement, differing)
    return comparison


def judge(
    comparisons: Iterable[Comparison], *, tolerance: float = TOLERANCE, label_tolerance: float = LABEL_TOLERANCE
) -> None:
    """Refuse a file whose comparisons show a fault.

    Raises:
        ValueError: Numbers, attention bits or labels differ.
    """
    faults = [
        fault for each in comparisons for fault in each.faults(tolerance=tolerance, label_tolerance=label_tolerance)
    ]
    if faults:
        raise ExportRefusedError(
            "The exported program does not compute what the model does. "
            f"{'. '.join(faults[:4])}"
            f"{f' (and {len(faults) - 4} more)' if len(faults) > 4 else ''}. The file was not "
            "written. A part of the model "
            "depends on the size of the example, or a runtime computes it differently."
        )


def is_empty_check(comparisons: Sequence[Comparison]) -> bool:
    """Whether no comparison saw two classes, so that equal labels say nothing."""
    return all(each.classes < 2 for each in comparisons)


def _compare_bits(comparison: Comparison, wanted: Tensor, got: Tensor, behind: Tensor) -> Tensor:
    """Add the bits of one layer; images that are `behind` differing bits of an earlier one, and those that are now."""
    differing = ((wanted >= 0) != (got >= 0)).flatten(1)
    total, wrong = comparison.bits
    comparison.bits = (total + wanted.numel(), wrong + int(differing.sum()))
    farthest = torch.maximum(wanted.abs(), got.abs()).flatten(1).where(differing, 0).amax(1)
    comparison.margin = max(comparison.margin, float(farthest.where(~behind, 0).max()))
    comparison.margin_behind = max(comparison.margin_behind, float(farthest.where(behind, 0).max()))
    return behind | differing.any(1)


def _labels(outputs: Mapping[str, Tensor]) -> Tensor | None:
    """The class of each pixel at the size of the masks, or of each query without masks."""
    if "scores" in outputs:
        scores = outputs["scores"]
        return scores.argmax(1) if scores.shape[1] > 1 else (scores > 0).long()
    if "class_logits" not in outputs:
        return None
    if "mask_logits" not in outputs:
        return outputs["class_logits"].argmax(-1)
    return semantic_scores(outputs["class_logits"].float(), outputs["mask_logits"].float()).argmax(1)


def _nodes(graph: Any) -> Iterator[Any]:  # noqa: ANN401
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
