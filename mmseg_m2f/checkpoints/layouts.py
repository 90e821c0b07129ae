"""Converting weights between the layouts in which Mask2Former is published."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmseg_m2f.checkpoints.class_order import ClassOrder, reorder_classes
from mmseg_m2f.checkpoints.detectron2 import DETECTRON2
from mmseg_m2f.checkpoints.huggingface import HUGGINGFACE
from mmseg_m2f.checkpoints.key_map import KeyMap, Row

Layout = Literal["ours", "mmdet", "mmseg", "detectron2", "transformers"]

_QUERY_PARTS = (
    "query_feat.**",
    "query_embed.**",
    "level_embed.**",
    "decoder_input_projs.**",
    "transformer_decoder.**",
    "cls_embed.**",
    "mask_embed.**",
)
#: What mmdet's heads were called inside before its DETR models were rewritten (2.x, first candidates of 3.0).
_BEFORE_REWRITE = (
    (r"(\.transformer_decoder\.layers\.\d+)\.attentions\.0\.attn\.", r"\1.cross_attn.attn."),
    (r"(\.transformer_decoder\.layers\.\d+)\.attentions\.1\.attn\.", r"\1.self_attn.attn."),
    (r"(\.pixel_decoder\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (r"(\.(?:transformer_decoder|pixel_decoder\.encoder)\.layers\.\d+)\.ffns\.0\.", r"\1.ffn."),
)


def _openmmlab(head: str, query_decoder: str) -> KeyMap:
    """OpenMMLab's names under another name of the head; any backbone."""
    return KeyMap(
        rows=(
            Row("backbone.**", "backbone.**"),
            Row("decode_head.pixel_decoder.**", f"{head}pixel_decoder.**"),
            *(Row(f"decode_head.query_decoder.{part}", query_decoder + part) for part in _QUERY_PARTS),
        ),
        older=_BEFORE_REWRITE,
    )


KEY_MAPS: dict[Layout, KeyMap] = {
    "ours": _openmmlab("decode_head.", "decode_head.query_decoder."),
    "mmdet": _openmmlab("panoptic_head.", "panoptic_head."),
    "mmseg": _openmmlab("decode_head.", "decode_head."),
    "detectron2": DETECTRON2,
    "transformers": HUGGINGFACE,
}
#: Layouts whose files have the authors' order of classes.
_AUTHORS_CLASSES: tuple[Layout, ...] = ("detectron2", "transformers")
#: A layout holds a name that starts so. `decode_head.` is also mmseg's, which has its queries there.
_MARKS: dict[Layout, str] = {
    "ours": "decode_head.query_decoder.",
    "mmdet": "panoptic_head.",
    "mmseg": "decode_head.query_feat.",
    "detectron2": "sem_seg_head.",
    "transformers": "model.pixel_level_module.",
}


class Conversion(NamedTuple):
    """Converted weights, and the names of those that the other layout does without."""

    weights: dict[str, Tensor]
    dropped: list[str]


def detect_layout(state: Mapping[str, Tensor]) -> Layout:
    """Which layout the names of the weights follow.

    Raises:
        ValueError: none of them, or several at once.
    """
    found: list[Layout] = [layout for layout, mark in _MARKS.items() if any(name.startswith(mark) for name in state)]
    if len(found) != 1:
        expected = ", ".join(f"{mark}* ({layout})" for layout, mark in _MARKS.items())
        raise ValueError(
            f"The weights follow {' and '.join(found) or 'no layout'} that is known: {len(state)} names, such as "
            f"{', '.join(list(state)[:3]) or 'none'}. Expected exactly one of {expected}. Give the file of a whole "
            "Mask2Former."
        )
    return found[0]


def convert(state: Mapping[str, Tensor], *, to: Layout, class_order: ClassOrder | None = None) -> Conversion:
    """The weights under the names of another layout, tensors packed and reordered as it has them.

    Converting back gives the same weights bit for bit, under the newest names of their layout, less the dropped.

    Args:
        class_order: a set of classes that OpenMMLab orders otherwise than the authors, whose order Hugging Face
            keeps; the class layer's rows are then permuted. Weights alone do not tell which order they have.

    Raises:
        KeyError: weights without counterpart; all are listed.
        ValueError: the layout of `state` is not known, or `class_order` does not fit.
    """
    source = detect_layout(state)
    weights, dropped = KEY_MAPS[source].modern(state)
    ours = KEY_MAPS[source].to_ours(weights)
    if class_order is not None:
        if (source in _AUTHORS_CLASSES) == (to in _AUTHORS_CLASSES):
            raise ValueError(
                f"class_order is {class_order}, but {source} and {to} order these classes alike. Expected one of "
                f"{' and '.join(_AUTHORS_CLASSES)} on one side only; leave out the permutation."
            )
        ours = reorder_classes(ours, class_order, to_things_first=source in _AUTHORS_CLASSES)
    return Conversion(KEY_MAPS[to].from_ours(ours), dropped)


def check_round_trip(
    state: Mapping[str, Tensor], converted: Mapping[str, Tensor], *, class_order: ClassOrder | None = None
) -> None:
    """Compare, bit for bit, what converting back gives with what was there.

    Raises:
        ValueError: weights that differ; they are named.
    """
    layout = detect_layout(state)
    expected, _ = KEY_MAPS[layout].modern(state)
    back = convert(converted, to=layout, class_order=class_order).weights
    wrong = sorted(expected.keys() ^ back.keys())
    wrong += [name for name in expected if name in back and not _same_bits(expected[name], back[name])]
    if wrong:
        raise ValueError(
            f"Converting back changes {len(wrong)} of {len(expected)} weights: {', '.join(wrong[:10])}. Expected the "
            "same bits; the file may hold weights of a variant whose shapes these layouts do not share."
        )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality that also takes NaN for equal to itself, and tells 0 from -0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
