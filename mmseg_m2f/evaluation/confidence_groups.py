"""How well confidences tell what is right: calibration error and risk-coverage.

Expected calibration error: "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 2.
Risk and coverage: "Selective Classification for Deep Neural Networks", arXiv 1705.08500; the area under their curve
(AURC): "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", arXiv 1805.08206.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import digamma, logit

from mmseg_m2f.errors import InvalidValueError

NUM_BINS = 15  # of equal width, as in arXiv 1706.04599
_STEP, _NUM_STEPS = 1 / 8, 256  # of the log-odds, which reach from -16 to 16


class ConfidenceGroups(NamedTuple):
    """Answers in groups of one class and about the same confidence (N groups, each once).

    Attributes:
        labels: the class that is answered.
        bins: which of the `NUM_BINS` the confidence lies in.
        ranks: a higher one means more confidence; within an equal one the order is not known.
        counts: how many answers.
        hits: how many of them are right.
        confidences: their sum.
    """

    labels: Int[np.ndarray, "N"]
    bins: Int[np.ndarray, "N"]
    ranks: Float[np.ndarray, "N"]
    counts: Int[np.ndarray, "N"]
    hits: Int[np.ndarray, "N"]
    confidences: Float[np.ndarray, "N"]

    def of_class(self, label: int) -> "ConfidenceGroups":
        """The groups of one class."""
        own = self.labels == label
        return ConfidenceGroups(*(column[own] for column in self))


def group_answers(
    labels: Int[np.ndarray, "N"],
    confidences: Float[np.ndarray, "N"],
    hits: Bool[np.ndarray, "N"],
    *,
    exact: bool,
    where: str,
) -> ConfidenceGroups:
    """Answers with their confidence in [0, 1] as groups.

    Args:
        exact: only equal confidences have equal ranks. Otherwise the ranks are steps of 1/8 of the log-odds, at most
            256 for each class, so that the pixels of an image fit into few groups.
        where: how error messages begin.

    Raises:
        ValueError: a confidence is no number in [0, 1].
    """
    confidences = confidences.astype(np.float64)
    if not ((confidences >= 0) & (confidences <= 1)).all():
        wrong = confidences[~((confidences >= 0) & (confidences <= 1))][0]
        raise InvalidValueError(
            f"{where}: expected confidences in [0, 1], got {wrong}. Check that the weights are finite, and that the "
            "model writes probabilities."
        )
    bins = np.clip(np.ceil(confidences * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    if exact:
        ranks = confidences
    else:
        odds = np.clip(logit(confidences), -_NUM_STEPS / 2 * _STEP, _NUM_STEPS / 2 * _STEP - _STEP)
        ranks = np.floor(odds / _STEP)
    keys, group = np.unique(np.stack([labels, bins, ranks]), axis=1, return_inverse=True)
    group = group.reshape(-1)
    counts, right, summed = (np.bincount(group, x, minlength=keys.shape[1]) for x in (None, hits, confidences))
    return ConfidenceGroups(
        labels=keys[0].astype(np.int64),
        bins=keys[1].astype(np.int64),
        ranks=keys[2],
        counts=counts.astype(np.int64),
        hits=right.astype(np.int64),
        confidences=summed,
    )


def join_groups(groups: list[tuple[np.ndarray, ...]]) -> ConfidenceGroups:
    """The groups of all images; equal ones stay apart, which changes no figure."""
    return ConfidenceGroups(*(np.concatenate(column) for column in zip(*groups, strict=True)))


def expected_calibration_error(groups: ConfidenceGroups) -> float:
    """ECE = Σ_b |Σ confidences of bin b - hits of bin b| / N over 15 bins of equal width; NaN for nothing."""
    gaps = np.bincount(groups.bins, groups.confidences - groups.hits, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / groups.counts.sum()) if groups.counts.sum() else float("nan")


def area_under_risk_coverage(groups: ConfidenceGroups) -> float:
    """AURC: the mean over n = 1 … N of the share of wrong answers among the n most confident, in [0, 1].

    0 where nothing is wrong; the share of wrong answers where confidences tell nothing. Answers of equal rank count in
    any order, on average. NaN for nothing.
    """
    ranks, group = np.unique(-groups.ranks, return_inverse=True)  # the most confident first
    counts = np.bincount(group.reshape(-1), groups.counts, minlength=len(ranks))
    wrong = np.bincount(group.reshape(-1), groups.counts - groups.hits, minlength=len(ranks))
    if not counts.sum():
        return float("nan")
    before, wrong_before = counts.cumsum() - counts, wrong.cumsum() - wrong
    # A group with a share r of wrong answers adds Σ_i (E + (i - n) r) / i over its i = n + 1 … n + count.
    share = wrong / counts
    harmonic = digamma(before + counts + 1) - digamma(before + 1)
    return float((wrong + (wrong_before - before * share) * harmonic).sum() / counts.sum())


def answer_figures(groups: ConfidenceGroups) -> dict[str, float]:
    """`ECE`, `AURC`, and the means `accuracy` and `confidence`, whose difference tells over- from underconfidence."""
    total = groups.counts.sum()
    return dict(
        ECE=expected_calibration_error(groups),
        AURC=area_under_risk_coverage(groups),
        accuracy=float(groups.hits.sum() / total),
        confidence=float(groups.confidences.sum() / total),
    )
