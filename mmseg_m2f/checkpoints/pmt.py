"""Names of PMT (arXiv 2603.25398) in the authors' files, which do not hold the frozen encoder."""

from mmseg_m2f.checkpoints.key_map import KeyMap, Row, within

_QUERY = "decode_head.query_decoder."
_DECODER = "network.decoder."

OURS = KeyMap(
    "backbone, neck and query decoder alone",
    rows=tuple(Row(f"{part}**", f"{part}**") for part in ("backbone.", "neck.", _QUERY)),
)
LIGHTNING = KeyMap(
    "a PMT's decoder, without its encoder",
    rows=(
        *within(
            "neck.",
            _DECODER,
            {
                "laterals.{i}.mlp.{m}.*": "lateral_projections.{i}.{m}.*",
                "laterals.{i}.scale": "scalers.{i}",
                "norm.*": "decoder_norm.*",
            },
        ),
        Row("neck.laterals.{i}.norm.*", "network.bn.{i}.*"),
        *within(
            "neck.blocks.{b}.",
            f"{_DECODER}blocks.{{b}}.",
            {
                "norm1.*": "norm1.*",
                "norm2.*": "norm2.*",
                "scale1": "layer_scale1.lambda1",
                "scale2": "layer_scale2.lambda1",
                **{f"attn.{part}_proj.*": f"attention.{part}_proj.*" for part in "qkvo"},
                "mlp.0.*": "mlp.up_proj.*",
                "mlp.2.*": "mlp.down_proj.*",
            },
        ),
        *within(
            _QUERY,
            _DECODER,
            {
                "query_feat.weight": "q.weight",
                "cls_embed.*": "class_head.*",
                "mask_embed.{m}.*": "mask_head.{m}.*",
                "attn_mask_probs": "attn_mask_probs",
                "upscale.{u}.upsample.*": "upscale.{u}.conv1.*",
                "upscale.{u}.smooth.*": "upscale.{u}.conv2.*",
                "upscale.{u}.norm.*": "upscale.{u}.norm.*",
            },
        ),
    ),
    ignored=r"criterion\.empty_weight|network\.encoder\.pixel_(?:mean|std)",
    left_out=r"backbone\..*",
)
