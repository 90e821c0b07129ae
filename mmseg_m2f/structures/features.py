"""What backbones and pixel decoders hand on: maps, a token stream, and their sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, overload, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class FeatureSpec:
    """Channels and strides of a backbone's maps, fine to coarse.

    `num_joint_blocks` is the number of remaining blocks of a `TokenStream`; 0 for backbones that return maps alone.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    num_joint_blocks: int = 0


@dataclass(frozen=True)
class PixelSpec:
    """Channels of a pixel decoder's `PixelFeatures`; the names are the same."""

    mask_features: int
    levels: tuple[int, ...]
    memory: int


@runtime_checkable
class TokenBlock(Protocol):
    """One block of a transformer over queries, prefix tokens and patches, in this order."""

    def __call__(
        self, tokens: Float[Tensor, "B N C"], may_attend: Bool[Tensor, "B 1 N N"] | None = None
    ) -> Float[Tensor, "B N C"]:
        """The tokens after the block.

        Args:
            tokens: those of the `TokenStream`, possibly with further ones in front.
            may_attend: True where a token (row) may attend to another; None for everywhere.
        """
        ...


@dataclass(frozen=True, eq=False)
class TokenStream(Sequence[Tensor]):
    """Tokens of a plain vision transformer before its last blocks, and these blocks.

    As a sequence of maps it has one element, the patches.

    Attributes:
        tokens: prefix tokens (class, registers), then patches row by row.
        grid: height and width of the patches.
        num_prefix: prefix tokens.
        blocks: the remaining blocks.
        norm: of the tokens after the last block.
        side_tokens: tokens after earlier blocks, in their order, for a neck that has blocks of its own.
    """

    tokens: Float[Tensor, "B N C"]
    grid: tuple[int, int]
    num_prefix: int
    blocks: tuple[TokenBlock, ...]
    norm: Callable[[Tensor], Tensor]
    side_tokens: tuple[Float[Tensor, "B N C"], ...] = ()

    def patch_map(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B C H W"]:
        """The patches, which stand last in `tokens`, as a map."""
        num_patches = self.grid[0] * self.grid[1]
        return tokens[:, tokens.shape[1] - num_patches :].transpose(1, 2).unflatten(-1, self.grid)

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        return (self.patch_map(self.tokens),)[index]


class PixelFeatures(NamedTuple):
    """What a pixel decoder returns.

    `mask_features` is the map that masks are computed from: the finest one, multiplied with mask embeddings, except for
    DETR, whose mask head starts from the coarsest.
    `levels` are maps for the queries, coarse to fine: each layer of masked attention attends to one of them.
    `memory` is the coarse map for global attention.
    `valid` is True for cells of `memory` on the image; None without padding, or to treat it as image.
    """

    mask_features: Float[Tensor, "B C H W"]
    levels: tuple[Float[Tensor, "B _ _ _"], ...]
    memory: Float[Tensor, "B C2 H2 W2"]
    valid: Bool[Tensor, "B H2 W2"] | None = None
