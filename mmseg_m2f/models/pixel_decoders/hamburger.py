"""SegNeXt's context module as a pixel decoder: matrix factorisation instead of an attention encoder.

The head of SegNeXt (arXiv 2209.08575, section 3.2; Hamburger is arXiv 2109.04553) concatenates the maps at the size of
the second one and factorises the result, `X ≈ D C`. The interface to queries is our own definition, nothing was
published: queries attend to the result, averaged to the sizes of the coarser maps; an FPN step adds the finest map,
which SegNeXt does not use, for the masks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.ham_head import Hamburger
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.factorisation import fix_bases
from mmseg_m2f.models.pixel_decoders.fpn import top_down, top_down_convs
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, PixelFeatures, PixelSpec


@MODELS.register_module()
class HamburgerPixelDecoder(nn.Module):
    """Concatenates all maps but the finest, factorises the result and averages it to their sizes.

    Its memory is the coarsest level. The factorisation starts from random bases in training and from fixed ones in
    evaluation (see `SteadyNMF`), and treats padding as image.

    Args:
        feature_spec: channels and strides of the backbone's maps; the head passes it.
        channels: width of all maps inside and of the mask features.
        bases: R, rank of the factorisation.
        norm_groups: groups of the convolutions' GroupNorm.

    Raises:
        ValueError: if the backbone returns fewer than two maps.
    """

    def __init__(
        self, feature_spec: FeatureSpec, *, channels: int = 256, bases: int = 64, norm_groups: int = 32
    ) -> None:
        super().__init__()
        finest, *coarser = feature_spec.channels
        if not coarser:
            raise InvalidValueError(
                "HamburgerPixelDecoder: expected two maps or more, because it joins all but the finest, got one. Set "
                "the backbone's out_indices to return more."
            )
        self.spec = PixelSpec(channels, (channels,) * len(coarser), memory=channels)
        norm = dict(type="GN", num_groups=norm_groups)
        self.squeeze = ConvModule(sum(coarser), channels, 1, norm_cfg=norm)
        self.hamburger = Hamburger(channels, dict(MD_R=bases), norm_cfg=norm)
        fix_bases(self.hamburger, dict(MD_R=bases))
        self.lateral_convs, self.output_convs = top_down_convs([finest], channels, norm_groups)
        self.mask_feature = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, features: Sequence[Float[Tensor, "B _ _ _"]], valid: Bool[Tensor, "B _ _"] | None = None
    ) -> PixelFeatures:
        """Decode maps given fine to coarse."""
        finest, *coarser = features
        sizes = [x.shape[-2:] for x in coarser]
        joined = [F.interpolate(x, sizes[0], mode="bilinear", align_corners=False) for x in coarser]
        context = self._factorise(self.squeeze(torch.cat(joined, 1)))
        levels = [F.interpolate(context, size, mode="area") for size in sizes[::-1]]
        maps = top_down(self.lateral_convs, self.output_convs, context, [finest])
        return PixelFeatures(self.mask_feature(maps[-1]), tuple(levels), levels[0], valid)

    def _factorise(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """`self.hamburger`, whose sums over all pixels overflow in half precision, in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return self.hamburger(x.float())
