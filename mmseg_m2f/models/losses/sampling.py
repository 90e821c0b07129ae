"""Where masks are compared, in matching and in the losses."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.points import pick_uncertain, sample_points
from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.core.targets import is_known, read_paired_segments, read_segments
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import VOID, MaskReadings, Prediction


@TASK_UTILS.register_module()
class PointSampling:
    """Random points, in the losses mostly uncertain ones (PointRend, arXiv 1912.08193, 3.1; 2112.01527, 3.3).

    Matching reads uniform points, one draw per layer and image shared by all queries and segments. The losses read
    points of their own for each pair: of `num_points`, the share `importance` are the most uncertain of
    `oversample * num_points` uniform candidates that are not void, the others are uniform.
    """

    def __init__(self, num_points: int = 12544, *, oversample: float = 3.0, importance: float = 0.75) -> None:
        self.num_points = num_points
        self.num_candidates = int(num_points * oversample)
        self.num_uncertain = int(num_points * importance)

    def for_matching(
        self, prediction: Prediction, segment_maps: Int[Tensor, "B S H W"], num_segments: int
    ) -> MaskReadings:
        logits = prediction.mask_logits()
        # One draw per image, in the order of the images: the random stream equals mmdet's.
        points = torch.cat([torch.rand(1, self.num_points, 2, device=logits.device) for _ in logits])
        points = points.to(logits.dtype)
        masks, known = read_segments(segment_maps, points, num_segments)
        return MaskReadings(sample_points(logits, points), masks, known)

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        segment_maps: Int[Tensor, "B S H W"],
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        maps = logits.unsqueeze(1)
        with torch.no_grad():
            candidates = self._draw(maps, self.num_candidates)
            usable = is_known(segment_maps, candidates, images)
            candidate_logits = sample_points(maps, candidates).squeeze(1)
            uncertain = pick_uncertain(candidate_logits, candidates, self.num_uncertain, usable=usable)
            points = torch.cat([uncertain, self._draw(maps, self.num_points - self.num_uncertain)], 1)
            masks, known = read_paired_segments(segment_maps, points, images, segments)
        return MaskReadings(sample_points(maps, points).squeeze(1), masks, known)

    @staticmethod
    def _draw(like: Float[Tensor, "N 1 _ _"], count: int) -> Float[Tensor, "N P 2"]:
        return torch.rand(len(like), count, 2, device=like.device).to(like.dtype)


@TASK_UTILS.register_module()
class FullMaskSampling:
    """Every pixel (arXiv 2107.06278, section 3.2).

    Matching compares at the resolution of the mask logits, where the segments are reduced to the nearest pixel; the
    losses compare on the full canvas, to which the logits are enlarged bilinearly.
    """

    def for_matching(
        self, prediction: Prediction, segment_maps: Int[Tensor, "B S H W"], num_segments: int
    ) -> MaskReadings:
        logits = prediction.mask_logits()
        # Segment indices are small integers, which float32 holds exactly.
        ids = F.interpolate(segment_maps.float(), logits.shape[-2:], mode="nearest").long().flatten(2)  # B S P
        masks = (ids.unsqueeze(1) == torch.arange(num_segments, device=ids.device)[:, None, None]).any(2)
        return MaskReadings(logits.flatten(2), masks.to(logits.dtype), (ids[:, 0] != VOID).to(logits.dtype))

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        segment_maps: Int[Tensor, "B S H W"],
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        ids = segment_maps.flatten(2)[images]  # N S P
        size = (segment_maps.shape[-2], segment_maps.shape[-1])
        enlarged = resize_maps(logits.unsqueeze(1), size).flatten(1)
        masks = (ids == segments[:, None, None]).any(1)
        return MaskReadings(enlarged, masks.to(logits.dtype), (ids[:, 0] != VOID).to(logits.dtype))
