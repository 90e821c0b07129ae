"""Names of the authors' releases of MaskFormer (arXiv 2107.06278) and Mask2Former (2112.01527), on detectron2."""

from mmseg_m2f.checkpoints.backbones import detectron2_resnet, detectron2_swin
from mmseg_m2f.checkpoints.detr_layers import authors_decoder, authors_encoder
from mmseg_m2f.checkpoints.key_map import KeyMap, Row, within

_PIXEL = "decode_head.pixel_decoder."
_QUERY = "decode_head.query_decoder."
_LAYER = f"{_QUERY}transformer_decoder.layers.{{j}}."
_THEIR_PIXEL = "sem_seg_head.pixel_decoder."
_THEIR_QUERY = "sem_seg_head.predictor."
_THEIR_CROSS = f"{_THEIR_QUERY}transformer_cross_attention_layers.{{j}}."
_THEIR_SELF = f"{_THEIR_QUERY}transformer_self_attention_layers.{{j}}."
_THEIR_FFN = f"{_THEIR_QUERY}transformer_ffn_layers.{{j}}."

_BACKBONES = (*detectron2_resnet(), *detectron2_swin())
_DEFORMABLE_ENCODER = (
    *within(
        _PIXEL,
        _THEIR_PIXEL,
        {
            "input_convs.{l}.conv.*": "input_proj.{l}.0.*",
            "input_convs.{l}.gn.*": "input_proj.{l}.1.*",
            "level_encoding.weight": "transformer.level_embed",
        },
    ),
    *within(
        f"{_PIXEL}encoder.layers.{{i}}.",
        f"{_THEIR_PIXEL}transformer.encoder.layers.{{i}}.",
        {
            "self_attn.sampling_offsets.*": "self_attn.sampling_offsets.*",
            "self_attn.attention_weights.*": "self_attn.attention_weights.*",
            "self_attn.value_proj.*": "self_attn.value_proj.*",
            "self_attn.output_proj.*": "self_attn.output_proj.*",
        },
    ),
)
#: Three pixel decoders: what they share has the same names in all, and `layer_4` is read from what lies beside it.
PIXEL_DECODERS = (
    *_DEFORMABLE_ENCODER,
    *authors_encoder(f"{_THEIR_PIXEL}transformer.encoder."),
    Row(f"{_PIXEL}encoder_in_proj.*", f"{_THEIR_PIXEL}input_proj.*"),
    *(
        Row(f"{_PIXEL}{ours}{our}.*", f"{_THEIR_PIXEL}layer_4{their}.*", beside=beside)
        for ours, beside in (("encoder_out_proj.", f"{_THEIR_PIXEL}input_proj.weight"), ("last_feat_conv.", None))
        for our, their in (("conv", ""), ("gn", ".norm"))
    ),
    *(
        Row(f"{_PIXEL}{ours}.{n}.{our}.*", f"{_THEIR_PIXEL}{theirs}_{n + 1}{their}.*")
        for ours, theirs in (("lateral_convs", "adapter"), ("output_convs", "layer"))
        for n in range(3)
        for our, their in (("conv", ""), ("gn", ".norm"))
    ),
    Row(f"{_PIXEL}mask_feature.*", f"{_THEIR_PIXEL}mask_features.*"),
)
_HEADS = within(
    _QUERY,
    _THEIR_QUERY,
    {
        "query_embed.weight": "query_embed.weight",
        "cls_embed.*": "class_embed.*",
        "mask_embed.0.*": "mask_embed.layers.0.*",
        "mask_embed.2.*": "mask_embed.layers.1.*",
        "mask_embed.4.*": "mask_embed.layers.2.*",
    },
)
_MASKED_ATTENTION = (
    *within(
        _QUERY,
        _THEIR_QUERY,
        {
            "query_feat.weight": "query_feat.weight",
            "level_embed.weight": "level_embed.weight",
            "decoder_input_projs.{l}.*": "input_proj.{l}.*",
            "transformer_decoder.post_norm.*": "decoder_norm.*",
        },
    ),
    *within(
        _LAYER,
        _THEIR_CROSS,
        {
            "cross_attn.attn.in_proj_*": "multihead_attn.in_proj_*",
            "cross_attn.attn.out_proj.*": "multihead_attn.out_proj.*",
            "norms.0.*": "norm.*",
        },
    ),
    *within(
        _LAYER,
        _THEIR_SELF,
        {
            "self_attn.attn.in_proj_*": "self_attn.in_proj_*",
            "self_attn.attn.out_proj.*": "self_attn.out_proj.*",
            "norms.1.*": "norm.*",
        },
    ),
    *within(
        _LAYER,
        _THEIR_FFN,
        {"ffn.layers.0.0.*": "linear1.*", "ffn.layers.1.*": "linear2.*", "norms.2.*": "norm.*"},
    ),
)
#: The first files lack `pixel_decoder.`.
_OLDER = ((r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)", _THEIR_PIXEL),)

MASK2FORMER = KeyMap(
    "a Mask2Former with one of our three pixel decoders and a ResNet or a Swin as backbone",
    rows=(*_BACKBONES, *PIXEL_DECODERS, *_HEADS, *_MASKED_ATTENTION),
    older=(*_OLDER, (r"\.static_query\.", ".query_feat.")),
)
MASKFORMER = KeyMap(
    "a MaskFormer with one of our three pixel decoders and a ResNet or a Swin as backbone",
    rows=(
        *_BACKBONES,
        *PIXEL_DECODERS,
        *_HEADS,
        Row(f"{_QUERY}decoder_input_proj.*", f"{_THEIR_QUERY}input_proj.*"),
        *authors_decoder(f"{_THEIR_QUERY}transformer.decoder."),
    ),
    older=_OLDER,
)
