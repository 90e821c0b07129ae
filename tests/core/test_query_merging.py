import pytest
import torch

from mmseg_m2f.core.query_merging import QueryProbs, merge_queries


def view(seed: int, *, num_queries: int = 6, size: tuple[int, int] = (9, 11)) -> QueryProbs:
    generator = torch.Generator().manual_seed(seed)
    class_probs = (3 * torch.randn(num_queries, 4, generator=generator)).softmax(-1)
    boxes = torch.rand(num_queries, 4, generator=generator)
    return QueryProbs(class_probs, torch.rand(num_queries, *size, generator=generator), boxes)


def mirrored(probs: QueryProbs) -> QueryProbs:
    return QueryProbs(probs.class_probs, probs.mask_probs.flip(2), probs.boxes)


def test_merge_queries__one_view_stays_up_to_order():
    probs = view(0)
    merged = merge_queries([probs])
    order = probs.class_probs[:, :-1].max(1).values.argsort(descending=True)
    torch.testing.assert_close(merged.class_probs, probs.class_probs[order])
    torch.testing.assert_close(merged.mask_probs, probs.mask_probs[order])
    torch.testing.assert_close(merged.boxes, probs.boxes[order])


def test_merge_queries__order_of_queries_does_not_matter():
    probs = view(0)
    shuffled = QueryProbs(*(part[torch.tensor([3, 1, 5, 0, 4, 2])] for part in probs))
    merged = merge_queries([probs, shuffled])
    expected = merge_queries([probs])
    torch.testing.assert_close(merged.class_probs, expected.class_probs)
    torch.testing.assert_close(merged.mask_probs, expected.mask_probs)
    torch.testing.assert_close(merged.boxes, expected.boxes)


def test_merge_queries__a_query_that_found_nothing_has_no_say_in_mask_and_box():
    mask, box = torch.tensor([[0.9, 0.1]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    found = QueryProbs(torch.tensor([[0.8, 0.2]]), mask[None], box)
    nothing = QueryProbs(torch.tensor([[0.0, 1.0]]), 1 - mask[None], box + 5)
    merged = merge_queries([found, nothing])
    torch.testing.assert_close(merged.class_probs, torch.tensor([[0.4, 0.6]]))
    torch.testing.assert_close(merged.mask_probs[0], mask, atol=1e-5, rtol=0)
    torch.testing.assert_close(merged.boxes, box, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pairs", [1, 3])
def test_merge_queries__mirroring_commutes_to_the_last_bit(pairs):
    seen = [(view(2 * n), view(2 * n + 1)) for n in range(pairs)]  # of an image, and of its mirror image
    plain = merge_queries([probs for image, mirror in seen for probs in (image, mirrored(mirror))])
    flipped = merge_queries([probs for image, mirror in seen for probs in (mirror, mirrored(image))])
    assert torch.equal(plain.class_probs, flipped.class_probs)
    assert torch.equal(plain.mask_probs, flipped.mask_probs.flip(2))
