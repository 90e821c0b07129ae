"""Names of Hugging Face's `Mask2FormerForUniversalSegmentation`, as its files have them."""

from collections.abc import Mapping

from torch import Tensor

from mmseg_m2f.checkpoints.key_map import KeyMap, Row

_PIXEL = "decode_head.pixel_decoder."
_QUERY = "decode_head.query_decoder."
_THEIR_ENCODER = "model.pixel_level_module.encoder."
_THEIR_PIXEL = "model.pixel_level_module.decoder."
_THEIR_QUERY = "model.transformer_module."


def _within(ours: str, theirs: str, rows: dict[str, str]) -> tuple[Row, ...]:
    return tuple(Row(ours + our, theirs + their) for our, their in rows.items())


def _thirds(ours: str, theirs: str, names: tuple[str, str, str]) -> Row:
    """A packed projection of ours; theirs are separate."""
    query, key, value = (f"{theirs}{name}.*" for name in names)
    return Row(ours, (query, key, value))


_RESNET = _within(
    "backbone.",
    _THEIR_ENCODER,
    {
        "conv1.*": "embedder.embedder.convolution.*",
        "bn1.*": "embedder.embedder.normalization.*",
    },
) + tuple(
    Row(our, f"{_THEIR_ENCODER}encoder.stages.{their}")
    for stage in range(4)
    for our, their in (
        (f"backbone.layer{stage + 1}.{{b}}.downsample.0.*", f"{stage}.layers.{{b}}.shortcut.convolution.*"),
        (f"backbone.layer{stage + 1}.{{b}}.downsample.1.*", f"{stage}.layers.{{b}}.shortcut.normalization.*"),
        *(
            (f"backbone.layer{stage + 1}.{{b}}.{our}{n + 1}.*", f"{stage}.layers.{{b}}.layer.{n}.{their}.*")
            for n in range(3)
            for our, their in (("conv", "convolution"), ("bn", "normalization"))
        ),
    )
)
_OUR_BLOCK = "backbone.stages.{s}.blocks.{b}."
_THEIR_BLOCK = f"{_THEIR_ENCODER}encoder.layers.{{s}}.blocks.{{b}}."
_SWIN = (
    *_within(
        "backbone.",
        _THEIR_ENCODER,
        {
            "patch_embed.projection.*": "embeddings.patch_embeddings.projection.*",
            "patch_embed.norm.*": "embeddings.norm.*",
            "norm{s}.*": "hidden_states_norms.stage{s+1}.*",
        },
    ),
    *_within(
        _OUR_BLOCK,
        _THEIR_BLOCK,
        {
            "norm1.*": "layernorm_before.*",
            "attn.w_msa.relative_position_bias_table": "attention.self.relative_position_bias_table",
            "attn.w_msa.proj.*": "attention.output.dense.*",
            "norm2.*": "layernorm_after.*",
            "ffn.layers.0.0.*": "intermediate.dense.*",
            "ffn.layers.1.*": "output.dense.*",
        },
    ),
    _thirds(f"{_OUR_BLOCK}attn.w_msa.qkv.*", f"{_THEIR_BLOCK}attention.self.", ("query", "key", "value")),
    *(
        Row(
            f"backbone.stages.{{s}}.downsample.{part}.*",
            f"{_THEIR_ENCODER}encoder.layers.{{s}}.downsample.{part}.*",
            reorder=True,
        )
        for part in ("reduction", "norm")
    ),
)
_PIXEL_DECODER = (
    *_within(
        _PIXEL,
        _THEIR_PIXEL,
        {
            "input_convs.{l}.conv.*": "input_projections.{l}.0.*",
            "input_convs.{l}.gn.*": "input_projections.{l}.1.*",
            "level_encoding.weight": "level_embed",
            "lateral_convs.0.conv.*": "adapter_1.0.*",
            "lateral_convs.0.gn.*": "adapter_1.1.*",
            "output_convs.0.conv.*": "layer_1.0.*",
            "output_convs.0.gn.*": "layer_1.1.*",
            "mask_feature.*": "mask_projection.*",
        },
    ),
    *_within(
        f"{_PIXEL}encoder.layers.{{i}}.",
        f"{_THEIR_PIXEL}encoder.layers.{{i}}.",
        {
            "self_attn.sampling_offsets.*": "self_attn.sampling_offsets.*",
            "self_attn.attention_weights.*": "self_attn.attention_weights.*",
            "self_attn.value_proj.*": "self_attn.value_proj.*",
            "self_attn.output_proj.*": "self_attn.output_proj.*",
            "ffn.layers.0.0.*": "fc1.*",
            "ffn.layers.1.*": "fc2.*",
            "norms.0.*": "self_attn_layer_norm.*",
            "norms.1.*": "final_layer_norm.*",
        },
    ),
)
_OUR_LAYER = f"{_QUERY}transformer_decoder.layers.{{j}}."
_THEIR_LAYER = f"{_THEIR_QUERY}decoder.layers.{{j}}."
_QUERY_DECODER = (
    *_within(
        _QUERY,
        _THEIR_QUERY,
        {
            "query_feat.weight": "queries_features.weight",
            "query_embed.weight": "queries_embedder.weight",
            "level_embed.weight": "level_embed.weight",
            "decoder_input_projs.{l}.*": "input_projections.{l}.*",
            "transformer_decoder.post_norm.*": "decoder.layernorm.*",
            "mask_embed.0.*": "decoder.mask_predictor.mask_embedder.0.0.*",
            "mask_embed.2.*": "decoder.mask_predictor.mask_embedder.1.0.*",
            "mask_embed.4.*": "decoder.mask_predictor.mask_embedder.2.0.*",
        },
    ),
    Row(f"{_QUERY}cls_embed.*", "class_predictor.*"),
    *_within(
        _OUR_LAYER,
        _THEIR_LAYER,
        {
            "cross_attn.attn.in_proj_*": "cross_attn.in_proj_*",
            "cross_attn.attn.out_proj.*": "cross_attn.out_proj.*",
            "self_attn.attn.out_proj.*": "self_attn.out_proj.*",
            "ffn.layers.0.0.*": "fc1.*",
            "ffn.layers.1.*": "fc2.*",
            "norms.0.*": "cross_attn_layer_norm.*",
            "norms.1.*": "self_attn_layer_norm.*",
            "norms.2.*": "final_layer_norm.*",
        },
    ),
    _thirds(f"{_OUR_LAYER}self_attn.attn.in_proj_*", f"{_THEIR_LAYER}self_attn.", ("q_proj", "k_proj", "v_proj")),
)
_BLOCK = r"(?<=\.encoder\.layers\.)(\d+\.blocks\.\d+\.)"

HUGGINGFACE = KeyMap(
    rows=(*_RESNET, *_SWIN, *_PIXEL_DECODER, *_QUERY_DECODER),
    older=(
        # Swin under an extra module in some releases, with stages counted from zero in others.
        (r"^(model\.pixel_level_module\.encoder\.)(?:swin|model)\.", r"\1"),
        *((rf"\.hidden_states_norms\.{stage}\.", f".hidden_states_norms.stage{stage + 1}.") for stage in range(4)),
        # Release 5 holds these in memory; its files have the names of the table.
        (rf"{_BLOCK}attention\.q_proj\.", r"\1attention.self.query."),
        (rf"{_BLOCK}attention\.k_proj\.", r"\1attention.self.key."),
        (rf"{_BLOCK}attention\.v_proj\.", r"\1attention.self.value."),
        (rf"{_BLOCK}attention\.o_proj\.", r"\1attention.output.dense."),
        (rf"{_BLOCK}attention\.relative_position_bias\.", r"\1attention.self."),
        (rf"{_BLOCK}mlp\.fc1\.", r"\1intermediate.dense."),
        (rf"{_BLOCK}mlp\.fc2\.", r"\1output.dense."),
    ),
    # Swin's last norm is not used: each stage has its own.
    ignored=r"criterion\.empty_weight|model\.pixel_level_module\.encoder\.layernorm\.\w+|.*\.relative_position_index",
    rebuilds_index=True,
)


def from_huggingface(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for a Hugging Face state dict; separate query, key and value projections are packed.

    Raises:
        KeyError: names that the map does not know.
    """
    weights, _ = HUGGINGFACE.modern(state_dict)
    return HUGGINGFACE.to_ours(weights)
