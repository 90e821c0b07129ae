"""Keys of mmseg's and mmdet's Mask2Former models; both name the parts of a head alike."""

from torch import Tensor, nn

#: What our query decoder holds; in mmdet and mmseg these lie in the head itself.
_QUERY_DECODER_PARTS = (
    "query_feat.",
    "query_embed.",
    "level_embed.",
    "decoder_input_proj.",
    "decoder_input_projs.",
    "transformer_decoder.",
    "cls_embed.",
    "mask_embed.",
)


def adopt_head_keys(_: nn.Module, state_dict: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Rename, in place, the keys of an OpenMMLab head to ours; a `load_state_dict` pre-hook of `MaskHead`."""
    for part in _QUERY_DECODER_PARTS:
        for key in [key for key in state_dict if key.startswith(prefix + part)]:
            state_dict[f"{prefix}query_decoder.{key[len(prefix) :]}"] = state_dict.pop(key)


def adopt_detector_keys(_: nn.Module, state_dict: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Rename, in place, mmdet's `panoptic_head.*` to `decode_head.*`; a pre-hook of the shells."""
    old = f"{prefix}panoptic_head."
    for key in [key for key in state_dict if key.startswith(old)]:
        state_dict[f"{prefix}decode_head.{key[len(old) :]}"] = state_dict.pop(key)
