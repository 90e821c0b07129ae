"""ViT-Adapter (arXiv 2205.08534): maps of four strides from a plain vision transformer and a branch of convolutions.

Without injectors it is the form of DINOv3's Mask2Former (arXiv 2508.10104): the transformer runs first, without reading
the branch. Deviations: class and register tokens go through the blocks alone, as in the release's BEiT version (its
version for timm's models drops the class token); positions are resized with antialiasing, as timm does; batch norm
stands for the published SyncBN, and mmengine's `sync_bn = "torch"` exchanges it.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.backbones.adapter_layers import Adapter
from mmseg_m2f.models.backbones.timm_plain_vit import ascending_blocks, check_frozen
from mmseg_m2f.models.backbones.timm_vit import adapt_vit, build_timm_vit, check_image_size, undecayed_names
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec

_PATCH_SIZE = 16


@MODELS.register_module()
class ViTAdapter(nn.Module):
    """A vision transformer of timm with an adapter: maps of stride 4, 8, 16 and 32, all as wide as the transformer.

    The transformer keeps timm's names below `vit.`; all that is new lies below `adapter.` and learns as fast as the
    head. Patches have 16 pixels; weights of other sizes are resampled. Sides of images are multiples of 16.

    Args:
        model_name: timm's name of the model; see `build_timm_vit`.
        injectors: let the patches read the adapter's maps before each group of blocks; the maps are then read without
            the final norm. False: the transformer runs first, and each map goes through its final norm.
        out_indices: the last blocks of the four groups; quarters of the blocks unless given.
        frozen: the transformer keeps its weights and has no dropout; without injectors it runs without gradients and
            keeps no activations.
        lora: train low-rank changes of the blocks' linear layers instead of the weights; see `LoRASettings`.
        adapter: further arguments of `Adapter`; `num_heads` is the transformer's own unless given.
        img_size, pretrained, checkpoint_path, model_options: see `build_timm_vit`.

    Raises:
        KeyError: `lora` names layers that the blocks do not have.
        ValueError: `out_indices` are not four ascending numbers of blocks, or both `frozen` and `lora` are given.
    """

    def __init__(
        self,
        model_name: str,
        *,
        injectors: bool = True,
        out_indices: Sequence[int] | None = None,
        frozen: bool = False,
        lora: dict | None = None,
        adapter: ConfigDict | dict | None = None,
        img_size: tuple[int, int] | None = None,
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        model_options: dict | None = None,
    ) -> None:
        super().__init__()
        check_frozen(frozen=frozen, lora=lora)
        self.frozen, self.size_multiple = frozen, _PATCH_SIZE
        vit = build_timm_vit(
            model_name,
            img_size=img_size,
            patch_size=_PATCH_SIZE,
            pretrained=pretrained,
            checkpoint_path=checkpoint_path,
            model_options=model_options,
        )
        self.vit = cast(Any, vit)  # timm ships no types
        depth = len(self.vit.blocks)
        self.out_indices = ascending_blocks(
            [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)] if out_indices is None else out_indices, depth
        )
        if len(self.out_indices) != 4:
            raise InvalidValueError(
                f"model.backbone.out_indices (ViTAdapter): expected 4 blocks, one for each map, got "
                f"{len(self.out_indices)}."
            )
        self.vit.prune_intermediate_layers(list(self.out_indices), prune_norm=injectors)
        adapt_vit(self.vit, lora)
        if frozen:
            self.vit.requires_grad_(False)
        own = dict(num_heads=self.vit.blocks[0].attn.num_heads, injectors=injectors)
        self.adapter = Adapter(self.vit.embed_dim, **(own | dict(adapter or {})))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B D _ _"], ...]:
        """Maps of stride 4, 8, 16 and 32.

        Raises:
            ValueError: height or width of the images is no multiple of 16.
        """
        check_image_size(images.shape[-2:], _PATCH_SIZE, backbone="ViTAdapter")
        grid = (images.shape[-2] // _PATCH_SIZE, images.shape[-1] // _PATCH_SIZE)
        finest, maps, sizes = self.adapter.start(images)
        if len(self.adapter.injectors):
            maps, patch_maps = self._run_with_injectors(images, maps, grid=grid, sizes=sizes)
        else:
            patch_maps = self._run_first(images)
            for group, x in enumerate(patch_maps):
                maps = self.adapter.extract(group, maps, _tokens(x), grid=grid, sizes=sizes)
        return self.adapter.finish(finest, maps, patch_maps, sizes=sizes)

    def _run_first(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B D h w"]]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.vit.forward_intermediates(
                images, indices=list(self.out_indices), norm=True, output_fmt="NCHW", intermediates_only=True
            )

    def _run_with_injectors(
        self,
        images: Float[Tensor, "B 3 H W"],
        maps: Float[Tensor, "B Nc D"],
        *,
        grid: tuple[int, int],
        sizes: Sequence[tuple[int, int]],
    ) -> tuple[Float[Tensor, "B Nc D"], list[Float[Tensor, "B D h w"]]]:
        placed = self.vit._pos_embed(self.vit.patch_embed(images))
        tokens, rotation = placed if isinstance(placed, tuple) else (placed, None)
        keywords = {} if rotation is None else dict(rope=rotation)
        tokens, num_prefix = self.vit.norm_pre(tokens), self.vit.num_prefix_tokens
        patch_maps, first = [], 0
        for group, last in enumerate(self.out_indices):
            patches = self.adapter.injectors[group](tokens[:, num_prefix:], maps, grid=grid, sizes=sizes)
            tokens = torch.cat([tokens[:, :num_prefix], patches], 1)
            for block in self.vit.blocks[first : last + 1]:
                tokens = block(tokens, **keywords)
            patches, first = tokens[:, num_prefix:], last + 1
            maps = self.adapter.extract(group, maps, patches, grid=grid, sizes=sizes)
            patch_maps.append(patches.transpose(1, 2).unflatten(-1, grid))
        return maps, patch_maps

    def train(self, mode: bool = True) -> "ViTAdapter":
        """Training mode, except for a frozen transformer."""
        super().train(mode)
        if self.frozen:
            self.vit.eval()
        return self

    @property
    def feature_info(self) -> FeatureSpec:
        """Channels and strides of the maps."""
        return FeatureSpec((self.vit.embed_dim,) * 4, (4, 8, 16, 32))

    def no_weight_decay(self) -> set[str]:
        """Positions and tokens of timm's model."""
        return {f"vit.{name}" for name in undecayed_names(self.vit)}


def _tokens(patch_map: Float[Tensor, "B D h w"]) -> Float[Tensor, "B N D"]:
    return patch_map.flatten(2).transpose(1, 2)
