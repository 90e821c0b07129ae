"""Names of Hugging Face's MaskFormer and Mask2Former models, as their files have them."""

from mmseg_m2f.checkpoints.backbones import huggingface_resnet, huggingface_swin
from mmseg_m2f.checkpoints.detr_layers import HUGGINGFACE_MEMORY, huggingface_decoder, huggingface_projection
from mmseg_m2f.checkpoints.key_map import KeyMap, Row, within

_PIXEL = "decode_head.pixel_decoder."
_QUERY = "decode_head.query_decoder."
_LAYER = f"{_QUERY}transformer_decoder.layers.{{j}}."
_THEIR_ENCODER = "model.pixel_level_module.encoder."
_THEIR_PIXEL = "model.pixel_level_module.decoder."
_THEIR_QUERY = "model.transformer_module."
_THEIR_LAYER = f"{_THEIR_QUERY}decoder.layers.{{j}}."
_FPN = f"{_THEIR_PIXEL}fpn."

_DEFORMABLE = (
    *within(
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
        },
    ),
    *within(
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
_MASKED_ATTENTION = (
    *within(
        _QUERY,
        _THEIR_QUERY,
        {
            "query_feat.weight": "queries_features.weight",
            "level_embed.weight": "level_embed.weight",
            "decoder_input_projs.{l}.*": "input_projections.{l}.*",
            "transformer_decoder.post_norm.*": "decoder.layernorm.*",
            "mask_embed.0.*": "decoder.mask_predictor.mask_embedder.0.0.*",
            "mask_embed.2.*": "decoder.mask_predictor.mask_embedder.1.0.*",
            "mask_embed.4.*": "decoder.mask_predictor.mask_embedder.2.0.*",
        },
    ),
    *within(
        _LAYER,
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
    huggingface_projection(f"{_LAYER}self_attn.attn.", f"{_THEIR_LAYER}self_attn."),
)
#: In both models.
_SHARED = (
    *huggingface_resnet(_THEIR_ENCODER),
    Row(f"{_PIXEL}mask_feature.*", f"{_THEIR_PIXEL}mask_projection.*"),
    Row(f"{_QUERY}query_embed.weight", f"{_THEIR_QUERY}queries_embedder.weight"),
    Row(f"{_QUERY}cls_embed.*", "class_predictor.*"),
)
_BLOCK = r"(?<=\.encoder\.layers\.)(\d+\.blocks\.\d+\.)"

MASK2FORMER = KeyMap(
    "a Mask2Former with the deformable pixel decoder and a ResNet or a Swin as backbone",
    rows=(
        *_SHARED,
        *huggingface_swin(_THEIR_ENCODER),
        Row("backbone.norm{s}.*", f"{_THEIR_ENCODER}hidden_states_norms.stage{{s+1}}.*"),
        *_DEFORMABLE,
        *_MASKED_ATTENTION,
    ),
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
MASKFORMER = KeyMap(
    "a MaskFormer with the FPN pixel decoder and a ResNet or a Swin as backbone",
    rows=(
        *_SHARED,
        *huggingface_swin(f"{_THEIR_ENCODER}model."),
        Row(
            "backbone.stages.{s}.blocks.{b}.attn.w_msa.relative_position_index",
            f"{_THEIR_ENCODER}model.encoder.layers.{{s}}.blocks.{{b}}.attention.self.relative_position_index",
        ),
        Row("backbone.norm{s}.*", f"{_THEIR_ENCODER}hidden_states_norms.{{s}}.*"),
        *within(
            _PIXEL,
            _FPN,
            {"last_feat_conv.conv.*": "stem.0.*", "last_feat_conv.gn.*": "stem.1.*"}
            | {
                f"{ours}.{n}.{our}.*": f"layers.{2 - n}.{theirs}.{their}.*"
                for n in range(3)
                for ours, theirs in (("lateral_convs", "proj"), ("output_convs", "block"))
                for their, our in enumerate(("conv", "gn"))
            },
        ),
        Row(f"{_QUERY}decoder_input_proj.*", f"{_THEIR_QUERY}input_projection.*"),
        *huggingface_decoder(f"{_THEIR_QUERY}decoder."),
        *(Row(f"{_QUERY}mask_embed.{2 * n}.*", f"mask_embedder.{n}.0.*") for n in range(3)),
    ),
    older=HUGGINGFACE_MEMORY,
    ignored=r"criterion\.empty_weight|model\.pixel_level_module\.encoder\.model\.layernorm\.\w+",
    rebuilds_index=True,
)
