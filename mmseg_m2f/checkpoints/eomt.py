"""Names of EoMT (arXiv 2503.19108) with DINOv2's vision transformers: the authors' files and those of Hugging Face."""

import torch

from mmseg_m2f.checkpoints.key_map import KeyMap, Row, thirds, within

_BLOCK = "backbone.vit.blocks.{b}."
_QUERY = "decode_head.query_decoder."
_UPSCALE = f"{_QUERY}upscale.{{u}}."
_THEIR_BLOCK = "layers.{b}."

#: The authors train timm's model, and so do we; theirs normalises the images itself.
LIGHTNING = KeyMap(
    "an EoMT with one of timm's plain vision transformers",
    rows=(
        Row("backbone.vit.**", "network.encoder.backbone.**"),
        *within(
            _QUERY,
            "network.",
            {
                "query_feat.weight": "q.weight",
                "cls_embed.*": "class_head.*",
                "mask_embed.{m}.*": "mask_head.{m}.*",
                "attn_mask_probs": "attn_mask_probs",
            },
        ),
        *within(
            _UPSCALE,
            "network.upscale.{u}.",
            {"upsample.*": "conv1.*", "smooth.*": "conv2.*", "norm.*": "norm.*"},
        ),
    ),
    ignored=r"criterion\.empty_weight|network\.encoder\.pixel_(?:mean|std)",
    constants={
        "network.encoder.pixel_mean": torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1),
        "network.encoder.pixel_std": torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1),
    },
)
HUGGINGFACE = KeyMap(
    "an EoMT with a vision transformer of DINOv2's layout and no gated layers (S, B, L)",
    rows=(
        *within(
            "backbone.vit.",
            "",
            {
                "cls_token": "embeddings.cls_token",
                "reg_token": "embeddings.register_tokens",
                "patch_embed.proj.*": "embeddings.patch_embeddings.projection.*",
                "norm.*": "layernorm.*",
            },
        ),
        Row("backbone.vit.pos_embed", "embeddings.position_embeddings.weight", batched=True),
        *within(
            _BLOCK,
            _THEIR_BLOCK,
            {
                "norm1.*": "norm1.*",
                "attn.proj.*": "attention.out_proj.*",
                "ls1.gamma": "layer_scale1.lambda1",
                "norm2.*": "norm2.*",
                "mlp.fc{n}.*": "mlp.fc{n}.*",
                "ls2.gamma": "layer_scale2.lambda1",
            },
        ),
        thirds(f"{_BLOCK}attn.qkv.*", f"{_THEIR_BLOCK}attention.", ("q_proj", "k_proj", "v_proj")),
        *within(
            _QUERY,
            "",
            {
                "query_feat.weight": "query.weight",
                "cls_embed.*": "class_predictor.*",
                "mask_embed.0.*": "mask_head.fc1.*",
                "mask_embed.2.*": "mask_head.fc2.*",
                "mask_embed.4.*": "mask_head.fc3.*",
                "attn_mask_probs": "attn_mask_probs",
            },
        ),
        *within(
            _UPSCALE,
            "upscale_block.block.{u}.",
            {"upsample.*": "conv1.*", "smooth.*": "conv2.*", "norm.*": "layernorm2d.*"},
        ),
    ),
    plain_layers=True,
)
