"""Losses of mask maps as one node of autograd."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mmseg_m2f.core.chunks import ChunkBudget
from mmseg_m2f.layers.matrix_products import batched_products
from mmseg_m2f.structures import MaskReadings

#: Padded maps, and their gradients.
_CHUNK = ChunkBudget(cpu=7 * 2**20, gpu=2**24)
#: Which maps of all: a range, or their numbers.
Rows = slice | Int[Tensor, "n"]
#: Reads some of the maps, given as such and by their range among all of them.
Reader = Callable[[Float[Tensor, "n H W"], Rows], MaskReadings]
Loss = Callable[..., Float[Tensor, "n"]]


def map_losses(
    maps: Float[Tensor, "N H W"], read: Reader, losses: Sequence[Loss], *, chunk: int
) -> Float[Tensor, "V N"]:
    """Each of V losses of every map, `chunk` maps at a time.

    The loss of a map must depend on that map alone. Gradients are computed in the forward pass and kept as one map per
    loss, so that nothing of the size of points or pixels of the canvas outlives its chunk.
    """
    return _MapLosses.apply(maps, read, losses, chunk)


def product_losses(
    embeddings: Float[Tensor, "N C"],
    features: Float[Tensor, "B C H W"],
    images: Int[Tensor, "N"],
    read: Reader,
    losses: Sequence[Loss],
    *,
    counts: Sequence[int],
    chunk: int,
) -> Float[Tensor, "V N"]:
    """`map_losses` of the maps `embeddings[n] · features[images[n]]`, of which only those of one chunk exist at a time.

    The operators per chunk do not depend on how many images and embeddings there are. Products are computed for all
    images in one batch, for which each image's embeddings are padded to the largest number of them in the chunk.
    Features of half precision are converted for the products alone, so that no second copy of them is kept.

    Args:
        embeddings: in the precision of the products, to which features are converted.
        images: ascending.
        counts: how many embeddings each image has, on the host.
        chunk: maps that are read at a time. Products may be computed for more of them at a time.
    """
    cells = features.shape[2:].numel()
    arrangement = _arrange(images, counts, max(_CHUNK.fitting(cells, features.device), chunk))
    return _ProductLosses.apply(embeddings, features, arrangement, chunk, read, losses)


class _Arrangement(NamedTuple):
    """Embeddings in columns: image b has its j-th embedding in row b of column j; chunks are ranges of columns.

    `order` sorts the embeddings by chunk, image and column; `cells` are their indices in the `B W` cells of a chunk,
    row by row, where W is the number of columns per chunk (`width`). Chunk c takes `order[bounds[c] : bounds[c + 1]]`.
    """

    order: Int[Tensor, "N"]
    cells: Int[Tensor, "N"]
    width: int
    bounds: tuple[int, ...]
    is_full: bool  # one chunk without padding, in which the embeddings stand as they are given


def _arrange(images: Int[Tensor, "N"], counts: Sequence[int], num_cells: int) -> _Arrangement:
    """Chunks of at most `num_cells` cells, or of one column."""
    most = max(counts)
    width = max(min(num_cells // len(counts), most), 1)
    # images are ascending: the first index of an image is where its number would be inserted.
    columns = torch.arange(len(images), device=images.device) - torch.searchsorted(images, images)
    chunks = columns // width
    cells = images * width + columns % width
    order = chunks.argsort(stable=True)
    sizes = [sum(max(min(count - first, width), 0) for count in counts) for first in range(0, most, width)]
    is_full = width == most == min(counts)
    return _Arrangement(order, cells[order], width, tuple(accumulate(sizes, initial=0)), is_full)


def _write_losses(
    maps: Float[Tensor, "n H W"],
    rows: Rows,
    place: slice,
    read: Reader,
    losses: Sequence[Loss],
    values: Float[Tensor, "V N"],
    gradients: Float[Tensor, "V N H W"] | None,
) -> None:
    """Write the losses of maps `rows` to their place, and their gradients if there is room for them."""
    maps = maps.detach().requires_grad_(gradients is not None)
    with torch.set_grad_enabled(gradients is not None):
        readings = read(maps, rows)
        found = [loss(*readings) for loss in losses]
    values[:, place] = torch.stack([value.detach() for value in found])
    if gradients is not None:
        for index, value in enumerate(found):
            last = index == len(found) - 1
            (gradient,) = torch.autograd.grad(value, maps, torch.ones_like(value), retain_graph=not last)
            gradients[index, place] = gradient


class _MapLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, maps: Tensor, read: Reader, losses: Sequence[Loss], chunk: int) -> Tensor:
        values = maps.new_empty(len(losses), len(maps))
        needed = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        gradients = maps.new_empty(len(losses), *maps.shape) if needed else None
        for first in range(0, len(maps), chunk):
            rows = slice(first, first + chunk)
            _write_losses(maps[rows], rows, rows, read, losses, values, gradients)
        if gradients is not None:
            ctx.save_for_backward(gradients)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _weighted_sum(gradients, upstream), None, None, None


class _ProductLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        embeddings: Tensor,
        features: Tensor,
        arrangement: _Arrangement,
        chunk: int,
        read: Reader,
        losses: Sequence[Loss],
    ) -> Tensor:
        order = arrangement.order
        needed = any(ctx.needs_input_grad[:2])  # type: ignore[attr-defined]
        values = embeddings.new_empty(len(losses), len(embeddings))  # in order of the chunks, as the gradients are
        gradients = values.new_empty(*values.shape, *features.shape[2:]) if needed else None
        for index in range(len(arrangement.bounds) - 1):
            maps, taken = _chunk_maps(embeddings, features, arrangement, index)
            for first in range(0, len(maps), chunk):
                part = slice(taken.start + first, min(taken.start + first + chunk, taken.stop))
                _write_losses(maps[first : first + chunk], order[part], part, read, losses, values, gradients)
            del maps  # before the next ones are made
        if gradients is not None:
            ctx.save_for_backward(embeddings, features, gradients)
            ctx.arrangement = arrangement  # type: ignore[attr-defined]
        return torch.empty_like(values).index_copy_(1, order, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        # autograd may be called under autocast, which would round the products.
        embeddings, features, gradients = ctx.saved_tensors  # type: ignore[attr-defined]
        arrangement: _Arrangement = ctx.arrangement  # type: ignore[attr-defined]
        with torch.autocast(upstream.device.type, enabled=False):
            found = _product_gradients(embeddings, features.to(embeddings.dtype), gradients, upstream, arrangement)
        return found[0], found[1].to(features.dtype), None, None, None, None


def _product_gradients(
    embeddings: Float[Tensor, "N C"],
    features: Float[Tensor, "B C H W"],
    gradients: Float[Tensor, "V N H W"],
    upstream: Float[Tensor, "V N"],
    arrangement: _Arrangement,
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "B C H W"]]:
    """Gradients of the embeddings and the features, chunk by chunk."""
    in_order, upstream = embeddings[arrangement.order], upstream[:, arrangement.order]
    for_embeddings = torch.zeros_like(embeddings)
    for_features = None
    for index in range(len(arrangement.bounds) - 1):
        cells, taken = _cells(arrangement, index)
        padded = _pad(_weighted_sum(gradients[:, taken], upstream[:, taken]).flatten(1), cells, features, arrangement)
        for_rows = batched_products(padded, features.flatten(2)).flatten(0, 1).index_select(0, cells)
        for_embeddings.index_copy_(0, arrangement.order[taken], for_rows)
        by_channel = _pad(in_order[taken], cells, features, arrangement).mT
        if for_features is None:
            for_features = batched_products(by_channel, padded.mT)
        else:
            for_features.baddbmm_(by_channel, padded)
        del padded  # before the next one is made
    if for_features is None:  # no pair
        for_features = torch.zeros_like(features)
    return for_embeddings, for_features.view_as(features)


def _chunk_maps(
    embeddings: Float[Tensor, "N C"], features: Float[Tensor, "B C H W"], arrangement: _Arrangement, index: int
) -> tuple[Float[Tensor, "n H W"], slice]:
    """The maps of a chunk in its order, and which of all they are."""
    cells, taken = _cells(arrangement, index)
    padded = _pad(embeddings[arrangement.order[taken]], cells, features, arrangement)
    maps = batched_products(padded, features.to(embeddings.dtype).flatten(2).mT).flatten(0, 1)
    return (maps if arrangement.is_full else maps.index_select(0, cells)).unflatten(1, features.shape[2:]), taken


def _cells(arrangement: _Arrangement, chunk: int) -> tuple[Int[Tensor, "n"], slice]:
    taken = slice(*arrangement.bounds[chunk : chunk + 2])
    return arrangement.cells[taken], taken


def _pad(
    rows: Float[Tensor, "n D"], cells: Int[Tensor, "n"], features: Float[Tensor, "B C H W"], arrangement: _Arrangement
) -> Float[Tensor, "B W2 D"]:
    """Rows at their cells, zeros elsewhere."""
    if not arrangement.is_full:
        padded = rows.new_zeros(len(features) * arrangement.width, rows.shape[1])
        rows = padded.index_copy_(0, cells, rows)
    return rows.view(len(features), arrangement.width, rows.shape[1])


def _weighted_sum(gradients: Float[Tensor, "V n H W"], weights: Float[Tensor, "V n"]) -> Float[Tensor, "n H W"]:
    total = gradients[0] * weights[0, :, None, None]
    for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
        total.addcmul_(gradient, weight[:, None, None])
    return total
