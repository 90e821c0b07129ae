import pytest
import torch
from mmdet.models.layers import CdnQueryGenerator

from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.models.query_decoders import denoising
from mmseg_m2f.models.query_decoders.denoising import DenoisingQueries
from mmseg_m2f.structures import BACKGROUND, MaskTarget, TargetBatch


def batch_of(*counts: int, classes: int = 5) -> TargetBatch:
    return stack_targets(
        [
            MaskTarget(
                torch.randint(classes, (count,)),
                torch.full((1, 4, 4), BACKGROUND),
                "a.jpg",
                torch.rand(count, 4) * 0.3 + 0.3,
            )
            for count in counts
        ]
    )


def test_denoising_queries__as_many_groups_as_fit():
    noisy = DenoisingQueries(5, 8)(batch_of(3, 1))
    assert (noisy.groups, noisy.content.shape, noisy.boxes.shape) == (33, (2, 99, 8), (2, 99, 4))
    padding = torch.arange(99) % 3 > 0
    assert not noisy.content[1, padding].any()
    assert (noisy.boxes[1, padding] == 0.5).all()
    assert noisy.content[0].any(-1).all()


def test_denoising_queries__without_noise_are_the_segments():
    targets = batch_of(3, 1)
    queries = DenoisingQueries(5, 8, num_queries=7, label_noise=0.0, box_noise=0.0)
    noisy = queries(targets)
    layers, images, slots, segments, counts = noisy.assignment(2)
    assert counts == [[6, 6], [2, 2]]
    assert images.tolist() == [0] * 12 + [1] * 4
    assert layers.tolist() == [*[0] * 6, *[1] * 6, 0, 0, 1, 1]
    assert slots.tolist() == [*range(6), *range(6), 0, 3, 0, 3]
    assert segments.tolist() == [0, 1, 2] * 4 + [0] * 4
    torch.testing.assert_close(noisy.boxes[images, slots], targets.boxes[images, segments])
    expected = queries.label_embed(targets.labels[images, segments])
    torch.testing.assert_close(noisy.content[images, slots], expected)


def test_denoising_queries__noise_is_bounded_and_uniform():
    targets = batch_of(1, classes=1)
    queries = DenoisingQueries(10, 1, num_queries=20000)
    noisy = queries(targets)
    box = targets.boxes[0, 0]
    moved = (noisy.boxes[0] - box) / torch.cat([box[2:] / 2, box[2:]])
    assert 0.39 < moved.abs().amax(0).min() <= moved.abs().max() <= 0.4 + 1e-5
    assert moved.mean(0).abs().max() < 0.01
    kept = (noisy.content[0] == queries.label_embed.weight[0]).all(-1).float().mean()
    assert kept.item() == pytest.approx(0.8 + 0.2 / 10, abs=0.01)


@pytest.mark.parametrize("counts", [(0, 0), (4, 8)])
def test_denoising_queries__none_without_segments_and_none_with_too_many(counts):
    queries = DenoisingQueries(5, 8, num_queries=7)
    noisy = queries(batch_of(*counts))
    assert (noisy.groups, noisy.content.shape) == (0, (2, 0, 8))
    assert noisy.may_attend(3).all()
    assert noisy.assignment(2).counts == [[0, 0], [0, 0]]
    noisy.content.sum().backward()
    assert not queries.label_embed.weight.grad.any()  # there is a gradient: no process waits for it


def test_denoising_queries__too_many_segments_are_said_once(monkeypatch):
    messages = []
    monkeypatch.setattr(denoising, "print_log", lambda message, **_: messages.append(message))
    queries = DenoisingQueries(5, 8, num_queries=7)
    for counts in ((7, 2), (0, 0), (4, 8), (9, 1)):
        queries(batch_of(*counts))
    assert len(messages) == 1
    assert "a.jpg has 8 segments, but there are only 7 slots for noisy copies" in messages[0]
    assert "denoising.num_queries to at least 8" in messages[0]


@pytest.mark.parametrize("options", [dict(num_queries=0), dict(label_noise=1.5), dict(box_noise=-0.1)])
def test_denoising_queries__numbers_out_of_range(options):
    with pytest.raises(ValueError, match="expected num_queries of at least 1, label_noise in"):
        DenoisingQueries(5, 8, **options)


def test_denoising_queries__see_what_mmdets_see():
    """mmdet's groups hold two copies of each segment, ours one."""
    theirs = CdnQueryGenerator(num_classes=5, embed_dims=8, num_matching_queries=4)
    blocked = theirs.generate_dn_mask(max_num_target=1, num_groups=3, device="cpu")
    noisy = DenoisingQueries(5, 8, num_queries=6)(batch_of(2))
    assert torch.equal(noisy.may_attend(4), ~blocked)


def test_denoising_queries__order_of_segments_is_order_of_slots():
    targets, order = batch_of(3), torch.tensor([2, 0, 1])
    queries = DenoisingQueries(5, 8, num_queries=6, label_noise=0.0, box_noise=0.0)
    permuted = queries(TargetBatch(targets.labels[:, order], targets.framed_maps, [3], ["a"], targets.boxes[:, order]))
    slots = torch.cat([order, order + 3])
    assert torch.equal(permuted.boxes, queries(targets).boxes[:, slots])
    assert torch.equal(permuted.content, queries(targets).content[:, slots])


def test_denoising_queries__targets_without_boxes():
    with pytest.raises(ValueError, match="expected boxes"):
        DenoisingQueries(5, 8)(
            TargetBatch(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, 3, 3, dtype=torch.int32), [1], ["a"])
        )
