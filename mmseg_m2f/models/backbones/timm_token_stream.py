"""timm's plain vision transformers, stopped before their last blocks so that queries can join them."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.backbones.timm_vit import adapt_vit, build_timm_vit, check_image_size, undecayed_names
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, TokenBlock, TokenStream


@MODELS.register_module()
class TimmTokenStream(nn.Module):
    """A vision transformer of timm that runs all but its last blocks and returns those (EoMT, arXiv 2503.19108).

    Any model that timm builds from `VisionTransformer` (ViT, DeiT III, DINOv2) or from `Eva` with rotary positions
    (DINOv3). Parameters keep timm's names below `vit.`. Needs the extra `timm`, whose blocks take boolean masks from
    timm 1.0.26 on: before, some take none and some add them as numbers.

    Args:
        model_name: timm's name of the model.
        num_joint_blocks: last blocks, which the query decoder runs.
        img_size: height and width in pixels that the positions are learnt for; they are resized for other inputs.
        patch_size: height and width in pixels of a patch; loaded weights of other sizes are resampled.
        pretrained: fetch timm's weights of this model.
        checkpoint_path: a file to take weights from instead, in timm's names or as DINOv2 and DINOv3 publish them.
        lora: train low-rank changes of the blocks' linear layers instead of the weights; see `LoRASettings`.
        model_options: further arguments of timm's model, for example `drop_path_rate`.
    """

    def __init__(
        self,
        model_name: str,
        *,
        num_joint_blocks: int = 4,
        img_size: tuple[int, int] = (640, 640),
        patch_size: int = 16,
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        lora: dict | None = None,
        model_options: dict | None = None,
    ) -> None:
        super().__init__()
        self.patch_size = self.size_multiple = patch_size
        self.num_joint_blocks = num_joint_blocks
        vit = build_timm_vit(
            model_name,
            img_size=img_size,
            patch_size=patch_size,
            pretrained=pretrained,
            checkpoint_path=checkpoint_path,
            model_options=model_options,
        )
        self.vit = cast(Any, vit)  # timm ships no types
        if not 0 < num_joint_blocks < len(self.vit.blocks):
            raise InvalidValueError(
                f"model.backbone ({model_name}): num_joint_blocks is {num_joint_blocks}, but there are "
                f"{len(self.vit.blocks)} blocks. Expected at least one joint block and one before."
            )
        adapt_vit(self.vit, lora)

    def forward(self, images: Float[Tensor, "B C H W"]) -> TokenStream:
        """The tokens before the joint blocks.

        Raises:
            ValueError: height or width of the images is no multiple of the patch size.
        """
        height, width = images.shape[-2:]
        check_image_size((height, width), self.patch_size, backbone="TimmTokenStream")
        grid = (height // self.patch_size, width // self.patch_size)
        first = len(self.vit.blocks) - self.num_joint_blocks
        num_prefix = self.vit.num_prefix_tokens
        (tokens,) = self.vit.forward_intermediates(
            images,
            indices=[first - 1],
            return_prefix_tokens=num_prefix > 0,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        if num_prefix:
            patches, prefix = tokens
            tokens = torch.cat([prefix, patches], 1)
        return TokenStream(
            tokens=tokens,
            grid=grid,
            num_prefix=num_prefix,
            blocks=tuple(self._joint_block(block, grid) for block in self.vit.blocks[first:]),
            norm=self.vit.norm,
        )

    @property
    def feature_info(self) -> FeatureSpec:
        """Channels and stride of the patches, and the number of joint blocks."""
        return FeatureSpec((self.vit.embed_dim,), (self.patch_size,), self.num_joint_blocks)

    def no_weight_decay(self) -> set[str]:
        """Positions and tokens of timm's model."""
        return {f"vit.{name}" for name in undecayed_names(self.vit)}

    def _joint_block(self, block: Callable[..., Tensor], grid: tuple[int, int]) -> TokenBlock:
        rope = getattr(self.vit, "rope", None)
        if rope is None:
            return partial(_run, block)
        return partial(_run_rotated, block, rope.get_embed(shape=grid), self.vit.num_prefix_tokens)


def _run(
    block: Callable[..., Tensor], tokens: Float[Tensor, "B N C"], may_attend: Bool[Tensor, "B 1 N N"] | None = None
) -> Float[Tensor, "B N C"]:
    return block(tokens, attn_mask=may_attend)


def _run_rotated(
    block: Callable[..., Tensor],
    rotation: Float[Tensor, "P R"],
    num_prefix: int,
    tokens: Float[Tensor, "B N C"],
    may_attend: Bool[Tensor, "B 1 N N"] | None = None,
) -> Float[Tensor, "B N C"]:
    """`rotation` holds sines, then cosines, of the patches; tokens before them are not rotated."""
    num_others = tokens.shape[1] - num_prefix - len(rotation)  # timm skips the first `num_prefix` tokens
    identity = torch.zeros_like(rotation[:1])
    identity[:, identity.shape[1] // 2 :] = 1  # cosines
    return block(tokens, rope=torch.cat([identity.expand(num_others, -1), rotation]), attn_mask=may_attend)
