import pytest
import torch

from mmseg_m2f.models.losses import MaskBCELoss, MaskDiceLoss
from mmseg_m2f.models.losses.map_losses import Rows, map_losses, product_losses
from mmseg_m2f.structures import MaskReadings

LOSSES = [MaskBCELoss(), MaskDiceLoss()]
MASKS = (torch.rand(5, 24) > 0.5).double()


def read(maps: torch.Tensor, rows: Rows) -> MaskReadings:
    logits = maps.flatten(1) * 2
    return MaskReadings(logits, MASKS[rows].to(maps.dtype), torch.ones_like(logits))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_map_losses__values_and_gradients_are_those_of_the_losses(chunk):
    maps = torch.randn(5, 4, 6, dtype=torch.float64, requires_grad=True)
    values = map_losses(maps, read, LOSSES, chunk=chunk)
    expected = torch.stack([loss(*read(maps, slice(None))) for loss in LOSSES])
    torch.testing.assert_close(values, expected)
    upstream = torch.randn(2, 5, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(x, maps, upstream)[0] for x in (values, expected))
    torch.testing.assert_close(ours, theirs)


def test_map_losses__without_gradients_and_without_maps():
    assert map_losses(torch.randn(5, 4, 6).double(), read, LOSSES, chunk=2).grad_fn is None
    nothing = torch.zeros(0, 4, 6, requires_grad=True)
    values = map_losses(nothing, read, LOSSES, chunk=2)
    values.sum().backward()
    assert values.shape == (2, 0)
    assert nothing.grad is not None


#: Five embeddings of four images, of which the third has none.
IMAGES, COUNTS = torch.tensor([0, 1, 1, 1, 3]), [1, 3, 0, 1]


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_product_losses__equal_those_of_the_maps(chunk):
    embeddings = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    features = torch.randn(4, 7, 4, 6, dtype=torch.float64, requires_grad=True)
    values = product_losses(embeddings, features, IMAGES, read, LOSSES, counts=COUNTS, chunk=chunk)
    maps = torch.einsum("nc,nchw->nhw", embeddings, features[IMAGES])
    expected = torch.stack([loss(*read(maps, slice(None))) for loss in LOSSES])
    torch.testing.assert_close(values, expected)
    upstream = torch.randn(2, 5, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(x, (embeddings, features), upstream) for x in (values, expected))
    torch.testing.assert_close(ours, theirs)
    assert not ours[1][2].any()


def test_product_losses__features_of_half_precision_are_converted_in_the_products_alone():
    embeddings = torch.randn(5, 7, requires_grad=True)
    features = torch.randn(4, 7, 4, 6, dtype=torch.bfloat16, requires_grad=True)
    kept: list[torch.dtype] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.dtype) or x, lambda x: x):
        values = product_losses(embeddings, features, IMAGES, read, LOSSES, counts=COUNTS, chunk=3)
    assert kept.count(torch.bfloat16) == 1  # the features
    expected = product_losses(embeddings, features.float(), IMAGES, read, LOSSES, counts=COUNTS, chunk=3)
    torch.testing.assert_close(values, expected)
    ours, theirs = (torch.autograd.grad(x.sum(), (embeddings, features)) for x in (values, expected))
    torch.testing.assert_close(ours, theirs)
    assert ours[1].dtype == torch.bfloat16


def test_product_losses__at_most_a_chunk_of_maps_is_read_at_a_time():
    sizes = []

    def spy(maps: torch.Tensor, rows: Rows) -> MaskReadings:
        sizes.append(len(maps))
        return read(maps, rows)

    for chunk in (1, 2, 3, 4, 5, 8):  # of 5 maps of 4 images, padded to 12
        sizes.clear()
        product_losses(
            torch.randn(5, 7).double(),
            torch.randn(4, 7, 4, 6).double(),
            IMAGES,
            spy,
            LOSSES,
            counts=COUNTS,
            chunk=chunk,
        )
        assert sum(sizes) == 5
        assert max(sizes) <= chunk


def test_product_losses__no_pair_keeps_its_inputs_in_the_graph():
    embeddings, features = torch.zeros(0, 7, requires_grad=True), torch.randn(2, 7, 4, 6, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    values = product_losses(embeddings, features, none, read, LOSSES, counts=[0, 0], chunk=9)
    values.sum().backward()
    assert values.shape == (2, 0)
    assert embeddings.grad.shape == (0, 7)
    assert not features.grad.any()


def test_product_losses__gradients_do_not_depend_on_an_autocast_around_the_backward_pass():
    embeddings = torch.randn(5, 7, requires_grad=True)
    features = torch.randn(4, 7, 4, 6, requires_grad=True)

    def gradients(enabled: bool) -> tuple[torch.Tensor, ...]:
        values = product_losses(embeddings, features, IMAGES, read, LOSSES, counts=COUNTS, chunk=8)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return torch.autograd.grad(values.sum(), (embeddings, features))

    for inside, outside in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(inside, outside)
