"""Image as Set of Points (Context Cluster, arXiv 2303.01494): pixels are points, clustered within regions.

Written from the paper and a description of the authors' code; nothing is copied. Names of parameters are those of the
authors' files, which load as they are: classifiers lack the norms of the outputs (`norm0`, `norm2`, `norm4`, `norm6`),
and the number of centres has no parameters, so weights trained with 4 centres serve for 25 and 49.

Deviations:
- A map whose sides the fold does not divide is padded; padded points are assigned to no centre and enter no mean. The
  authors' code refuses such a map. Without padding the results are the same.
- Sums over points are matrix products, and similarities are computed in float32 under autocast: the same numbers,
  without a tensor of regions × centres × points × channels, and without zero vectors that become NaN in half precision.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from jaxtyping import Float
from mmcv.cnn.bricks import DropPath
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec


class ClusterArch(NamedTuple):
    """Sizes of a variant; every tuple has one entry per stage.

    Args:
        depths: blocks.
        widths: C of the maps.
        heads: M, independent sets of centres.
        head_width: channels of each of them.
        center_grid: p; a region has p × p centres.
        folds: φ; a map is cut into φ × φ regions.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    heads: Sequence[int]
    head_width: int = 32
    mlp_ratios: Sequence[int] = (8, 8, 4, 4)
    center_grid: Sequence[int] = (2, 2, 2, 2)
    folds: Sequence[int] = (8, 4, 2, 1)


_TINY = ClusterArch((3, 4, 5, 2), (32, 64, 196, 320), (4, 4, 8, 8), head_width=24)
ARCHS = {
    "tiny": _TINY,
    "tiny2": _TINY._replace(center_grid=(4, 2, 7, 4), folds=(7, 7, 1, 1)),
    "tiny_plain": _TINY._replace(center_grid=(4, 4, 2, 2), folds=(1, 1, 1, 1)),
    "small": ClusterArch((2, 2, 6, 2), (64, 128, 320, 512), (4, 4, 8, 8)),
    "medium": ClusterArch((4, 4, 12, 4), (64, 128, 320, 512), (6, 6, 12, 12)),
    "base64": ClusterArch((6, 6, 24, 6), (64, 128, 320, 512), (8, 8, 16, 16)),
    "base96": ClusterArch((4, 4, 12, 4), (96, 192, 384, 768), (8, 8, 16, 16)),
}


@MODELS.register_module()
class ContextCluster(BaseModule):
    """Maps of strides 4, 8, 16 and 32, fine to coarse, each with its own norm.

    Args:
        arch: a name of `ARCHS`, or the fields of a `ClusterArch`.
        in_channels: of the images; their coordinates come on top.
        center_grid: p of all stages or of each; the variant's own if not given. Segmentation uses 2, 5 or 7.
        out_indices: stages (0…3) whose maps are returned; later stages than the last of them are not built.
        drop_path_rate: of the last block; it grows linearly from 0.
        layer_scale_init: initial factor of both branches of a block. The published 1e-5 suits long training; from
            random weights on little data training hardly progresses with it: set 1.
        with_cp: compute blocks again in the backward pass, for memory.

    Raises:
        ValueError: no such variant, or entries that do not make four stages.
    """

    def __init__(
        self,
        arch: str | Mapping[str, int | Sequence[int]] = "small",
        *,
        in_channels: int = 3,
        center_grid: int | Sequence[int] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        layer_scale_init: float = 1e-5,
        with_cp: bool = False,
        init_cfg: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = _checked_arch(arch, center_grid)
        self.out_indices = _checked_stages(out_indices)
        self.with_cp = with_cp
        depths, widths, heads, head_width, mlp_ratios, grids, folds = self.arch
        last = max(sum(depths) - 1, 1)
        rates = (drop_path_rate * index / last for index in range(sum(depths)))
        self.patch_embed = PointReducer(CoordinateConv(in_channels, widths[0], kernel_size=4, stride=4))
        self.network = nn.ModuleList()
        for stage in range(max(self.out_indices) + 1):
            if stage:
                reduce = nn.Conv2d(widths[stage - 1], widths[stage], kernel_size=3, stride=2, padding=1)
                self.network.append(PointReducer(reduce))
            blocks = [
                ContextClusterBlock(
                    widths[stage],
                    heads=heads[stage],
                    head_width=head_width,
                    mlp_ratio=mlp_ratios[stage],
                    center_grid=grids[stage],
                    fold=folds[stage],
                    drop_path=next(rates),
                    layer_scale_init=layer_scale_init,
                )
                for _ in range(depths[stage])
            ]
            self.network.append(nn.Sequential(*blocks))
        for stage in self.out_indices:
            self.add_module(f"norm{2 * stage}", nn.GroupNorm(1, widths[stage]))

    def forward(self, images: Float[Tensor, "B _ H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Maps of the stages of `out_indices`."""
        x = self.patch_embed(images)
        maps = []
        for index, part in enumerate(self.network):
            if not isinstance(part, nn.Sequential):  # a reducer
                x = part(x)
                continue
            for block in part:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False) if self._saves(x) else block(x)
            if index // 2 in self.out_indices:
                maps.append(self.get_submodule(f"norm{index}")(x))
        return tuple(maps)

    @property
    def feature_info(self) -> FeatureSpec:
        """Channels and strides of the maps."""
        return FeatureSpec(
            tuple(self.arch.widths[stage] for stage in self.out_indices),
            tuple(4 * 2**stage for stage in self.out_indices),
        )

    def _saves(self, x: Tensor) -> bool:
        return self.with_cp and self.training and x.requires_grad


class PointReducer(nn.Module):
    """Concatenates neighbouring points and projects them linearly, which is a convolution."""

    def __init__(self, proj: nn.Conv2d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B _ _ _"]:
        return self.proj(x)


class CoordinateConv(nn.Conv2d):
    """A convolution over the input and two coordinate channels, row and column, from -0.5 to 0.5 at any size."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int) -> None:
        super().__init__(in_channels + 2, out_channels, kernel_size, stride)
        self.in_channels = in_channels  # without the coordinates, for `probe_feature_spec`

    def forward(self, x: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B _ _ _"]:
        rows, columns = (torch.linspace(-0.5, 0.5, size, dtype=x.dtype, device=x.device) for size in x.shape[-2:])
        coordinates = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(x.shape[0], -1, -1, -1)
        return super().forward(torch.cat([x, coordinates], dim=1))


class ContextClusterBlock(nn.Module):
    """`x + s₁ · cluster(norm(x))`, then `x + s₂ · MLP(norm(x))`, with a factor s per channel; usable on any map.

    Args:
        channels: C.
        heads, head_width, center_grid, fold: see `PointClustering`.
        mlp_ratio: hidden channels of the MLP over C.
        drop_path: probability with which an image skips a branch in training.
        layer_scale_init: of the factor of each channel of a branch.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        head_width: int = 32,
        mlp_ratio: int = 4,
        center_grid: int = 2,
        fold: int = 1,
        drop_path: float = 0.0,
        layer_scale_init: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, channels)
        self.token_mixer = PointClustering(
            channels, heads=heads, head_width=head_width, center_grid=center_grid, fold=fold
        )
        self.norm2 = nn.GroupNorm(1, channels)
        self.mlp = PointMLP(channels, mlp_ratio * channels)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), layer_scale_init))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), layer_scale_init))
        self.drop_path = DropPath(drop_path)

    def no_weight_decay(self) -> set[str]:
        """Factors of the branches and of the similarity."""
        return {"layer_scale_1", "layer_scale_2", "token_mixer.sim_alpha", "token_mixer.sim_beta"}

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.token_mixer(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))


class PointMLP(nn.Module):
    """Two linear layers on the channels of each point, with a GELU between them."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.fc2 = nn.Linear(hidden_channels, channels)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return self.fc2(F.gelu(self.fc1(x.movedim(1, -1)))).movedim(-1, 1)


class PointClustering(nn.Module):
    """Assigns each point of a region to the most similar of p × p centres and returns the centre's mean; see `cluster`.

    Args:
        channels: C.
        heads: M, independent sets of centres, each on its own channels.
        head_width: channels of each head, of both features and values.
        center_grid: p.
        fold: φ; a map is cut into φ × φ independent regions.
    """

    def __init__(self, channels: int, *, heads: int, head_width: int, center_grid: int = 2, fold: int = 1) -> None:
        super().__init__()
        self.heads, self.center_grid, self.fold = heads, center_grid, fold
        self.f = nn.Conv2d(channels, heads * head_width, 1)
        self.v = nn.Conv2d(channels, heads * head_width, 1)
        self.proj = nn.Conv2d(heads * head_width, channels, 1)
        self.sim_alpha = nn.Parameter(torch.ones(1))
        self.sim_beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        height, width = x.shape[-2:]
        bottom, right = -height % self.fold, -width % self.fold
        points, values = (self._split(F.pad(layer(x), (0, right, 0, bottom))) for layer in (self.f, self.v))
        valid = None
        if torch.compiler.is_exporting() or bottom or right:  # an exported program pads whatever the size
            inside = F.pad(x.new_ones(1, 1, height, width), (0, right, 0, bottom))
            valid = _regions(inside, self.fold).repeat(x.shape[0] * self.heads, 1, 1, 1)
        gathered = cluster(points, values, self.sim_alpha, self.sim_beta, center_grid=self.center_grid, valid=valid)
        merged = gathered.unflatten(0, (x.shape[0], self.heads, self.fold, self.fold))  # B M φ φ c h w
        merged = merged.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return self.proj(merged[..., :height, :width])

    def _split(self, x: Tensor) -> Tensor:
        """Heads and regions as a batch, a head's regions next to each other."""
        return _regions(x.unflatten(1, (self.heads, -1)).flatten(0, 1), self.fold)


def cluster(
    points: Float[Tensor, "R c h w"],
    values: Float[Tensor, "R c h w"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    center_grid: int,
    valid: Float[Tensor, "R 1 h w"] | None = None,
) -> Float[Tensor, "R c h w"]:
    """Mean value of each point's centre, times the point's similarity to it, in R regions.

    `s_ij = sigmoid(α · cos(centre_i, point_j) + β)`; point j belongs to the centre c(j) with the largest s. Centre i
    has the value `g_i = (v_i + Σ_{c(j)=i} s_ij · v_j) / (1 + Σ_{c(j)=i} s_ij)`, where v_i is the mean of its bin, and
    point j gets `s_{c(j)j} · g_{c(j)}`. Where similarities are equal, as on a constant map, the choice of the centre
    depends on the device. The choice has no gradient, the similarity has one.

    Args:
        points: features whose cosine is the similarity.
        values: v; both are 0 where they are not valid.
        alpha: α.
        beta: β.
        center_grid: p; centres are the means of p × p bins of their region.
        valid: 1 for points, 0 for padding, whose result is 0; None without padding.
    """
    shares = None if valid is None else F.adaptive_avg_pool2d(valid, center_grid).flatten(2)  # R 1 centres
    centers, center_values = (_bin_means(x, center_grid, shares) for x in (points, values))
    with torch.autocast(points.device.type, enabled=False):
        directions = (F.normalize(x.float(), dim=1) for x in (centers, points.flatten(2)))
        cosine = torch.einsum("rci,rcj->rij", *directions)  # R centres points
        similarity = torch.sigmoid(beta.float()[0] + alpha.float()[0] * cosine)
    if shares is not None:
        similarity = similarity.masked_fill(shares.transpose(1, 2) == 0, -1.0)  # an empty bin gets no points
    nearest, choice = similarity.max(dim=1, keepdim=True)  # R 1 points
    if valid is not None:
        nearest = nearest * valid.flatten(2)
    joined = torch.zeros_like(similarity).scatter(1, choice, nearest).to(values.dtype)
    sums = center_values + torch.einsum("rij,rcj->rci", joined, values.flatten(2))
    means = sums / (1 + joined.sum(dim=2)).unsqueeze(1)
    return torch.einsum("rij,rci->rcj", joined, means.to(values.dtype)).unflatten(2, tuple(values.shape[-2:]))


def _bin_means(x: Tensor, center_grid: int, shares: Tensor | None) -> Tensor:
    """R c h w → R c centres. `shares` is the valid part of each bin; an empty bin has mean 0."""
    means = F.adaptive_avg_pool2d(x, center_grid).flatten(2)
    return means if shares is None else means / shares.masked_fill(shares == 0, 1.0)


def _regions(x: Tensor, fold: int) -> Tensor:
    """N c H W → (N φ φ) c h w."""
    parts = x.unflatten(3, (fold, -1)).unflatten(2, (fold, -1))  # N c φ h φ w
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def _checked_arch(
    arch: str | Mapping[str, int | Sequence[int]], center_grid: int | Sequence[int] | None
) -> ClusterArch:
    if isinstance(arch, str) and arch not in ARCHS:
        near = difflib.get_close_matches(arch, ARCHS, n=2, cutoff=0.4)
        raise InvalidValueError(
            f"ContextCluster: arch: expected one of {', '.join(ARCHS)}, got '{arch}'. "
            f"Did you mean {' or '.join(near) or 'a dict of the fields of ClusterArch'}?"
        )
    if not isinstance(arch, str):
        needed = set(ClusterArch._fields) - set(ClusterArch._field_defaults)
        if not needed <= set(arch) <= set(ClusterArch._fields):
            raise InvalidValueError(
                f"ContextCluster: arch: expected the fields {', '.join(ClusterArch._fields)}, of which the first "
                f"{len(needed)} have no default, got {', '.join(arch)}."
            )
    found = ARCHS[arch] if isinstance(arch, str) else ClusterArch(**arch)  # type: ignore[arg-type]
    if center_grid is not None:
        found = found._replace(center_grid=(center_grid,) * 4 if isinstance(center_grid, int) else center_grid)
    for name, entries in found._asdict().items():
        if name != "head_width" and (len(entries) != 4 or min(entries) < 1):
            raise InvalidValueError(
                f"ContextCluster: {name}: expected four positive numbers, one per stage, got {tuple(entries)}."
            )
    return found


def _checked_stages(out_indices: Sequence[int]) -> tuple[int, ...]:
    stages = tuple(out_indices)
    if not stages or list(stages) != sorted(set(stages) & set(range(4))):
        raise InvalidValueError(
            f"ContextCluster: out_indices: expected stages among 0, 1, 2, 3 in ascending order, got {stages}."
        )
    return stages
