"""Objects of two programs in one order: those of nearly equal scores may change places, which is no difference."""

from collections.abc import Mapping

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_APART = 1e6


def align_objects(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, score_tolerance: float
) -> dict[str, Tensor]:
    """The found outputs with the objects of each image in the order of the expected ones.

    An object takes the place of an expected one with its class and, within the tolerance, its score; among several the
    one whose box and mask are nearest. Objects without such a place fill the places that are left over.

    Args:
        expected: Outputs of a full file by name; without objects, or with objects of another shape, nothing moves.
        found: The same outputs of another program.
    """
    names = [name for name in expected if name.startswith("object_")]
    if not names or any(name not in found or found[name].shape != expected[name].shape for name in names):
        return dict(found)
    aligned = {name: found[name].clone() for name in names}
    for image in range(len(expected["object_scores"])):
        wanted, got = ({name: outputs[name][image] for name in names} for outputs in (expected, found))
        order = _order(wanted, got, score_tolerance)
        for name in names:
            aligned[name][image] = got[name][order]
    return {**found, **aligned}


def _order(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor], tolerance: float) -> Tensor:
    """For each expected object the number of the found one that takes its place."""
    scores = (wanted["object_scores"][:, None] - got["object_scores"]).abs()
    alike = (wanted["object_labels"][:, None] == got["object_labels"]) & (scores <= tolerance)
    cost = torch.where(alike, 0.0, _APART).double()
    if "object_boxes" in wanted:
        cost += torch.cdist(wanted["object_boxes"].double(), got["object_boxes"].double(), p=1)
    if "object_masks" in wanted:
        ours, theirs = (outputs["object_masks"].flatten(1).float() for outputs in (wanted, got))
        cost += (ours.sum(1)[:, None] + theirs.sum(1) - 2 * ours @ theirs.T) / max(ours.shape[1], 1)
    return torch.from_numpy(linear_sum_assignment(cost.nan_to_num(_APART, _APART, _APART).numpy())[1])
