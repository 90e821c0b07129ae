"""Maps with tokens in some cells only, as a transformer returns that drops tokens (SegViTv2, arXiv 2306.06289)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import overload

from jaxtyping import Bool, Float
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError


@dataclass(frozen=True, eq=False)
class PartialMaps(Sequence[Tensor]):
    """Maps with tokens in some cells only; as a sequence, the maps alone.

    Attributes:
        maps: all on the same grid; 0 in cells without a token.
        valid: for each map, True in cells with a token; None where all cells have one.
        edge_logits: logit of the probability that a cell holds more than one class, from the tokens before some were
            dropped.
        patch_size: side of a cell in pixels.
    """

    maps: tuple[Float[Tensor, "B _ H W"], ...]
    valid: tuple[Bool[Tensor, "B H W"] | None, ...]
    edge_logits: Float[Tensor, "B H W"]
    patch_size: int

    def check_extra_losses(self, losses: Collection[object]) -> None:
        """The edge logits are trained by an extra loss alone (see `structures.NeedsExtraLoss`).

        Raises:
            ValueError: there is none, although the backbone is trained.
        """
        if self.edge_logits.requires_grad and not losses:
            raise InvalidValueError(
                "decode_head.extra_losses is empty, but the backbone keeps tokens where it expects edges "
                "(shrink.sampler='edge') and no loss trains this expectation. Set "
                "decode_head.extra_losses=[dict(type='mmseg_m2f.TokenEdgeLoss')], or freeze the backbone."
            )

    def __len__(self) -> int:
        return len(self.maps)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        return self.maps[index]
