"""Keys of mmseg's and mmdet's Mask2Former heads, and the check that the class counts agree."""

from torch import Tensor, nn

#: What our query decoder holds; in mmdet and mmseg these lie in the head itself.
_QUERY_DECODER_PARTS = (
    "query_feat.",
    "query_embed.",
    "level_embed.",
    "decoder_input_projs.",
    "transformer_decoder.",
    "cls_embed.",
    "mask_embed.",
)
_CLASS_LAYER = "query_decoder.cls_embed."


def adopt_head_keys(head: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Rename, in place, the keys of an OpenMMLab head to ours; a `load_state_dict` pre-hook of `MaskHead`.

    Raises:
        ValueError: the checkpoint's class layer has another number of classes than the head, and the head
            was not told to replace it.
    """
    for part in _QUERY_DECODER_PARTS:
        for key in [key for key in state_dict if key.startswith(prefix + part)]:
            state_dict[f"{prefix}query_decoder.{key[len(prefix) :]}"] = state_dict.pop(key)
    _check_classes(head, state_dict, prefix)


def adopt_detector_keys(_: nn.Module, state_dict: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Rename, in place, mmdet's `panoptic_head.*` to `decode_head.*`; a pre-hook of the shells."""
    old = f"{prefix}panoptic_head."
    for key in [key for key in state_dict if key.startswith(old)]:
        state_dict[f"{prefix}decode_head.{key[len(old) :]}"] = state_dict.pop(key)


def _check_classes(head: nn.Module, state_dict: dict[str, Tensor], prefix: str) -> None:
    stored = state_dict.get(f"{prefix}{_CLASS_LAYER}weight")
    if stored is None or len(stored) == head.num_classes + 1:
        return
    if head.replace_classifier:
        fresh = head.query_decoder.cls_embed
        state_dict[f"{prefix}{_CLASS_LAYER}weight"] = fresh.weight.detach().clone()
        state_dict[f"{prefix}{_CLASS_LAYER}bias"] = fresh.bias.detach().clone()
        return
    raise ValueError(
        f"The checkpoint's class layer ({prefix}{_CLASS_LAYER}weight) has {len(stored) - 1} classes, but "
        f"decode_head.num_classes is {head.num_classes}. Set num_classes={len(stored) - 1} to use the checkpoint "
        "as it is, or decode_head.replace_classifier=True to fine-tune it on the new classes."
    )
