"""Confidences that are probabilities: temperature scaling (arXiv 1706.04599, section 4.2).

Deviations:
- A mask classifier has no logits of a pixel: its class scores are sums over queries, in [0, Q]. The logits that the
  temperature divides are the logarithms of the scores, joined by that of the mass that no query claims (the idea of
  "RbA: Segmenting Unknown Regions Rejected by All", arXiv 2211.14293: what all queries reject is none of the classes).
- An object's score is no softmax: the temperature divides its log-odds.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from mmseg_m2f.core.strips import Resizing, strips
from mmseg_m2f.errors import InvalidValueError

#: Temperatures are looked for between this and its inverse.
LARGEST_TEMPERATURE = 100.0
_EPSILON = 2.0**-24  # scores of exactly 0 and 1 count as this far away from them, the resolution of float32


class Certainty(NamedTuple):
    """How sure the label of each pixel is; both in [0, 1].

    `confidence` is the probability of the label, `unknown` that of none of the K classes.
    """

    confidence: Float[Tensor, "... H W"]
    unknown: Float[Tensor, "... H W"]


def check_temperature(value: object, *, where: str) -> float:
    """The value as a number.

    Args:
        where: How the message begins.

    Raises:
        ValueError: it is no finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidValueError(
            f"{where}: expected a finite number above 0, got {value!r}. 1 leaves confidences as the model gives them; "
            "tools/calibrate.py fits the number that suits held-out images."
        )
    return float(value)


def known_probs(scores: Float[Tensor, "B K *P"], temperature: float = 1.0) -> Float[Tensor, "B K+1 *P"]:
    """Probabilities of the K classes and, last, of none of them: p_k ∝ s_k^(1/T) with s_{K+1} = max(0, 1 - Σ_k s_k).

    s_{K+1} is the unclaimed mass, what no query claims of a pixel. The masses sum to 1 or more (more where queries
    overlap), so nothing is divided by zero. Temperature 1 normalises the masses and does nothing else. The order of the
    classes is that of the scores, up to rounding.

    Args:
        scores: `semantic_scores` or means of them, in [0, Q].
        temperature: above 1 lowers high probabilities, below 1 raises them.
    """
    scores = scores.float()
    masses = torch.cat([scores, (1 - scores.sum(1, keepdim=True)).clamp(min=0)], 1)
    powers = (masses / masses.amax(1, keepdim=True)) ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


def label_certainty(
    scores: Float[Tensor, "B K H W"], labels: Int[Tensor, "B H W"], temperature: float = 1.0
) -> Certainty:
    """The probability of each pixel's label and of none of the classes; see `known_probs`."""
    probs = known_probs(scores, temperature)
    return Certainty(probs.gather(1, labels.unsqueeze(1)).squeeze(1), probs[:, -1])


def image_certainty(scores: Float[Tensor, "K H W"], labels: Int[Tensor, "H W"], temperature: float = 1.0) -> Certainty:
    """`label_certainty` of one image."""
    found = label_certainty(scores.unsqueeze(0), labels.unsqueeze(0), temperature)
    return Certainty(found.confidence.squeeze(0), found.unknown.squeeze(0))


def certainty_maps(
    class_logits: Float[Tensor, "B Q K1"],
    mask_logits: Float[Tensor, "B Q h w"],
    labels: Int[Tensor, "B H W"],
    resizing: Resizing,
    *,
    temperature: float = 1.0,
    resize_scores: bool = False,
    max_memory_mb: int | None = None,
) -> Certainty:
    """`label_certainty` of the label maps that `results.semantic_labels` gives for the same arguments, in strips."""
    votes = class_logits.float().softmax(-1)[..., :-1].mT
    _, num_classes, num_queries = votes.shape
    confidence = torch.zeros(labels.shape, device=mask_logits.device)
    unknown = torch.ones_like(confidence)
    for rows, processed, finish in strips(
        mask_logits, resizing, values_per_pixel=4 * num_queries + 5 * num_classes, max_memory_mb=max_memory_mb
    ):
        mask_probs = processed.sigmoid() if resize_scores else finish(processed).sigmoid()
        scores = (votes @ mask_probs.flatten(2)).unflatten(2, mask_probs.shape[2:])
        found = label_certainty(finish(scores) if resize_scores else scores, labels[:, rows], temperature)
        confidence[:, rows], unknown[:, rows] = found
    return Certainty(confidence, unknown)


def temper_scores(scores: Float[Tensor, "N"], temperature: float) -> Float[Tensor, "N"]:
    """Scores of objects as probabilities: σ(logit(s) / T), in the order of the scores. Temperature 1 changes nothing.

    Computed in float64; 0 and 1 stay what they are.
    """
    if temperature == 1:
        return scores
    return (scores.double().clamp(0, 1).logit() / temperature).sigmoid().to(scores.dtype)


def fit_class_temperature(scores: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]) -> float:
    """The temperature that makes true classes of pixels most likely: it minimises the mean of -log p_y (`known_probs`).

    Raises:
        ValueError: there are no pixels.
    """
    _check_count(len(labels), "labelled pixels")
    unclaimed = np.maximum(0, 1 - scores.sum(1, keepdims=True, dtype=np.float64))
    logits = np.log(np.maximum(np.concatenate([scores, unclaimed], 1), np.finfo(np.float32).tiny))
    logits -= logits.max(1, keepdims=True)
    true = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return _minimise(lambda beta: float((np.log(np.exp(beta * logits).sum(1)) - beta * true).mean()))


def fit_score_temperature(scores: Float[np.ndarray, "N"], hits: Bool[np.ndarray, "N"]) -> float:
    """The temperature of `temper_scores` that makes hits and misses of objects most likely.

    It minimises the mean of log(1 + exp(∓ logit(s) / T)), minus for hits.

    Raises:
        ValueError: there are no objects.
    """
    _check_count(len(scores), "detected objects")
    inside = np.clip(scores.astype(np.float64), _EPSILON, 1 - _EPSILON)
    margins = np.log(inside / (1 - inside)) * np.where(hits, 1, -1)
    return _minimise(lambda beta: float(np.logaddexp(0, -beta * margins).mean()))


def _minimise(loss: Callable[[float], float]) -> float:
    """1 / β of the best β; losses are convex in β (arXiv 1706.04599, section 4.2), so one minimum is the only one."""
    span = math.log(LARGEST_TEMPERATURE)
    found = minimize_scalar(lambda log_beta: loss(math.exp(log_beta)), bounds=(-span, span), method="bounded")
    return math.exp(-found.x)


def _check_count(count: int, what: str) -> None:
    if not count:
        raise InvalidValueError(
            f"Calibration: expected {what} of held-out images, got none. Give more images, and check that their "
            "annotations name the classes of the model."
        )
