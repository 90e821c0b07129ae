import pytest
import torch
from mmengine.registry import MODELS, TASK_UTILS

from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.models.assigners import FixedAssigner
from mmseg_m2f.structures import BACKGROUND, VOID, MaskPrediction, MaskTarget

CRITERION = dict(
    type="mmseg_m2f.MaskCriterion",
    assigner=dict(type="mmseg_m2f.FixedAssigner"),
    loss_cls=dict(type="mmseg_m2f.ClassLoss", loss_weight=1.0, no_object_weight=0.1),
    loss_mask=dict(type="mmseg_m2f.MaskFocalLoss", loss_weight=20.0),
    loss_dice=dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=1.0),
    sampling=dict(type="mmseg_m2f.FullMaskSampling"),
)


def target_of(label_map: torch.Tensor, classes: list[int], name: str = "") -> MaskTarget:
    """One segment per class, in the order of `classes`; 255 is void."""
    segment_map = torch.full_like(label_map, BACKGROUND).masked_fill(label_map == 255, VOID)
    for segment, label in enumerate(classes):
        segment_map[label_map == label] = segment
    return MaskTarget(torch.tensor(classes, dtype=torch.long), segment_map.unsqueeze(0), name)


def random_predictions(batch: int, num_classes: int, *, layers: int = 2) -> list[MaskPrediction]:
    """Layers that share mask features of a quarter of 12 × 20 pixels."""
    features = torch.randn(batch, 6, 3, 5)
    return [
        MaskPrediction(
            torch.randn(batch, num_classes, num_classes + 1, requires_grad=True),
            torch.randn(batch, num_classes, 6, requires_grad=True),
            features,
        )
        for _ in range(layers)
    ]


def label_maps() -> list[torch.Tensor]:
    """Classes 1 and 3 with a void corner, and classes 0, 2, 3 without."""
    first, second = torch.full((12, 20), 1), torch.full((12, 20), 2)
    first[:, 7:] = 3
    first[9:, :4] = 255
    second[2:5] = 0
    second[8:, 10:] = 3
    return [first, second]


def formula(prediction: MaskPrediction, maps: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Section 3.4 of arXiv 2210.05844, pair by pair; pixels of label 255 are negative."""
    from torchvision.ops import sigmoid_focal_loss

    num_queries = prediction.class_logits.shape[1]
    classes = torch.full(prediction.class_logits.shape[:2], num_queries)
    focal, dice, pairs = torch.zeros(()), torch.zeros(()), 0
    for image, label_map in enumerate(maps):
        for label in sorted(set(label_map.flatten().tolist()) - {255}):
            classes[image, label] = label
            logits = (prediction.mask_embeddings[image, label] @ prediction.mask_features[image].flatten(1)).view(3, 5)
            logits = torch.nn.functional.interpolate(logits[None, None], label_map.shape, mode="bilinear")[0, 0]
            mask, probs = (label_map == label).float(), logits.sigmoid()
            focal += sigmoid_focal_loss(logits, mask, alpha=0.25, gamma=2, reduction="mean")
            dice += 1 - (2 * (probs * mask).sum() + 1) / (probs.sum() + mask.sum() + 1)
            pairs += 1
    weight = torch.ones(num_queries + 1)
    weight[-1] = 0.1
    loss_cls = torch.nn.functional.cross_entropy(prediction.class_logits.flatten(0, 1), classes.flatten(), weight)
    return dict(loss_cls=loss_cls, loss_mask=20 * focal / pairs, loss_dice=dice / pairs)


def test_fixed_assigner__query_of_the_class_in_every_layer_and_image():
    label_map = torch.zeros(4, 4, dtype=torch.long)
    unsorted, nothing = target_of(label_map, [3, 0, 2]), target_of(label_map, [])
    pairs = FixedAssigner()(random_predictions(3, 4), stack_targets([unsorted, nothing, target_of(label_map, [1])]))
    assert pairs.counts == [[3, 3], [0, 0], [1, 1]]
    assert pairs.images.tolist() == [0] * 6 + [2] * 2
    assert pairs.layers.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert pairs.queries.tolist() == [3, 0, 2, 3, 0, 2, 1, 1]
    assert pairs.segments.tolist() == [0, 1, 2, 0, 1, 2, 0, 0]


def test_fixed_assigner__a_class_without_query():
    assigner = TASK_UTILS.build(dict(type="mmseg_m2f.FixedAssigner", sampling=None))
    prediction = MaskPrediction(torch.zeros(1, 3, 5), torch.zeros(1, 3, 2), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="expected at least 4 queries, one per class, got 3"):
        assigner([prediction], stack_targets([target_of(torch.zeros(4, 4, dtype=torch.long), [0])]))


def test_fixed_assigner__two_segments_of_a_class():
    target = MaskTarget(torch.tensor([2, 0, 2]), torch.zeros(1, 4, 4, dtype=torch.long), "cats.png")
    with pytest.raises(ValueError, match=r"cats.png: .*one segment per class, got classes \[2, 0, 2\]"):
        FixedAssigner()(random_predictions(1, 4), stack_targets([target]))


def test_fixed_assigner__asks_the_device_in_the_first_call_alone():
    assigner, target = FixedAssigner(), target_of(label_maps()[0], [1, 3])
    assigner(random_predictions(1, 4), stack_targets([target]))
    # Tensors without values: asking for one would raise.
    away = MaskTarget(target.labels.to("meta"), target.segment_map.to("meta"))
    predictions = [MaskPrediction(*(x.to("meta") for x in layer[:3])) for layer in random_predictions(1, 4)]
    assert assigner(predictions, stack_targets([away])).counts == [[2, 2]]


def test_fixed_matching__losses_are_the_published_ones():
    criterion, maps = MODELS.build(CRITERION | dict(reference="mmdet")), label_maps()
    predictions = random_predictions(2, 4)
    losses = criterion(predictions, [target_of(maps[0], [1, 3]), target_of(maps[1], [0, 2, 3])])
    for prediction, prefix in zip(predictions, ("d0.", ""), strict=True):
        expected = formula(prediction, maps)
        torch.testing.assert_close({name: losses[prefix + name] for name in expected}, expected)
        found = torch.autograd.grad(sum(losses[prefix + name] for name in expected), prediction[:2], retain_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(sum(expected.values()), prediction[:2]))


def test_fixed_matching__void_is_left_out():
    criterion, maps = MODELS.build(CRITERION), label_maps()
    predictions = random_predictions(2, 4, layers=1)
    targets = [target_of(maps[0], [1, 3]), target_of(maps[1], [0, 2, 3])]
    losses = criterion(predictions, targets)
    as_negative = formula(predictions[0], maps)
    torch.testing.assert_close(losses["loss_cls"], as_negative["loss_cls"])
    assert (losses["loss_mask"] - as_negative["loss_mask"]).abs() > 1e-2
    without_void = [maps[0].where(maps[0] != 255, 1), maps[1]]
    targets[0] = target_of(without_void[0], [1, 3])
    losses, expected = criterion(predictions, targets), formula(predictions[0], without_void)
    torch.testing.assert_close({name: losses[name] for name in expected}, expected)


def test_fixed_matching__three_losses_for_each_prediction():
    targets = [target_of(maps, [1, 3]) for maps in label_maps()]
    for layers in (1, 3):
        losses = MODELS.build(CRITERION)(random_predictions(2, 4, layers=layers), targets)
        assert len([name for name in losses if "loss_" in name]) == 3 * layers


def test_fixed_matching__nothing_but_void():
    predictions = random_predictions(1, 4, layers=1)
    losses = MODELS.build(CRITERION)(predictions, [target_of(torch.full((12, 20), 255), [])])
    dustbin = -predictions[0].class_logits.log_softmax(-1)[..., -1].mean()
    torch.testing.assert_close(losses["loss_cls"], dustbin)
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    sum(losses[name] for name in ("loss_cls", "loss_mask", "loss_dice")).backward()
    assert predictions[0].class_logits.grad.any()
    assert not predictions[0].mask_embeddings.grad.any()


def test_fixed_matching__known_values():
    # Half of the pixels inside; logits of zero, then a perfect mask.
    target = target_of(torch.tensor([[0, 1]]).repeat(8, 4), [0])
    inside = (target.segment_map == 0).float() * 100 - 50
    criterion = MODELS.build(CRITERION)
    for features, focal in ((torch.zeros(1, 1, 8, 8), 0.0866), (inside.unsqueeze(0), 0.0)):
        prediction = MaskPrediction(torch.zeros(1, 1, 2), torch.ones(1, 1, 1), features)
        losses = criterion([prediction], [target])
        assert losses["loss_mask"] / 20 == pytest.approx(focal, abs=5e-5)
    assert losses["loss_dice"] == pytest.approx(0, abs=1e-6)
