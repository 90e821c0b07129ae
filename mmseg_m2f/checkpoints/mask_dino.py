"""Names of the authors' releases of Mask DINO (arXiv 2206.02777), on detectron2, and the order of their levels.

Two kinds of files exist. In those of instance and panoptic models the encoder's levels stand fine to coarse and the
decoder's coarse to fine; in those of semantic models it is the other way round. Ours stand coarse to fine. The order is
changed for models that read 4 points of each level and head, as all published ones; shapes do not tell their number.
"""

import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from mmseg_m2f.checkpoints.backbones import detectron2_resnet, detectron2_swin
from mmseg_m2f.checkpoints.detectron2 import PIXEL_DECODERS
from mmseg_m2f.checkpoints.key_map import KeyMap, Row, within
from mmseg_m2f.errors import InvalidValueError

_PIXEL = "decode_head.pixel_decoder."
_QUERY = "decode_head.query_decoder."
_LAYER = f"{_QUERY}transformer_decoder.layers.{{j}}."
_THEIR_PIXEL = "sem_seg_head.pixel_decoder."
_THEIR_QUERY = "sem_seg_head.predictor."
_THEIR_LAYER = f"{_THEIR_QUERY}decoder.layers.{{j}}."
_THEIR_INPUT = f"{_THEIR_PIXEL}input_proj."
_THEIR_EXTRA = f"{_THEIR_PIXEL}extra_proj."  # no name of the authors', who number these levels on

_BY_LEVEL = r"(?:sampling_offsets|attention_weights)\.(?:weight|bias)"
_ENCODER = re.compile(rf"{re.escape(_THEIR_PIXEL)}transformer\.encoder\.layers\.\d+\.self_attn\.{_BY_LEVEL}")
_DECODER = re.compile(rf"{re.escape(_THEIR_QUERY)}decoder\.layers\.\d+\.cross_attn\.{_BY_LEVEL}")
_INPUT = re.compile(rf"{re.escape(_THEIR_INPUT)}(\d+)\.(.+)")
_EXTRA = re.compile(rf"{re.escape(_THEIR_EXTRA)}(\d+)\.(.+)")
_NUM_POINTS = 4  # of each level and head, in all files; their number cannot be read from the shapes


def is_fine_first(state: Mapping[str, Tensor]) -> bool:
    """Whether the levels of their encoder stand fine to coarse: the input convolutions get wider and wider."""
    widths = {level: kernel.shape[1] for level, kernel in _kernels(state).items() if kernel.shape[-1] == 1}
    in_order = [widths[level] for level in sorted(widths)]
    return in_order == sorted(in_order)


def _arrange(state: Mapping[str, Tensor], *, fine_first: bool) -> dict[str, Tensor]:
    """Their weights with levels coarse to fine, and names of their own for the input convolutions of extra levels."""
    num_maps = _num_maps(state)
    arranged = _flip_levels(state, fine_first=fine_first)
    for name in [name for name in arranged if _INPUT.fullmatch(name)]:
        level, end = _parts(_INPUT, name)
        if level >= num_maps:
            arranged[f"{_THEIR_EXTRA}{level - num_maps}.{end}"] = arranged.pop(name)
    return arranged


def _restore(arranged: Mapping[str, Tensor], *, fine_first: bool) -> dict[str, Tensor]:
    """The inverse of `_arrange`."""
    num_maps = _num_maps(arranged)
    state = dict(arranged)
    for name in arranged:
        if _EXTRA.fullmatch(name):
            level, end = _parts(_EXTRA, name)
            state[f"{_THEIR_INPUT}{level + num_maps}.{end}"] = state.pop(name)
    return _flip_levels(state, fine_first=fine_first)


def _flip_levels(state: Mapping[str, Tensor], *, fine_first: bool) -> dict[str, Tensor]:
    """The levels of the encoder in reverse order, or those of the decoder; twice changes nothing."""
    num_levels, num_maps = len(_kernels(state)), _num_maps(state)
    flipped = {}
    for name, value in state.items():
        if (_ENCODER if fine_first else _DECODER).fullmatch(name):
            value = _flip_heads(name, value, num_levels)
        elif fine_first and name == f"{_THEIR_PIXEL}transformer.level_embed":
            value = value.flip(0)
        elif fine_first and _INPUT.fullmatch(name):
            level, end = _parts(_INPUT, name)
            name = f"{_THEIR_INPUT}{num_maps - 1 - level}.{end}" if level < num_maps else name
        flipped[name] = value
    return flipped


def _flip_heads(name: str, value: Tensor, num_levels: int) -> Tensor:
    """Rows of sampling offsets or attention weights, which stand by head, level and point, with levels reversed."""
    entries = _NUM_POINTS * (2 if "sampling_offsets" in name else 1)
    if not num_levels or len(value) % (num_levels * entries):
        raise InvalidValueError(
            f"{name}: expected a multiple of {num_levels} levels × {entries} rows, got {len(value)}. Give the file of "
            f"a whole Mask DINO that reads {_NUM_POINTS} points of each level and head."
        )
    return value.unflatten(0, (-1, num_levels, entries)).flip(1).flatten(0, 2)


def _num_maps(state: Mapping[str, Tensor]) -> int:
    """How many maps of the backbone the encoder reads: extra levels have kernels of 3 × 3."""
    return sum(kernel.shape[-1] == 1 for kernel in _kernels(state).values())


def _kernels(state: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Those of the input convolutions, by the numbers of their levels."""
    found = {_parts(_INPUT, name): value for name, value in state.items() if _INPUT.fullmatch(name)}
    return {level: value for (level, end), value in found.items() if end == "0.weight"}


def _parts(pattern: re.Pattern[str], name: str) -> tuple[int, str]:
    match = pattern.fullmatch(name)
    assert match is not None
    return int(match[1]), match[2]


_ROWS = (
    *detectron2_resnet(),
    *detectron2_swin(),
    *(
        Row(f"{_PIXEL}extra_convs.{{e}}.{ours}.*", f"{_THEIR_EXTRA}{{e}}.{theirs}.*")
        for ours, theirs in (("conv", "0"), ("gn", "1"))
    ),
    *PIXEL_DECODERS,
    *within(
        _QUERY,
        _THEIR_QUERY,
        {
            "selection.proj.*": "enc_output.*",
            "selection.norm.*": "enc_output_norm.*",
            "query_feat.weight": "query_feat.weight",
            "query_boxes.weight": "query_embed.weight",
            "cls_embed.*": "class_embed.*",
            **{f"mask_embed.{2 * n}.*": f"mask_embed.layers.{n}.*" for n in range(3)},
            **{f"box_embed.{2 * n}.*": f"_bbox_embed.layers.{n}.*" for n in range(3)},
            "transformer_decoder.post_norm.*": "decoder_norm.*",
            **{f"transformer_decoder.position.{2 * n}.*": f"decoder.ref_point_head.layers.{n}.*" for n in range(2)},
            "denoising.label_embed.weight": "label_enc.weight",
        },
    ),
    *within(
        _LAYER,
        _THEIR_LAYER,
        {
            "self_attn.attn.in_proj_*": "self_attn.in_proj_*",
            "self_attn.attn.out_proj.*": "self_attn.out_proj.*",
            "norms.0.*": "norm2.*",
            **{
                f"cross_attn.{part}.*": f"cross_attn.{part}.*"
                for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
            },
            "norms.1.*": "norm1.*",
            "ffn.layers.0.0.*": "linear1.*",
            "ffn.layers.1.*": "linear2.*",
            "norms.2.*": "norm3.*",
        },
    ),
)
#: Their box layers stand in a file once for each layer and twice, and the last norm twice.
_COPIES = (
    (rf"({re.escape(_THEIR_QUERY)})(?:decoder\.)?bbox_embed\.\d+\.", r"\1_bbox_embed."),
    (rf"({re.escape(_THEIR_QUERY)})decoder\.norm\.", r"\1decoder_norm."),
)


def _key_map(*, fine_first: bool) -> KeyMap:
    return KeyMap(
        "a Mask DINO with a ResNet or a Swin as backbone",
        rows=_ROWS,
        copies=_COPIES,
        arrange=partial(_arrange, fine_first=fine_first),
        restore=partial(_restore, fine_first=fine_first),
    )


#: Instance and panoptic models, whose queries are chosen among the cells.
FINE_FIRST = _key_map(fine_first=True)
#: Semantic models, whose queries are learnt.
COARSE_FIRST = _key_map(fine_first=False)
