import itertools

import pytest
import torch
from mmengine.registry import TASK_UTILS

from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.models.assigners import hungarian
from mmseg_m2f.models.sampling import PointSampling
from mmseg_m2f.structures import BACKGROUND, VOID, BoxPrediction, MaskPrediction, MaskTarget, in_float32

COSTS = [
    dict(type="mmseg_m2f.ClassCost"),
    dict(type="mmseg_m2f.MaskBCECost"),
    dict(type="mmseg_m2f.MaskDiceCost"),
]


def build_assigner():
    return TASK_UTILS.build(
        dict(type="mmseg_m2f.HungarianAssigner", match_costs=COSTS, sampling=PointSampling(num_points=256))
    )


def quadrants() -> MaskTarget:
    """Four segments of classes 0…3, one per quadrant."""
    segment_map = torch.tensor([[[0, 1], [2, 3]]]).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return MaskTarget(torch.arange(4), segment_map, "quadrants.png")


def perfect_prediction(order: list[int], target: MaskTarget) -> MaskPrediction:
    """Query q predicts segment `order[q]` exactly."""
    masks = torch.cat([(target.segment_map == g).float() * 20 - 10 for g in order])
    features = masks.unsqueeze(0)
    embeddings = torch.eye(len(order)).unsqueeze(0)
    class_logits = torch.nn.functional.one_hot(torch.tensor(order), 5).float().unsqueeze(0) * 10
    return MaskPrediction(class_logits, embeddings, features)


def test_hungarian__finds_the_right_pairs_in_every_layer_and_image():
    target = quadrants()
    layers = []
    for orders in ([[2, 0, 3, 1], [0, 1, 2, 3]], [[3, 2, 1, 0], [1, 0, 3, 2]]):
        images = [perfect_prediction(order, target)[:3] for order in orders]  # without boxes
        layers.append(MaskPrediction(*(torch.cat(parts) for parts in zip(*images, strict=True))))
    pairs = build_assigner()(layers, stack_targets([target, target]))
    assert pairs.counts == [[4, 4], [4, 4]]
    assert pairs.images.tolist() == [0] * 8 + [1] * 8
    assert pairs.layers.tolist() == ([0] * 4 + [1] * 4) * 2
    assert pairs.queries.tolist() == [0, 1, 2, 3] * 4
    assert pairs.segments.tolist() == [2, 0, 3, 1, 3, 2, 1, 0, 0, 1, 2, 3, 1, 0, 3, 2]


def test_hungarian__needs_a_cost():
    with pytest.raises(ValueError, match=r"HungarianAssigner: match_costs: expected at least one cost, got none"):
        TASK_UTILS.build(dict(type="mmseg_m2f.HungarianAssigner", match_costs=[], sampling=None))


def test_hungarian__images_of_different_counts_do_not_mix():
    target = quadrants()
    one = MaskTarget(torch.tensor([3]), torch.where(target.segment_map == 3, 0, BACKGROUND), "one.png")
    nothing = MaskTarget(torch.tensor([], dtype=torch.long), torch.full((1, 16, 16), VOID), "nothing.png")
    single = perfect_prediction([2, 0, 3, 1], target)
    batch = MaskPrediction(*(x.expand(3, *x.shape[1:]) for x in single[:3]))
    pairs = build_assigner()([batch], stack_targets([one, nothing, target]))
    assert pairs.counts == [[1], [0], [4]]
    assert pairs.queries.tolist() == [2, 0, 1, 2, 3]
    assert pairs.segments.tolist() == [0, 2, 0, 3, 1]


def test_hungarian__void_does_not_decide():
    # On known pixels query 1 is right; on the void half query 0 agrees with the background of segment 0.
    segment_map = torch.full((1, 16, 16), VOID)
    segment_map[:, :8] = 0
    target = MaskTarget(torch.tensor([0]), segment_map)
    top = torch.zeros(16, 16)
    top[:8] = 1
    masks = torch.stack([(top - 0.5) * 4 - 1, torch.full((16, 16), 5.0)])
    prediction = MaskPrediction(torch.zeros(1, 2, 5), torch.eye(2).unsqueeze(0), masks.unsqueeze(0))
    assert build_assigner()([prediction], stack_targets([target])).queries.tolist() == [1]
    as_background = MaskTarget(target.labels, segment_map.where(segment_map == 0, BACKGROUND))
    assert build_assigner()([prediction], stack_targets([as_background])).queries.tolist() == [0]


def test_hungarian__surplus_segments_are_said_once(monkeypatch):
    target = quadrants()
    prediction = perfect_prediction([1, 3], target)
    assigner = build_assigner()
    messages = []
    monkeypatch.setattr(hungarian, "print_log", lambda message, **_: messages.append(message))
    pairs = assigner([prediction], stack_targets([target]))
    assigner([prediction], stack_targets([target]))
    assert pairs.segments.tolist() == [1, 3]
    assert len(messages) == 1
    assert "quadrants.png has 4 segments, but the decoder has only 2 queries" in messages[0]
    assert "num_queries to at least 4" in messages[0]


def test_hungarian__non_finite_cost_names_image_and_layer():
    target = quadrants()
    good = perfect_prediction([2, 0, 3, 1], target)
    bad = good._replace(class_logits=good.class_logits.clone())
    bad.class_logits[0, 1, 0] = torch.nan
    with pytest.raises(ValueError, match=r"Matching cost of quadrants.png, supervised layer 1 .*lower the learning"):
        build_assigner()([good, bad], stack_targets([target]))


def test_hungarian__float32_under_autocast():
    target = quadrants()
    prediction = perfect_prediction([2, 0, 3, 1], target)
    with torch.autocast("cpu", torch.bfloat16):
        pairs = build_assigner()([MaskPrediction(*(x.bfloat16() for x in prediction[:3]))], stack_targets([target]))
    assert pairs.segments.tolist() == [2, 0, 3, 1]


def test_in_float32__layers_go_on_sharing_their_features():
    features = torch.randn(1, 4, 3, 3).bfloat16()
    layers = [MaskPrediction(torch.randn(1, 2, 3).bfloat16(), torch.randn(1, 2, 4).bfloat16(), features)] * 2
    first, second = in_float32(layers)
    assert first.mask_features is second.mask_features
    assert all(part.dtype == torch.float32 for part in (*first[:3], *second[:3]))
    assert torch.equal(first.mask_features, features.float())


@pytest.mark.parametrize(("image_by_image", "draws"), [(False, [(0, 3)]), (True, [(0, 1), (1, 2), (2, 3)])])
def test_hungarian__draws_points_for_one_image_after_the_other(monkeypatch, image_by_image, draws):
    """As mmdet does; each draw is of the points of all layers of some images."""
    target, drawn = quadrants(), []
    batch = MaskPrediction(*(x.expand(3, *x.shape[1:]) for x in perfect_prediction([2, 0, 3, 1], target)[:3]))
    draw = PointSampling.for_matching

    def spy(self, predictions, targets, images):
        drawn.append(images.indices(3)[:2])
        return draw(self, predictions, targets, images)

    monkeypatch.setattr(PointSampling, "for_matching", spy)
    pairs = build_assigner()([batch, batch], stack_targets([target] * 3), image_by_image=image_by_image)
    assert drawn == draws
    assert pairs.segments.tolist() == [2, 0, 3, 1] * 6


@pytest.mark.parametrize(
    "names",
    [
        names
        for costs in (
            ("ClassCost", "MaskBCECost", "MaskDiceCost", "MaskFocalCost"),
            ("ClassCost", "BoxL1Cost", "BoxGIoUCost"),
        )
        for number in range(1, len(costs) + 1)
        for names in itertools.combinations(costs, number)
    ],
    ids="+".join,
)
@pytest.mark.parametrize("num_segments", [0, 1, 4, 6])
def test_hungarian__every_segment_has_a_query_of_its_own_whatever_the_costs(names, num_segments):
    """As mmdet tests its assigner: with each cost alone and together, and without an object."""
    num_queries = 6
    segment_map = torch.randint(-1, max(num_segments, 1), (1, 8, 8)).clamp(max=num_segments - 1)
    boxes = torch.rand(num_segments, 4) * 0.4 + 0.3
    target = MaskTarget(torch.randint(0, 5, (num_segments,)), segment_map, "image.png", boxes)
    masks = MaskPrediction(torch.randn(1, num_queries, 6), torch.randn(1, num_queries, 4), torch.randn(1, 4, 8, 8))
    prediction = masks
    if names[-1].startswith("Box"):
        prediction = BoxPrediction(masks.class_logits, torch.rand(1, num_queries, 4) * 0.4 + 0.3)
    costs = [dict(type=f"mmseg_m2f.{name}") for name in names]
    sampling = PointSampling(num_points=16)
    assigner = TASK_UTILS.build(dict(type="mmseg_m2f.HungarianAssigner", match_costs=costs, sampling=sampling))
    pairs = assigner([prediction], stack_targets([target]))
    assert pairs.counts == [[num_segments]]
    assert sorted(pairs.segments.tolist()) == list(range(num_segments))
    assert len(set(pairs.queries.tolist())) == num_segments
