"""Names of EfficientNet-Lite and MobileNetV2 where their weights are published, and in timm and mmseg."""

from collections.abc import Iterator, Sequence

from mmseg_m2f.checkpoints.key_map import KeyMap, Row, within

#: Blocks of each stage. Depths of Lite2 are those of Lite0 times 1.2, rounded up, but for the first and last stage.
_LITE0 = (1, 2, 2, 3, 3, 4, 1)
_LITE2 = (1, 3, 3, 4, 4, 5, 1)
_MOBILENET_V2 = (1, 2, 3, 4, 3, 3, 1)

_TIMM_DEPTHWISE = ("conv_dw", "bn1", "conv_pw", "bn2")
_TIMM_INVERTED = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
_LITE_DEPTHWISE = ("_depthwise_conv", "_bn1", "_project_conv", "_bn2")
_LITE_INVERTED = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
_TORCH_DEPTHWISE = ("conv.0", "conv.1", "conv.3", "conv.4")
_TORCH_INVERTED = (*_TORCH_DEPTHWISE, "conv.6", "conv.7")
_MMSEG_DEPTHWISE = ("conv.0.conv", "conv.0.bn", "conv.1.conv", "conv.1.bn")
_MMSEG_INVERTED = (*_MMSEG_DEPTHWISE, "conv.2.conv", "conv.2.bn")


def _blocks(depths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Stage and place in the stage of every block, in order."""
    return ((stage, block) for stage, depth in enumerate(depths) for block in range(depth))


def _modules(ours: str, our_names: Sequence[str], theirs: str, their_names: Sequence[str]) -> tuple[Row, ...]:
    return within(ours, theirs, {f"{a}.*": f"{b}.*" for a, b in zip(our_names, their_names, strict=True)})


def _efficientnet_lite(name: str, depths: Sequence[int]) -> KeyMap:
    """timm's names of an EfficientNet-Lite (ours) and those of the packages (theirs), module by module."""
    rows = _modules(
        "",
        ("conv_stem", "bn1", "conv_head", "bn2", "classifier"),
        "",
        ("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"),
    )
    for index, (stage, block) in enumerate(_blocks(depths)):
        ours, theirs = (_TIMM_DEPTHWISE, _LITE_DEPTHWISE) if index == 0 else (_TIMM_INVERTED, _LITE_INVERTED)
        rows += _modules(f"blocks.{stage}.{block}.", ours, f"_blocks.{index}.", theirs)
    return KeyMap(name, rows=rows)


def _mobilenet_v2(name: str, *, of_timm: bool) -> KeyMap:
    """timm's or mmseg's names of a MobileNetV2 (ours) and those of its authors' PyTorch code (theirs)."""
    stem, head = (("conv_stem", "bn1"), ("conv_head", "bn2")) if of_timm else (("conv1.conv", "conv1.bn"), ())
    rows = _modules("", stem, "features.", ("0.0", "0.1"))
    if head:
        rows += _modules("", head, "features.", ("18.0", "18.1"))
    for index, (stage, block) in enumerate(_blocks(_MOBILENET_V2)):
        if of_timm:
            prefix, names = f"blocks.{stage}.{block}.", _TIMM_INVERTED if index else _TIMM_DEPTHWISE
        else:
            prefix, names = f"layer{stage + 1}.{block}.", _MMSEG_INVERTED if index else _MMSEG_DEPTHWISE
        rows += _modules(prefix, names, f"features.{index + 1}.", _TORCH_INVERTED if index else _TORCH_DEPTHWISE)
    # mmseg's backbone ends before the last convolution.
    return KeyMap(name, rows=rows, ignored=r"$^" if of_timm else r"features\.18\..*")


EFFICIENTNET_LITE0 = _efficientnet_lite("an EfficientNet-Lite0", _LITE0)
EFFICIENTNET_LITE2 = _efficientnet_lite("an EfficientNet-Lite2", _LITE2)
MOBILENET_V2 = _mobilenet_v2("a MobileNetV2", of_timm=False)
MOBILENET_V2_TIMM = _mobilenet_v2("a MobileNetV2", of_timm=True)
