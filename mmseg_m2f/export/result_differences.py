"""Results of a full file beside those of `predict`: label maps, panoptic maps, objects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import UInt8
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor, nn

from mmseg_m2f.engine.trained_model import TrainedModel, test_transforms
from mmseg_m2f.export.export_gate import LABEL_TOLERANCE, ExportRefusedError
from mmseg_m2f.runtime import ExportedModel


class Differences(NamedTuple):
    """How results of a full file differ from the model's: counts of pixels and objects, largest difference of scores.

    `objects` counts those of the model that the file lacks, or whose box or mask differs, and those that only the file
    has.
    """

    num_images: int = 0
    labels: int = 0
    panoptic: int = 0
    num_objects: int = 0
    objects: int = 0
    scores: float = 0.0

    def plus(self, other: "Differences") -> "Differences":
        """Of the images of both."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in self._fields if name != "scores"}
        return Differences(**counts, scores=max(self.scores, other.scores))


@torch.no_grad()
def compare_full(file: ExportedModel, trained: TrainedModel, cfg: Config, images: Sequence[NDArray]) -> Differences:
    """Results of a full file beside those of the model, for images H W 3 as read, at the size of the test pipeline."""
    _, transforms = test_transforms(cfg, trained.dataset)
    found = Differences()
    for image in images:
        size = image.shape[:2]
        packed = transforms(dict(img=image, img_shape=size, ori_shape=size, seg_fields=[]))
        packed["data_samples"].set_metainfo(dict(ori_shape=tuple(packed["inputs"].shape[1:])))  # files do not resize
        sample = cast(Any, trained.model).test_step(pseudo_collate([packed]))[0]
        results = file(packed["inputs"].numpy()[None])
        found = found.plus(compare_image({name: value[0] for name, value in results.items()}, sample))
    return found


@torch.no_grad()
def check_results(
    model: nn.Module, results: Callable[[Tensor], Mapping[str, Tensor]], images: Sequence[UInt8[Tensor, "C H W"]]
) -> None:
    """Refuse a graph of finished results that are not those of `predict`.

    Args:
        model: In evaluation mode.
        results: The graph, before it is written; see `Results`.
        images: As read; each is predicted alone and without resizing.

    Raises:
        ValueError: Labels, panoptic ids or objects differ.
    """
    for image in images:
        size = tuple(image.shape[1:])
        sample = BaseDataElement(metainfo=dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0)))
        wanted = cast(Any, model).test_step(dict(inputs=[image], data_samples=[sample]))[0]
        found = compare_image({name: value[0].numpy() for name, value in results(image[None]).items()}, wanted)
        pixels = LABEL_TOLERANCE * size[0] * size[1]
        if max(found.labels, found.panoptic) > pixels or found.objects > 0.01 * found.num_objects:
            raise ExportRefusedError(
                f"--output full: expected the results of predict, got others for an image of {size[0]} x {size[1]}: "
                f"{found.labels} labels, {found.panoptic} panoptic ids and {found.objects} objects differ. The file "
                "was not written. Export with --output logits, which leaves this step to the package."
            )


def compare_image(results: Mapping[str, NDArray], sample: Any) -> Differences:  # noqa: ANN401
    """Outputs of a full file for one image beside the data sample that `predict` filled."""
    labels = panoptic = 0
    if "labels" in results:
        semantic = sample.pred_sem_seg
        maps = semantic.sem_seg if "sem_seg" in semantic else semantic.data
        labels = int((maps[0].numpy() != results["labels"]).sum())
    if "panoptic" in results:
        panoptic = int((sample.pred_panoptic_seg.sem_seg[0].numpy() != results["panoptic"]).sum())
    if "object_scores" not in results:
        return Differences(1, labels, panoptic)
    wanted = sample.pred_instances
    own = [number for number in range(len(wanted)) if wanted.scores[number] > 0]
    free = {number for number, score in enumerate(results["object_scores"]) if score > 0}
    missing, worst = 0, 0.0
    for number in own:
        same = [other for other in free if _is_same_object(results, other, wanted, number)]
        if not same:
            missing += 1
            continue
        score = float(wanted.scores[number])
        nearest = min(same, key=lambda other: abs(float(results["object_scores"][other]) - score))
        worst = max(worst, abs(float(results["object_scores"][nearest]) - score))
        free.remove(nearest)
    return Differences(1, labels, panoptic, len(own), missing + len(free), worst)


def _is_same_object(results: Mapping[str, NDArray], other: int, wanted: Any, number: int) -> bool:  # noqa: ANN401
    if results["object_labels"][other] != int(wanted.labels[number]):
        return False
    if not np.array_equal(results["object_boxes"][other], wanted.bboxes[number].numpy()):
        return False
    masks = results.get("object_masks")
    return masks is None or np.array_equal(masks[other], np.asarray(wanted.masks[number]).astype(bool))
