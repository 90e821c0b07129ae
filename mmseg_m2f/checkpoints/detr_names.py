"""Names of DETR (arXiv 2005.12872): the authors' files, which torch.hub serves, and those of Hugging Face."""

from dataclasses import replace

from mmseg_m2f.checkpoints.backbones import huggingface_resnet, torchvision_resnet
from mmseg_m2f.checkpoints.detr_layers import (
    HUGGINGFACE_MEMORY,
    authors_decoder,
    authors_encoder,
    huggingface_decoder,
    huggingface_encoder,
)
from mmseg_m2f.checkpoints.key_map import KeyMap, Row, within

_PIXEL = "decode_head.pixel_decoder."
_QUERY = "decode_head.query_decoder."
_HUB_BACKBONE = "backbone.0.body."
_HUGGINGFACE_BACKBONE = "model.backbone.conv_encoder.model."

#: The mask head has the same names in both layouts.
_MASK_HEAD = (
    *within(
        f"{_QUERY}mask_head.",
        "bbox_attention.",
        {"q_linear.*": "q_linear.*", "k_linear.*": "k_linear.*"},
    ),
    *within(
        f"{_QUERY}mask_head.",
        "mask_head.",
        {
            "out_conv.*": "out_lay.*",
            **{f"convs.{n}.*": f"lay{n + 1}.*" for n in range(5)},
            **{f"norms.{n}.*": f"gn{n + 1}.*" for n in range(5)},
            **{f"adapters.{n}.*": f"adapter{n + 1}.*" for n in range(3)},
        },
    ),
)
#: Inside the wrapper for detectron2 the backbone has detectron2's names.
_WRAPPED_BACKBONE = (
    (r"^((?:detr\.)?backbone\.0)\.backbone\.(?:stem\.)?", r"\1.body."),
    (r"\.body\.conv1\.norm\.", ".body.bn1."),
    *((rf"\.body\.res{stage + 1}\.", f".body.layer{stage}.") for stage in range(1, 5)),
    (r"(\.body\.layer\d\.\d+\.)conv(\d)\.norm\.", r"\1bn\2."),
    (r"(\.body\.layer\d\.\d+\.)shortcut\.norm\.", r"\1downsample.1."),
    (r"(\.body\.layer\d\.\d+\.)shortcut\.", r"\1downsample.0."),
)
#: Release 5 of the transformers package holds these in memory; its files have the names of the tables.
_MASK_HEAD_MEMORY = (
    (r"^bbox_attention\.([qk])_proj\.", r"bbox_attention.\1_linear."),
    *((rf"^mask_head\.conv{n}\.conv\.", f"mask_head.lay{n}.") for n in (1, 2)),
    *((rf"^mask_head\.conv{n}\.norm\.", f"mask_head.gn{n}.") for n in (1, 2)),
    *((rf"^mask_head\.fpn_stages\.{n}\.refine\.conv\.", f"mask_head.lay{n + 3}.") for n in range(3)),
    *((rf"^mask_head\.fpn_stages\.{n}\.refine\.norm\.", f"mask_head.gn{n + 3}.") for n in range(3)),
    *((rf"^mask_head\.fpn_stages\.{n}\.fpn_adapter\.", f"mask_head.adapter{n + 1}.") for n in range(3)),
    (r"^mask_head\.output_conv\.", "mask_head.out_lay."),
)
_EXPECTS = "a DETR with a ResNet as backbone"
#: All these models freeze their batch norms and do not count batches.
_LEFT_OUT = r"backbone\..*\.num_batches_tracked"


def _torchhub(prefix: str) -> tuple[Row, ...]:
    return (
        *torchvision_resnet(f"{prefix}{_HUB_BACKBONE}"),
        Row(f"{_PIXEL}input_proj.*", f"{prefix}input_proj.*"),
        *authors_encoder(f"{prefix}transformer.encoder."),
        Row(f"{_QUERY}query_embed.weight", f"{prefix}query_embed.weight"),
        *authors_decoder(f"{prefix}transformer.decoder."),
        Row(f"{_QUERY}cls_embed.*", f"{prefix}class_embed.*"),
        *(Row(f"{_QUERY}box_embed.{2 * n}.*", f"{prefix}bbox_embed.layers.{n}.*") for n in range(3)),
    )


def _huggingface(prefix: str) -> tuple[Row, ...]:
    return (
        Row(f"{_PIXEL}input_proj.*", f"{prefix}model.input_projection.*"),
        *huggingface_encoder(f"{prefix}model.encoder."),
        Row(f"{_QUERY}query_embed.weight", f"{prefix}model.query_position_embeddings.weight"),
        *huggingface_decoder(f"{prefix}model.decoder."),
        Row(f"{_QUERY}cls_embed.*", f"{prefix}class_labels_classifier.*"),
        *(Row(f"{_QUERY}box_embed.{2 * n}.*", f"{prefix}bbox_predictor.layers.{n}.*") for n in range(3)),
    )


_OLDER_HUGGINGFACE = (*HUGGINGFACE_MEMORY, (r"^((?:detr\.)?model\.backbone)\.model\.", r"\1.conv_encoder.model."))

TORCHHUB = KeyMap(
    _EXPECTS,
    rows=_torchhub(""),
    older=((r"^detr\.", ""), *_WRAPPED_BACKBONE),
    left_out=_LEFT_OUT,
)
TORCHHUB_MASKS = KeyMap(
    f"{_EXPECTS} and the mask head",
    rows=(*_torchhub("detr."), *_MASK_HEAD),
    older=((r"^detr\.(?=detr\.|bbox_attention\.|mask_head\.)", ""), *_WRAPPED_BACKBONE),
    left_out=_LEFT_OUT,
)
HUGGINGFACE = KeyMap(
    _EXPECTS,
    rows=(*huggingface_resnet(_HUGGINGFACE_BACKBONE), *_huggingface("")),
    older=_OLDER_HUGGINGFACE,
    left_out=_LEFT_OUT,
)
HUGGINGFACE_MASKS = KeyMap(
    f"{_EXPECTS} and the mask head",
    rows=(*huggingface_resnet(f"detr.{_HUGGINGFACE_BACKBONE}"), *_huggingface("detr."), *_MASK_HEAD),
    older=(*_OLDER_HUGGINGFACE, *_MASK_HEAD_MEMORY),
    left_out=_LEFT_OUT,
)
#: The same with timm's ResNet, as in the files that Hugging Face published first.
HUGGINGFACE_TIMM = replace(HUGGINGFACE, rows=(*torchvision_resnet(_HUGGINGFACE_BACKBONE), *_huggingface("")))
HUGGINGFACE_TIMM_MASKS = replace(
    HUGGINGFACE_MASKS,
    rows=(*torchvision_resnet(f"detr.{_HUGGINGFACE_BACKBONE}"), *_huggingface("detr."), *_MASK_HEAD),
)
