"""Keys of Hugging Face's `Mask2FormerForUniversalSegmentation` with a ResNet encoder."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_IGNORED = re.compile(r"criterion\.empty_weight")
#: Pattern and replacement, tried in order; the first that matches the whole key applies.
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # ResNet
        (r"E\.embedder\.embedder\.convolution\.(.*)", r"backbone.conv1.\1"),
        (r"E\.embedder\.embedder\.normalization\.(.*)", r"backbone.bn1.\1"),
        (
            r"E\.encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.convolution\.(.*)",
            r"backbone.layer+\1.\2.downsample.0.\3",
        ),
        (
            r"E\.encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.normalization\.(.*)",
            r"backbone.layer+\1.\2.downsample.1.\3",
        ),
        (
            r"E\.encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution\.(.*)",
            r"backbone.layer+\1.\2.conv+\3.\4",
        ),
        (
            r"E\.encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.normalization\.(.*)",
            r"backbone.layer+\1.\2.bn+\3.\4",
        ),
        # pixel decoder
        (r"P\.level_embed", r"H.pixel_decoder.level_encoding.weight"),
        (r"P\.input_projections\.(\d)\.0\.(.*)", r"H.pixel_decoder.input_convs.\1.conv.\2"),
        (r"P\.input_projections\.(\d)\.1\.(.*)", r"H.pixel_decoder.input_convs.\1.gn.\2"),
        (
            r"P\.encoder\.layers\.(\d+)\.self_attn_layer_norm\.(.*)",
            r"H.pixel_decoder.encoder.layers.\1.norms.0.\2",
        ),
        (
            r"P\.encoder\.layers\.(\d+)\.final_layer_norm\.(.*)",
            r"H.pixel_decoder.encoder.layers.\1.norms.1.\2",
        ),
        (r"P\.encoder\.layers\.(\d+)\.fc1\.(.*)", r"H.pixel_decoder.encoder.layers.\1.ffn.layers.0.0.\2"),
        (r"P\.encoder\.layers\.(\d+)\.fc2\.(.*)", r"H.pixel_decoder.encoder.layers.\1.ffn.layers.1.\2"),
        (r"P\.encoder\.layers\.(.*)", r"H.pixel_decoder.encoder.layers.\1"),
        (r"P\.adapter_1\.0\.(.*)", r"H.pixel_decoder.lateral_convs.0.conv.\1"),
        (r"P\.adapter_1\.1\.(.*)", r"H.pixel_decoder.lateral_convs.0.gn.\1"),
        (r"P\.layer_1\.0\.(.*)", r"H.pixel_decoder.output_convs.0.conv.\1"),
        (r"P\.layer_1\.1\.(.*)", r"H.pixel_decoder.output_convs.0.gn.\1"),
        (r"P\.mask_projection\.(.*)", r"H.pixel_decoder.mask_feature.\1"),
        # query decoder
        (r"T\.queries_features\.(.*)", r"D.query_feat.\1"),
        (r"T\.queries_embedder\.(.*)", r"D.query_embed.\1"),
        (r"T\.level_embed\.(.*)", r"D.level_embed.\1"),
        (
            r"T\.decoder\.layers\.(\d+)\.cross_attn\.(.*)",
            r"D.transformer_decoder.layers.\1.cross_attn.attn.\2",
        ),
        (r"T\.decoder\.layers\.(\d+)\.self_attn\.(.*)", r"D.transformer_decoder.layers.\1.self_attn.attn.\2"),
        (
            r"T\.decoder\.layers\.(\d+)\.cross_attn_layer_norm\.(.*)",
            r"D.transformer_decoder.layers.\1.norms.0.\2",
        ),
        (
            r"T\.decoder\.layers\.(\d+)\.self_attn_layer_norm\.(.*)",
            r"D.transformer_decoder.layers.\1.norms.1.\2",
        ),
        (r"T\.decoder\.layers\.(\d+)\.final_layer_norm\.(.*)", r"D.transformer_decoder.layers.\1.norms.2.\2"),
        (r"T\.decoder\.layers\.(\d+)\.fc1\.(.*)", r"D.transformer_decoder.layers.\1.ffn.layers.0.0.\2"),
        (r"T\.decoder\.layers\.(\d+)\.fc2\.(.*)", r"D.transformer_decoder.layers.\1.ffn.layers.1.\2"),
        (r"T\.decoder\.layernorm\.(.*)", r"D.transformer_decoder.post_norm.\1"),
        (r"T\.decoder\.mask_predictor\.mask_embedder\.(\d)\.0\.(.*)", r"D.mask_embed.*\1.\2"),
        (r"class_predictor\.(.*)", r"D.cls_embed.\1"),
    )
]
_ABBREVIATIONS = {
    "model.pixel_level_module.encoder.": "E.",
    "model.pixel_level_module.decoder.": "P.",
    "model.transformer_module.": "T.",
}


def from_huggingface(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our keys for a Hugging Face state dict; separate query, key and value projections are packed.

    Raises:
        KeyError: a key that the map does not know.
    """
    packed = _pack_projections(state_dict)
    return {_our_key(key): value for key, value in packed.items() if not _IGNORED.fullmatch(key)}


def _our_key(key: str) -> str:
    short = key
    for long, abbreviation in _ABBREVIATIONS.items():
        short = short.replace(long, abbreviation, 1) if short.startswith(long) else short
    for pattern, replacement in _RULES:
        if pattern.fullmatch(short):
            ours = pattern.sub(replacement, short, count=1)
            ours = re.sub(r"\+(\d)", lambda digit: str(int(digit[1]) + 1), ours)  # they count from 0, we from 1
            ours = re.sub(r"\*(\d)", lambda digit: str(int(digit[1]) * 2), ours)  # we count the ReLUs too
            ours = re.sub(r"^D\.", "H.query_decoder.", ours)
            return re.sub(r"^H\.", "decode_head.", ours)
    raise KeyError(
        f"{key}: not a key of a Mask2FormerForUniversalSegmentation with a ResNet encoder. "
        "Other encoders are not mapped."
    )


def _pack_projections(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace `q_proj`, `k_proj`, `v_proj` by one `in_proj`, in this order of rows."""
    packed = dict(state_dict)
    for key in state_dict:
        if ".q_proj." in key:
            stem, kind = key.split(".q_proj.")
            rows = [packed.pop(f"{stem}.{part}_proj.{kind}") for part in "qkv"]
            packed[f"{stem}.in_proj_{kind}"] = torch.cat(rows)
    return packed
