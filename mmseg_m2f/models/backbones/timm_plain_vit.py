"""timm's plain vision transformers as backbones that return maps, all of one stride."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.backbones.timm_vit import adapt_vit, build_timm_vit, check_image_size, undecayed_names
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, TokenStream


@MODELS.register_module()
class TimmPlainViT(nn.Module):
    """A vision transformer of timm whose patches after some blocks are the maps; a neck makes a pyramid of them.

    Any model that timm builds from `VisionTransformer` (ViT, DeiT III, MAE, CLIP, DINOv2) or from `Eva` (DINOv3).
    Class and register tokens take part in the blocks and are not in the maps. Blocks behind the last map are left out;
    parameters keep timm's names below `vit.`. Needs the extra `timm`, from 1.0.26 on.

    Args:
        model_name: timm's name of the model.
        out_indices: blocks, counted from 0 or, if negative, from the end, whose patches are returned, in this order.
        as_tokens: return a `TokenStream` with all tokens after these blocks, class and registers too, for
            `FrozenEncoderBlocks`.
        norm: apply the model's final norm to each map, as DINOv3's own heads expect; ViTDet and Rein do without.
        frozen: the transformer keeps its weights, runs without gradients and without dropout, and keeps no activations.
        lora: train low-rank changes of the blocks' linear layers instead of the weights; see `LoRASettings`.
        img_size, patch_size, pretrained, checkpoint_path, model_options: see `build_timm_vit`.

    Raises:
        KeyError: `lora` names layers that the blocks do not have.
        ValueError: `out_indices` are no ascending numbers of blocks, the model has no final norm, or both `frozen` and
            `lora` are given.
    """

    def __init__(
        self,
        model_name: str,
        *,
        out_indices: Sequence[int] = (-1,),
        as_tokens: bool = False,
        norm: bool = False,
        frozen: bool = False,
        lora: dict | None = None,
        img_size: tuple[int, int] | None = None,
        patch_size: int = 16,
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        model_options: dict | None = None,
    ) -> None:
        super().__init__()
        check_frozen(frozen=frozen, lora=lora)
        self.patch_size = self.size_multiple = patch_size
        self.as_tokens, self.norm, self.frozen = as_tokens, norm, frozen
        vit = build_timm_vit(
            model_name,
            img_size=img_size,
            patch_size=patch_size,
            pretrained=pretrained,
            checkpoint_path=checkpoint_path,
            model_options=model_options,
        )
        self.vit = cast(Any, vit)  # timm ships no types
        if norm and isinstance(self.vit.norm, nn.Identity):
            raise InvalidValueError(
                f"model.backbone.norm: expected False, because {model_name} has no final norm of its tokens, got True."
            )
        self.out_indices = ascending_blocks(out_indices, len(self.vit.blocks))
        self.vit.prune_intermediate_layers(list(self.out_indices), prune_norm=not norm)
        adapt_vit(self.vit, lora)
        if frozen:
            self.vit.requires_grad_(False)

    def forward(self, images: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B D H1 W1"], ...] | TokenStream:
        """The patches after each of the blocks, as maps of the stride of a patch; or all tokens.

        Raises:
            ValueError: height or width of the images is no multiple of the patch size.
        """
        check_image_size(images.shape[-2:], self.patch_size, backbone="TimmPlainViT")
        run = self._stream if self.as_tokens else self._maps
        if self.frozen:
            with torch.no_grad():
                return run(images)
        return run(images)

    def _maps(self, images: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B D H1 W1"], ...]:
        maps = self.vit.forward_intermediates(
            images, indices=list(self.out_indices), norm=self.norm, output_fmt="NCHW", intermediates_only=True
        )
        return tuple(maps)

    def _stream(self, images: Float[Tensor, "B C H W"]) -> TokenStream:
        num_prefix = self.vit.num_prefix_tokens
        taps = self.vit.forward_intermediates(
            images,
            indices=list(self.out_indices),
            norm=self.norm,
            return_prefix_tokens=num_prefix > 0,
            output_fmt="NLC",
            intermediates_only=True,
        )
        side_tokens = tuple(torch.cat([prefix, patches], 1) for patches, prefix in taps) if num_prefix else tuple(taps)
        grid = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        return TokenStream(
            tokens=side_tokens[-1],
            grid=grid,
            num_prefix=num_prefix,
            blocks=(),
            norm=nn.Identity(),
            side_tokens=side_tokens,
        )

    def train(self, mode: bool = True) -> "TimmPlainViT":
        """Training mode, except for a frozen transformer."""
        super().train(mode)
        if self.frozen:
            self.vit.eval()
        return self

    @property
    def feature_info(self) -> FeatureSpec:
        """Channels and strides of the maps."""
        num_maps = 1 if self.as_tokens else len(self.out_indices)
        return FeatureSpec((self.vit.embed_dim,) * num_maps, (self.patch_size,) * num_maps)

    def no_weight_decay(self) -> set[str]:
        """Positions and tokens of timm's model."""
        return {f"vit.{name}" for name in undecayed_names(self.vit)}


def ascending_blocks(indices: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Numbers of blocks counted from 0.

    Raises:
        ValueError: there is none, one is no block's, or they do not ascend.
    """
    found = tuple(index + num_blocks if index < 0 else index for index in indices)
    if not found or list(found) != sorted(set(found)) or not 0 <= found[0] <= found[-1] < num_blocks:
        raise InvalidValueError(
            f"model.backbone.out_indices: expected ascending numbers of the {num_blocks} blocks, from 0 to "
            f"{num_blocks - 1} (or from {-num_blocks} to -1), got {tuple(indices)}."
        )
    return found


def check_frozen(*, frozen: bool, lora: dict | None) -> None:
    """Refuse weights that are fixed and adapted at once.

    Raises:
        ValueError: both are asked for.
    """
    if frozen and lora:
        raise InvalidValueError(
            "model.backbone: expected frozen=True or lora=dict(...), got both. With lora the weights are fixed, and "
            "their low-rank changes are trained: leave frozen out."
        )
