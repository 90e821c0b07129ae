"""Reading targets from data samples and writing predictions into them.

Works on the fields that mmseg's and mmdet's samples share, and imports neither library.
"""

from jaxtyping import Float, Int
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from mmseg_m2f.core.targets import segments_of_label_map
from mmseg_m2f.structures import MaskTarget


def read_target(sample: BaseDataElement, num_classes: int, *, ignore_index: int = 255) -> MaskTarget:
    """The semantic segments of a sample: one per class that its `gt_sem_seg` holds.

    Raises:
        ValueError: a label is neither a class nor the ignore index; names the file and the label.
    """
    labels, segment_map = segments_of_label_map(sample.gt_sem_seg.data.squeeze(0).long(), ignore_index)
    # The labels are few and the host already waited for their number.
    wrong = [label for label in labels.tolist() if not 0 <= label < num_classes]
    if wrong:
        file = sample.metainfo.get("seg_map_path") or sample_name(sample)
        raise ValueError(
            f"{file}: expected labels 0…{num_classes - 1} or {ignore_index} (ignored), got {wrong}. "
            f"Fix the file, map labels with the dataset's label_map or reduce_zero_label, or set "
            f"decode_head.num_classes."
        )
    return MaskTarget(labels, segment_map, sample_name(sample))


def sample_name(sample: BaseDataElement) -> str:
    """What to call a sample in a message: its image's path, if it has one."""
    return str(sample.metainfo.get("img_path", "an unnamed image"))


def write_semantic(
    sample: BaseDataElement, labels: Int[Tensor, "H W"], scores: Float[Tensor, "K H W"] | None = None
) -> None:
    """Put a label map, and if given the class scores (in [0, Q], not logits), into mmseg's fields."""
    sample.set_data({"pred_sem_seg": PixelData(data=labels.unsqueeze(0))})
    if scores is not None:
        sample.set_data({"seg_logits": PixelData(data=scores)})
