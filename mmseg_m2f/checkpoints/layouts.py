"""Converting weights between the layouts in which Mask2Former and its relatives are published."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmseg_m2f.checkpoints import detectron2, detr_names, eomt, huggingface_names, mask_dino, openmmlab, pmt
from mmseg_m2f.checkpoints.class_order import ClassOrder, is_class_layer, reorder_classes, unused_rows
from mmseg_m2f.checkpoints.key_map import KeyMap
from mmseg_m2f.errors import InvalidValueError

Layout = Literal["ours", "mmdet", "mmseg", "detectron2", "torchhub", "lightning", "transformers", "transformers-timm"]
Model = Literal["mask2former", "maskformer", "detr", "detr-masks", "eomt", "pmt", "mask-dino", "mask-dino-coarse-first"]

KEY_MAPS: dict[Layout, dict[Model, KeyMap]] = {
    "ours": {
        "mask2former": openmmlab.OURS,
        "maskformer": openmmlab.OURS,
        "detr": openmmlab.OURS,
        "detr-masks": openmmlab.OURS,
        "eomt": openmmlab.OURS,
        "pmt": pmt.OURS,
        "mask-dino": openmmlab.OURS,
        "mask-dino-coarse-first": openmmlab.OURS,
    },
    "mmdet": {
        "mask2former": openmmlab.MMDET_MASK2FORMER,
        "maskformer": openmmlab.MMDET_MASKFORMER,
        "detr": openmmlab.MMDET_DETR,
    },
    "mmseg": {"mask2former": openmmlab.MMSEG_MASK2FORMER, "maskformer": openmmlab.MMSEG_MASKFORMER},
    "detectron2": {
        "mask2former": detectron2.MASK2FORMER,
        "maskformer": detectron2.MASKFORMER,
        "mask-dino": mask_dino.FINE_FIRST,
        "mask-dino-coarse-first": mask_dino.COARSE_FIRST,
    },
    "torchhub": {"detr": detr_names.TORCHHUB, "detr-masks": detr_names.TORCHHUB_MASKS},
    "lightning": {"eomt": eomt.LIGHTNING, "pmt": pmt.LIGHTNING},
    "transformers": {
        "mask2former": huggingface_names.MASK2FORMER,
        "maskformer": huggingface_names.MASKFORMER,
        "detr": detr_names.HUGGINGFACE,
        "detr-masks": detr_names.HUGGINGFACE_MASKS,
        "eomt": eomt.HUGGINGFACE,
    },
    "transformers-timm": {"detr": detr_names.HUGGINGFACE_TIMM, "detr-masks": detr_names.HUGGINGFACE_TIMM_MASKS},
}
#: Layouts whose class layers have the rows of OpenMMLab's data sets; the others have the authors'.
_OPENMMLAB_CLASSES: tuple[Layout, ...] = ("ours", "mmdet", "mmseg")
_HUGGINGFACE_BACKBONES = tuple(
    f"{masks}model.backbone.{files}model." for masks in ("", "detr.") for files in ("conv_encoder.", "")
)
#: A file of a layout has a name that begins with one of these, and none of another layout.
_LAYOUT_MARKS: dict[Layout, tuple[str, ...]] = {
    "ours": ("decode_head.query_decoder.",),
    "mmdet": ("panoptic_head.", "bbox_head.reg_ffn."),
    "mmseg": ("decode_head.query_embed.", "decode_head.query_feat."),
    "detectron2": ("sem_seg_head.",),
    "torchhub": ("transformer.", "detr.transformer.", "detr.detr.transformer."),
    "lightning": ("network.",),
    "transformers": (
        "model.pixel_level_module.",
        "upscale_block.",
        *(f"{prefix}embedder." for prefix in _HUGGINGFACE_BACKBONES),
    ),
    "transformers-timm": tuple(f"{prefix}conv1." for prefix in _HUGGINGFACE_BACKBONES),
}
#: The first model that finds one of these inside a name is the file's.
_MODEL_MARKS: dict[Model, tuple[str, ...]] = {
    "mask-dino": ("predictor.enc_output.", "query_decoder.selection."),
    "mask-dino-coarse-first": ("predictor.decoder.ref_point_head.", "query_decoder.query_boxes."),
    "pmt": ("lateral_projections.", "neck.laterals."),
    "eomt": ("upscale.", "upscale_block."),
    "mask2former": ("query_feat.", "static_query.", "queries_features."),
    "detr-masks": ("mask_head.",),
    "detr": ("box_embed.", "bbox_predictor.", "reg_ffn."),
    "maskformer": ("mask_embed.", "mask_embedder."),
}


class Content(NamedTuple):
    """What a file of weights holds, and how it names them."""

    layout: Layout
    model: Model


class Conversion(NamedTuple):
    """Converted weights, and the names of those that the other layout does without."""

    weights: dict[str, Tensor]
    dropped: list[str]


def detect_content(state: Mapping[str, Tensor]) -> Content:
    """Which layout the names of the weights follow, and whose weights they are.

    Raises:
        ValueError: no layout, several at once, or none of the models.
    """
    found: list[Layout] = [
        layout for layout, marks in _LAYOUT_MARKS.items() if any(name.startswith(marks) for name in state)
    ]
    if len(found) != 1:
        expected = ", ".join(f"{marks[0]}* ({layout})" for layout, marks in _LAYOUT_MARKS.items())
        raise InvalidValueError(
            f"The weights follow {' and '.join(found) or 'no layout'} that is known: {len(state)} names, such as "
            f"{', '.join(list(state)[:3]) or 'none'}. Expected exactly one of {expected}. Give the file of a whole "
            "Mask2Former, MaskFormer, Mask DINO, DETR or EoMT."
        )
    for model, marks in _MODEL_MARKS.items():
        if model in KEY_MAPS[found[0]] and any(mark in name for name in state for mark in marks):
            if found[0] == "detectron2" and model.startswith("mask-dino"):  # the order of levels shows in shapes alone
                model = "mask-dino" if mask_dino.is_fine_first(state) else "mask-dino-coarse-first"
            return Content(found[0], model)
    raise InvalidValueError(
        f"The weights have the layout of {found[0]}, but no queries of {', '.join(KEY_MAPS[found[0]])} are among them. "
        "Give the file of a whole model."
    )


def convert(
    state: Mapping[str, Tensor], *, to: Layout, class_order: ClassOrder | None = None, model: Model | None = None
) -> Conversion:
    """The weights under the names of another layout, tensors packed and reordered as it has them.

    Converting back gives the same weights bit for bit, under the newest names of their layout, less the dropped.

    Args:
        class_order: a set of classes that OpenMMLab orders otherwise than the authors, whose order Hugging Face
            keeps; the class layer's rows are then permuted, or those taken that OpenMMLab has. Weights alone do not
            tell which order they have.
        model: whose weights they are, where our names fit two; by default `detect_content` decides.

    Raises:
        KeyError: weights without counterpart; all are listed.
        ValueError: the layout of `state` is not known, `to` has no such model, or `class_order` does not fit.
    """
    source, found = detect_content(state)
    model = model or found
    key_map, target = KEY_MAPS[source][model], _target_map(to, model)
    weights, dropped = key_map.modern(state)
    ours = key_map.to_ours(weights)
    dropped += key_map.from_ours({name: value for name, value in ours.items() if target.leaves_out(name)})
    if class_order is not None:
        to_openmmlab = to in _OPENMMLAB_CLASSES
        if (source in _OPENMMLAB_CLASSES) == to_openmmlab:
            raise InvalidValueError(
                f"class_order is {class_order}, but {source} and {to} order these classes alike. Expected one of "
                f"{', '.join(_OPENMMLAB_CLASSES)} on one side only; leave out the permutation."
            )
        if unused := unused_rows(class_order):
            dropped += [f"{name}, rows {unused}" for name in key_map.from_ours(_class_layer(ours))]
        ours = reorder_classes(ours, class_order, to_openmmlab=to_openmmlab)
    return Conversion({**target.from_ours(ours), **target.constants}, dropped)


def check_round_trip(
    state: Mapping[str, Tensor], converted: Mapping[str, Tensor], *, class_order: ClassOrder | None = None
) -> None:
    """Compare, bit for bit, what converting back gives with what was there.

    What the other layout has no place for is left out of the comparison, and so are the rows of the class layer that
    `class_order` drops; the rows it keeps are compared.

    Raises:
        ValueError: weights that differ; they are named.
    """
    layout, model = detect_content(state)
    key_map, target = KEY_MAPS[layout][model], _target_map(detect_content(converted).layout, model)
    expected, _ = key_map.modern(state)
    ours = key_map.to_ours(expected)
    for name in key_map.from_ours({name: value for name, value in ours.items() if target.leaves_out(name)}):
        del expected[name]
    if class_order is not None and unused_rows(class_order):
        expected |= key_map.from_ours(reorder_classes(_class_layer(ours), class_order, to_openmmlab=True))
        class_order = None
    expected |= key_map.constants
    back = convert(converted, to=layout, class_order=class_order, model=model).weights
    wrong = sorted(expected.keys() ^ back.keys())
    wrong += [name for name in expected if name in back and not _same_bits(expected[name], back[name])]
    if wrong:
        raise InvalidValueError(
            f"Converting back changes {len(wrong)} of {len(expected)} weights: {', '.join(wrong[:10])}. Expected the "
            "same bits; the file may hold weights of a variant whose shapes these layouts do not share."
        )


def _target_map(to: Layout, model: Model) -> KeyMap:
    if model not in KEY_MAPS[to]:
        known = ", ".join(layout for layout in KEY_MAPS if model in KEY_MAPS[layout])
        raise InvalidValueError(
            f"The weights are those of a {model}, for which {to} has no names. Expected one of {known}."
        )
    return KEY_MAPS[to][model]


def _class_layer(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if is_class_layer(name)}


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality that also takes NaN for equal to itself, and tells 0 from -0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
