"""DETR's transformer layers, which MaskFormer shares: our names and those of other libraries."""

from mmseg_m2f.checkpoints.key_map import Row, thirds, within

_ENCODER = "decode_head.pixel_decoder.encoder.layers.{i}."
_DECODER = "decode_head.query_decoder.transformer_decoder."
_LAYER = f"{_DECODER}layers.{{j}}."


def authors_encoder(prefix: str) -> tuple[Row, ...]:
    """The encoder as DETR's authors, and those of MaskFormer, name it."""
    return within(
        _ENCODER,
        f"{prefix}layers.{{i}}.",
        {
            "self_attn.attn.in_proj_*": "self_attn.in_proj_*",
            "self_attn.attn.out_proj.*": "self_attn.out_proj.*",
            "ffn.layers.0.0.*": "linear1.*",
            "ffn.layers.1.*": "linear2.*",
            "norms.0.*": "norm1.*",
            "norms.1.*": "norm2.*",
        },
    )


def authors_decoder(prefix: str) -> tuple[Row, ...]:
    """The decoder as DETR's authors, and those of MaskFormer, name it."""
    return (
        *within(
            _LAYER,
            f"{prefix}layers.{{j}}.",
            {
                "self_attn.attn.in_proj_*": "self_attn.in_proj_*",
                "self_attn.attn.out_proj.*": "self_attn.out_proj.*",
                "norms.0.*": "norm1.*",
                "cross_attn.attn.in_proj_*": "multihead_attn.in_proj_*",
                "cross_attn.attn.out_proj.*": "multihead_attn.out_proj.*",
                "norms.1.*": "norm2.*",
                "ffn.layers.0.0.*": "linear1.*",
                "ffn.layers.1.*": "linear2.*",
                "norms.2.*": "norm3.*",
            },
        ),
        Row(f"{_DECODER}post_norm.*", f"{prefix}norm.*"),
    )


def huggingface_encoder(prefix: str) -> tuple[Row, ...]:
    """The encoder of the transformers package."""
    layer = f"{prefix}layers.{{i}}."
    return (
        *within(
            _ENCODER,
            layer,
            {
                "self_attn.attn.out_proj.*": "self_attn.out_proj.*",
                "ffn.layers.0.0.*": "fc1.*",
                "ffn.layers.1.*": "fc2.*",
                "norms.0.*": "self_attn_layer_norm.*",
                "norms.1.*": "final_layer_norm.*",
            },
        ),
        huggingface_projection(f"{_ENCODER}self_attn.attn.", f"{layer}self_attn."),
    )


def huggingface_decoder(prefix: str) -> tuple[Row, ...]:
    """The decoder of the transformers package."""
    layer = f"{prefix}layers.{{j}}."
    return (
        *within(
            _LAYER,
            layer,
            {
                "self_attn.attn.out_proj.*": "self_attn.out_proj.*",
                "norms.0.*": "self_attn_layer_norm.*",
                "cross_attn.attn.out_proj.*": "encoder_attn.out_proj.*",
                "norms.1.*": "encoder_attn_layer_norm.*",
                "ffn.layers.0.0.*": "fc1.*",
                "ffn.layers.1.*": "fc2.*",
                "norms.2.*": "final_layer_norm.*",
            },
        ),
        huggingface_projection(f"{_LAYER}self_attn.attn.", f"{layer}self_attn."),
        huggingface_projection(f"{_LAYER}cross_attn.attn.", f"{layer}encoder_attn."),
        Row(f"{_DECODER}post_norm.*", f"{prefix}layernorm.*"),
    )


def huggingface_projection(ours: str, theirs: str) -> Row:
    """Our packed projection of query, key and value, and the three layers of the transformers package."""
    return thirds(f"{ours}in_proj_*", theirs, ("q_proj", "k_proj", "v_proj"))


#: Release 5 of the transformers package holds these layers under other names in memory; its files have the table's.
HUGGINGFACE_MEMORY = (
    (r"(coder\.layers\.\d+\.(?:self|encoder)_attn)\.o_proj\.", r"\1.out_proj."),
    (r"(coder\.layers\.\d+)\.mlp\.(fc\d)\.", r"\1.\2."),
)
