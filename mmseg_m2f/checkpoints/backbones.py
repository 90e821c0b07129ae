"""Backbones in the layouts outside OpenMMLab."""

from mmseg_m2f.checkpoints.key_map import Row, thirds, within

_BLOCK = "backbone.stages.{s}.blocks.{b}."


def torchvision_resnet(prefix: str) -> tuple[Row, ...]:
    """ResNet as torchvision and timm name it, which is also OpenMMLab's way."""
    names = ("conv1.*", "bn1.*", "layer{s}.{b}.conv{n}.*", "layer{s}.{b}.bn{n}.*", "layer{s}.{b}.downsample.{d}.*")
    return within("backbone.", prefix, {name: name for name in names})


def detectron2_resnet() -> tuple[Row, ...]:
    """ResNet as detectron2 names it."""
    return within(
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


def detectron2_swin() -> tuple[Row, ...]:
    """Swin as its authors and detectron2's projects name it."""
    return (
        *within(
            "backbone.",
            "backbone.",
            {
                "patch_embed.projection.*": "patch_embed.proj.*",
                "patch_embed.norm.*": "patch_embed.norm.*",
                "norm{s}.*": "norm{s}.*",
            },
        ),
        *within(
            _BLOCK,
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
        *_swin_downsample("backbone."),
    )


def huggingface_resnet(prefix: str) -> tuple[Row, ...]:
    """ResNet of the transformers package, under a prefix."""
    rows = {"conv1.*": "embedder.embedder.convolution.*", "bn1.*": "embedder.embedder.normalization.*"}
    for stage in range(4):
        ours, theirs = f"layer{stage + 1}.{{b}}.", f"encoder.stages.{stage}.layers.{{b}}."
        rows[f"{ours}downsample.0.*"] = f"{theirs}shortcut.convolution.*"
        rows[f"{ours}downsample.1.*"] = f"{theirs}shortcut.normalization.*"
        for n in range(3):
            rows[f"{ours}conv{n + 1}.*"] = f"{theirs}layer.{n}.convolution.*"
            rows[f"{ours}bn{n + 1}.*"] = f"{theirs}layer.{n}.normalization.*"
    return within("backbone.", prefix, rows)


def huggingface_swin(prefix: str) -> tuple[Row, ...]:
    """Swin of the transformers package, under a prefix; without the norms of its stages."""
    block = f"{prefix}encoder.layers.{{s}}.blocks.{{b}}."
    return (
        *within(
            "backbone.",
            prefix,
            {
                "patch_embed.projection.*": "embeddings.patch_embeddings.projection.*",
                "patch_embed.norm.*": "embeddings.norm.*",
            },
        ),
        *within(
            _BLOCK,
            block,
            {
                "norm1.*": "layernorm_before.*",
                "attn.w_msa.relative_position_bias_table": "attention.self.relative_position_bias_table",
                "attn.w_msa.proj.*": "attention.output.dense.*",
                "norm2.*": "layernorm_after.*",
                "ffn.layers.0.0.*": "intermediate.dense.*",
                "ffn.layers.1.*": "output.dense.*",
            },
        ),
        thirds(f"{_BLOCK}attn.w_msa.qkv.*", f"{block}attention.self.", ("query", "key", "value")),
        *_swin_downsample(f"{prefix}encoder."),
    )


def _swin_downsample(prefix: str) -> tuple[Row, ...]:
    return tuple(
        Row(f"backbone.stages.{{s}}.downsample.{part}.*", f"{prefix}layers.{{s}}.downsample.{part}.*", reorder=True)
        for part in ("reduction", "norm")
    )
