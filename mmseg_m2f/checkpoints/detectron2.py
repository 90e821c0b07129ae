"""Names of the authors' release (arXiv 2112.01527), which builds on detectron2."""

from mmseg_m2f.checkpoints.key_map import KeyMap, Row

_PIXEL = "decode_head.pixel_decoder."
_QUERY = "decode_head.query_decoder."
_LAYER = f"{_QUERY}transformer_decoder.layers.{{j}}."
_THEIR_PIXEL = "sem_seg_head.pixel_decoder."
_THEIR_QUERY = "sem_seg_head.predictor."
_THEIR_CROSS = f"{_THEIR_QUERY}transformer_cross_attention_layers.{{j}}."
_THEIR_SELF = f"{_THEIR_QUERY}transformer_self_attention_layers.{{j}}."
_THEIR_FFN = f"{_THEIR_QUERY}transformer_ffn_layers.{{j}}."


def _within(ours: str, theirs: str, rows: dict[str, str]) -> tuple[Row, ...]:
    return tuple(Row(ours + our, theirs + their) for our, their in rows.items())


_RESNET = _within(
    "backbone.",
    "backbone.",
    {
        "conv1.*": "stem.conv1.*",
        "bn1.*": "stem.conv1.norm.*",
        "layer{s}.{b}.conv{n}.*": "res{s+1}.{b}.conv{n}.*",
        "layer{s}.{b}.bn{n}.*": "res{s+1}.{b}.conv{n}.norm.*",
        "layer{s}.{b}.downsample.0.*": "res{s+1}.{b}.shortcut.*",
        "layer{s}.{b}.downsample.1.*": "res{s+1}.{b}.shortcut.norm.*",
    },
)
_SWIN = (
    *_within(
        "backbone.",
        "backbone.",
        {"patch_embed.projection.*": "patch_embed.proj.*", "patch_embed.norm.*": "patch_embed.norm.*"},
    ),
    *_within(
        "backbone.stages.{s}.blocks.{b}.",
        "backbone.layers.{s}.blocks.{b}.",
        {
            "norm1.*": "norm1.*",
            "attn.w_msa.relative_position_bias_table": "attn.relative_position_bias_table",
            "attn.w_msa.relative_position_index": "attn.relative_position_index",
            "attn.w_msa.qkv.*": "attn.qkv.*",
            "attn.w_msa.proj.*": "attn.proj.*",
            "norm2.*": "norm2.*",
            "ffn.layers.0.0.*": "mlp.fc1.*",
            "ffn.layers.1.*": "mlp.fc2.*",
        },
    ),
    Row("backbone.stages.{s}.downsample.reduction.*", "backbone.layers.{s}.downsample.reduction.*", reorder=True),
    Row("backbone.stages.{s}.downsample.norm.*", "backbone.layers.{s}.downsample.norm.*", reorder=True),
    Row("backbone.norm{s}.*", "backbone.norm{s}.*"),
)
_PIXEL_DECODER = (
    *_within(
        _PIXEL,
        _THEIR_PIXEL,
        {
            "input_convs.{l}.conv.*": "input_proj.{l}.0.*",
            "input_convs.{l}.gn.*": "input_proj.{l}.1.*",
            "level_encoding.weight": "transformer.level_embed",
            "lateral_convs.0.conv.*": "adapter_1.*",
            "lateral_convs.0.gn.*": "adapter_1.norm.*",
            "output_convs.0.conv.*": "layer_1.*",
            "output_convs.0.gn.*": "layer_1.norm.*",
            "mask_feature.*": "mask_features.*",
        },
    ),
    *_within(
        f"{_PIXEL}encoder.layers.{{i}}.",
        f"{_THEIR_PIXEL}transformer.encoder.layers.{{i}}.",
        {
            "self_attn.sampling_offsets.*": "self_attn.sampling_offsets.*",
            "self_attn.attention_weights.*": "self_attn.attention_weights.*",
            "self_attn.value_proj.*": "self_attn.value_proj.*",
            "self_attn.output_proj.*": "self_attn.output_proj.*",
            "ffn.layers.0.0.*": "linear1.*",
            "ffn.layers.1.*": "linear2.*",
            "norms.0.*": "norm1.*",
            "norms.1.*": "norm2.*",
        },
    ),
)
_QUERY_DECODER = (
    *_within(
        _QUERY,
        _THEIR_QUERY,
        {
            "query_feat.weight": "query_feat.weight",
            "query_embed.weight": "query_embed.weight",
            "level_embed.weight": "level_embed.weight",
            "decoder_input_projs.{l}.*": "input_proj.{l}.*",
            "transformer_decoder.post_norm.*": "decoder_norm.*",
            "cls_embed.*": "class_embed.*",
            "mask_embed.0.*": "mask_embed.layers.0.*",
            "mask_embed.2.*": "mask_embed.layers.1.*",
            "mask_embed.4.*": "mask_embed.layers.2.*",
        },
    ),
    Row(f"{_LAYER}cross_attn.attn.in_proj_*", f"{_THEIR_CROSS}multihead_attn.in_proj_*"),
    Row(f"{_LAYER}cross_attn.attn.out_proj.*", f"{_THEIR_CROSS}multihead_attn.out_proj.*"),
    Row(f"{_LAYER}norms.0.*", f"{_THEIR_CROSS}norm.*"),
    Row(f"{_LAYER}self_attn.attn.in_proj_*", f"{_THEIR_SELF}self_attn.in_proj_*"),
    Row(f"{_LAYER}self_attn.attn.out_proj.*", f"{_THEIR_SELF}self_attn.out_proj.*"),
    Row(f"{_LAYER}norms.1.*", f"{_THEIR_SELF}norm.*"),
    Row(f"{_LAYER}ffn.layers.0.0.*", f"{_THEIR_FFN}linear1.*"),
    Row(f"{_LAYER}ffn.layers.1.*", f"{_THEIR_FFN}linear2.*"),
    Row(f"{_LAYER}norms.2.*", f"{_THEIR_FFN}norm.*"),
)

DETECTRON2 = KeyMap(
    rows=(*_RESNET, *_SWIN, *_PIXEL_DECODER, *_QUERY_DECODER),
    older=(
        (r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)", _THEIR_PIXEL),
        (r"\.static_query\.", ".query_feat."),
    ),
)
