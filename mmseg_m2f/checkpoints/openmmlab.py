"""Names of mmdet's and mmseg's models: as tables for converting, and applied where our models load a checkpoint."""

from torch import Tensor, nn

from mmseg_m2f.checkpoints.key_map import KeyMap, Row, within

_PIXEL = "decode_head.pixel_decoder."
_QUERY = "decode_head.query_decoder."
#: What our query decoders hold; in the heads of mmdet and mmseg these lie in the head itself.
_QUERY_PARTS = (
    "query_feat.",
    "query_embed.",
    "level_embed.",
    "decoder_input_proj.",
    "decoder_input_projs.",
    "transformer_decoder.",
    "cls_embed.",
    "mask_embed.",
)


def _before_rewrite(first: str, second: str) -> tuple[tuple[str, str], ...]:
    """What layers were called before mmdet's DETR models were rewritten (2.x, first candidates of 3.0).

    Args:
        first: what a decoder layer's `attentions.0` is; they were counted in the order of work.
        second: what its `attentions.1` is.
    """
    layer = r"^(?!backbone\.)(.*{}\.layers\.\d+)\."
    return (
        (layer.format("decoder") + r"attentions\.0\.", rf"\1.{first}."),
        (layer.format("decoder") + r"attentions\.1\.", rf"\1.{second}."),
        (layer.format("encoder") + r"attentions\.0\.", r"\1.self_attn."),
        (layer.format("(?:en|de)coder") + r"ffns\.0\.", r"\1.ffn."),
    )


_MASK2FORMER_BEFORE = _before_rewrite("cross_attn", "self_attn")
_DETR_BEFORE = _before_rewrite("self_attn", "cross_attn")


def _head_map(model: str, head: str, older: tuple[tuple[str, str], ...]) -> KeyMap:
    """A model with all its parts in one head."""
    return KeyMap(
        f"a {model} with nothing beside backbone, pixel decoder and query decoder",
        rows=(
            Row("backbone.**", "backbone.**"),
            Row(f"{_PIXEL}**", f"{head}pixel_decoder.**"),
            *(Row(f"{_QUERY}{part}**", f"{head}{part}**") for part in _QUERY_PARTS),
        ),
        older=older,
    )


OURS = KeyMap(
    "backbone, pixel decoder and query decoder alone",
    rows=tuple(Row(f"{part}**", f"{part}**") for part in ("backbone.", _PIXEL, _QUERY)),
)
MMDET_MASK2FORMER = _head_map("Mask2Former", "panoptic_head.", _MASK2FORMER_BEFORE)
MMDET_MASKFORMER = _head_map("MaskFormer", "panoptic_head.", _DETR_BEFORE)
MMSEG_MASK2FORMER = _head_map("Mask2Former", "decode_head.", _MASK2FORMER_BEFORE)
MMSEG_MASKFORMER = _head_map("MaskFormer", "decode_head.", _DETR_BEFORE)
MMDET_DETR = KeyMap(
    "a DETR without mask head",
    rows=(
        Row("backbone.**", "backbone.**"),
        *within(_PIXEL, "", {"input_proj.*": "neck.convs.0.conv.*", "encoder.layers.**": "encoder.layers.**"}),
        *within(
            _QUERY,
            "",
            {
                "query_embed.weight": "query_embedding.weight",
                "transformer_decoder.**": "decoder.**",
                "cls_embed.*": "bbox_head.fc_cls.*",
                "box_embed.0.*": "bbox_head.reg_ffn.layers.0.0.*",
                "box_embed.2.*": "bbox_head.reg_ffn.layers.1.*",
                "box_embed.4.*": "bbox_head.fc_reg.*",
            },
        ),
    ),
    older=(
        (r"^bbox_head\.transformer\.", ""),
        (r"^bbox_head\.input_proj\.", "neck.convs.0.conv."),
        (r"^bbox_head\.query_embedding\.", "query_embedding."),
        *_DETR_BEFORE,
    ),
)


def adopt_head_keys(_: nn.Module, state_dict: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Rename, in place, the keys of mmseg's heads to ours; a `load_state_dict` pre-hook of `MaskHead`."""
    is_mask2former = f"{prefix}query_feat.weight" in state_dict
    _rename(state_dict, prefix, MMSEG_MASK2FORMER if is_mask2former else MMSEG_MASKFORMER, base="decode_head.")


def adopt_detector_keys(_: nn.Module, state_dict: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Rename, in place, the keys of mmdet's detectors to ours; a pre-hook of the shells."""
    marks = {
        "panoptic_head.query_feat.": MMDET_MASK2FORMER,
        "panoptic_head.": MMDET_MASKFORMER,
        "bbox_head.reg_ffn.": MMDET_DETR,
    }
    for mark, key_map in marks.items():
        if any(key.startswith(prefix + mark) for key in state_dict):
            _rename(state_dict, prefix, key_map)
            return


def _rename(state_dict: dict[str, Tensor], prefix: str, key_map: KeyMap, *, base: str = "") -> None:
    """Give the keys behind `prefix` our names; the map knows them as `base` and what follows the prefix."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        new = key_map.our_name(key_map.modern_name(base + key[len(prefix) :]))
        if new is not None:
            state_dict[prefix + new[len(base) :]] = state_dict.pop(key)
