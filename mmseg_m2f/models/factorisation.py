"""SegNeXt's matrix factorisation with the same result for the same image (arXiv 2209.08575; Hamburger, 2109.04553)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from mmseg.models.decode_heads.ham_head import NMF2D, Hamburger
from torch import Tensor


class SteadyNMF(NMF2D):
    """mmseg's non-negative factorisation `X ≈ D C`, with fixed initial bases in evaluation.

    mmseg draws the initial bases D₀ anew in every call, so that a prediction depends on the state of the random
    generator. Here only training draws them; in evaluation every image starts from the same bases, uniform in [0, 1)
    and normalised over the channels like the random ones. They are made from seed 0 and are not stored in checkpoints.

    Args:
        channels: C of the maps.
        options: the arguments of mmseg's `Matrix_Decomposition_2D_Base`: `MD_S`, `MD_R`, `train_steps`, `eval_steps`.
    """

    fixed_bases: Tensor

    def __init__(self, channels: int, options: Mapping[str, object]) -> None:
        super().__init__(dict(options))
        generator = torch.Generator().manual_seed(0)
        bases = torch.rand(self.S, channels // self.S, self.R, generator=generator, device="cpu")
        self.register_buffer("fixed_bases", F.normalize(bases, dim=1), persistent=False)

    def _build_bases(
        self, B: int | Tensor, S: int, D: int | Tensor, R: int, device: torch.device | None = None
    ) -> Float[Tensor, "N D R"]:
        """N = B · S bases; sizes are tensors while a model is traced."""
        if self.training:
            return super()._build_bases(B, S, D, R, device)
        return self.fixed_bases.repeat(B, 1, 1)  # type: ignore[arg-type]


def fix_bases(hamburger: Hamburger, options: Mapping[str, object]) -> None:
    """Give mmseg's Hamburger module a `SteadyNMF` with the same options; no parameter changes."""
    hamburger.ham = SteadyNMF(hamburger.ham_in.in_channels, options)
