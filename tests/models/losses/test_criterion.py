from dataclasses import replace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS

from mmseg_m2f.structures import (
    BACKGROUND,
    VOID,
    Assignment,
    BoxPrediction,
    Denoising,
    MaskPrediction,
    MaskTarget,
    TrainingPredictions,
)
from tests.models.conftest import CONFIGS


def build_criterion(**options: object) -> torch.nn.Module:
    cfg = Config.fromfile(CONFIGS / "_base_/models/mask2former.py").model.decode_head.criterion
    cfg.sampling.num_points = 128
    for name, value in options.items():
        cfg[name] = value
    return MODELS.build(cfg)


def random_predictions(layers: int = 3, batch: int = 2, queries: int = 6, classes: int = 4) -> list[MaskPrediction]:
    features = torch.randn(batch, 8, 16, 16, requires_grad=True)
    return [
        MaskPrediction(
            torch.randn(batch, queries, classes + 1, requires_grad=True),
            torch.randn(batch, queries, 8, requires_grad=True),
            features,
        )
        for _ in range(layers)
    ]


def blocks(labels: list[int], *, void_rows: int = 0) -> MaskTarget:
    """Segments in vertical stripes of a 64×64 canvas, the upper rows void."""
    columns = torch.arange(64) * len(labels) // 64 if labels else torch.full((64,), BACKGROUND)
    segment_map = columns.expand(1, 64, -1).clone()
    segment_map[:, :void_rows] = VOID
    return MaskTarget(torch.tensor(labels, dtype=torch.long), segment_map, "blocks")


def test_criterion__log_names_are_mmdets():
    losses = build_criterion()(random_predictions(), [blocks([0, 2]), blocks([3])])
    parts = ("loss_cls", "loss_mask", "loss_dice")
    expected = [*(f"d{i}.{part}" for i in range(2) for part in parts), *parts, "surplus_segments", "query_similarity"]
    assert sorted(losses) == sorted(expected)


def test_criterion__perfect_prediction_costs_nothing():
    target = blocks([1, 3])
    masks = torch.cat([(target.segment_map == g).float() * 60 - 30 for g in range(2)])
    class_logits = torch.full((1, 2, 5), -30.0)
    class_logits[0, 0, 1] = class_logits[0, 1, 3] = 30.0
    prediction = MaskPrediction(class_logits, torch.eye(2).unsqueeze(0), masks.unsqueeze(0))
    losses = build_criterion()([prediction], [target])
    assert losses["loss_cls"].item() == pytest.approx(0, abs=1e-6)
    # What remains is the half pixel around the border, where masks are read as zero, and between segments.
    assert losses["loss_dice"].item() < 0.6


def test_criterion__pixels_under_void_get_no_gradient():
    prediction = random_predictions(layers=1)
    target = blocks([0, 2], void_rows=32)
    losses = build_criterion()(prediction, [target, target])
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    gradient = prediction[0].mask_features.grad
    assert not gradient[:, :, :7].any()  # rows 0…6 of 16 touch only points above canvas row 32
    assert gradient[:, :, 9:].any()


@pytest.mark.parametrize("option", [dict(reference="mmdet"), dict(void_is_background=True)])
def test_criterion__void_is_trained_as_background_on_demand(option):
    prediction = random_predictions(layers=1)
    target = blocks([0, 2], void_rows=32)
    losses = build_criterion(**option)(prediction, [target, target])
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    assert prediction[0].mask_features.grad[:, :, :7].any()


def test_criterion__void_as_background_counts_masks_as_without():
    predictions, empty = random_predictions(layers=1), blocks([], void_rows=64)
    torch.manual_seed(0)
    usual = build_criterion()(predictions, [blocks([0, 2]), empty])
    torch.manual_seed(0)
    losses = build_criterion(void_is_background=True)(predictions, [blocks([0, 2]), empty])
    for name, value in usual.items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize("reference", [None, "mmdet"])
def test_criterion__images_without_segments(reference):
    predictions = random_predictions()
    nothing = [blocks([]), blocks([], void_rows=64)]
    losses = build_criterion(reference=reference)(predictions, nothing)
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert losses["loss_mask"].item() == losses["d0.loss_dice"].item() == 0.0
    assert losses["loss_cls"].isfinite()
    for prediction in predictions:  # all parameters stay in the graph, as DistributedDataParallel wants
        assert prediction.mask_embeddings.grad is not None
        assert prediction.mask_features.grad is not None


@pytest.mark.parametrize(
    ("second", "together", "accumulated"),
    [
        ([1, 2], (-1 / 4 + 1 / 4 + 1 / 4) / 3, (-1 / 4 + (1 / 4 + 1 / 4) / 2) / 2),  # the documented difference
        ([1], -1 / 4, -1 / 4),  # equal numbers of segments: the same
    ],
)
def test_criterion__accumulation_over_images_with_other_numbers_of_segments(second, together, accumulated):
    """One parameter is the logit of every pixel, ln 3: its cross-entropy with a mask of share s has gradient 3/4 - s.

    The first image has one segment, which is the whole image; those of the second share it.
    """
    criterion = build_criterion(
        sampling=dict(type="mmseg_m2f.FullMaskSampling"), loss_mask=dict(type="mmseg_m2f.MaskBCELoss", loss_weight=1.0)
    )
    targets = [blocks([0]), blocks(second)]

    def step(batches, counts):
        logit = torch.nn.Parameter(torch.tensor(3.0).log())
        wrapper = OptimWrapper(torch.optim.SGD([logit], lr=1.0), accumulative_counts=counts)
        before = logit.item()
        for batch in batches:
            number = len(batch)
            prediction = MaskPrediction(
                torch.zeros(number, 2, 5), logit.expand(number, 2, 1), torch.ones(number, 1, 16, 16)
            )
            wrapper.update_params(criterion([prediction], batch)["loss_mask"])
        return before - logit.item()

    assert step([targets], 1) == pytest.approx(together, abs=1e-6)
    assert step([targets[:1], targets[1:]], 2) == pytest.approx(accumulated, abs=1e-6)


def test_criterion__surplus_segments_are_counted():
    losses = build_criterion()(random_predictions(queries=2), [blocks([0, 1, 2]), blocks([3])])
    assert losses["surplus_segments"].item() == 1.0
    assert losses["loss_mask"].isfinite()


@pytest.mark.parametrize(
    ("counts", "reference", "expected"),
    [
        ((3, 0), None, [3.0, 3.0]),
        ((3, 0), "mmdet", [4.0, 3.0]),
        ((1, 9), None, [10.0, 10.0]),
        ((1, 9), "mmdet", [7.0, 7.0]),
        ((0, 0), None, [1.0, 1.0]),
    ],
)
def test_criterion__number_of_masks_and_boxes(counts, reference, expected):
    assert build_criterion(reference=reference)._num_pairs(random_predictions()[0], counts).tolist() == expected


def test_criterion__no_object_weight():
    prediction = random_predictions(layers=1, batch=1)
    heavy = build_criterion(loss_cls=dict(type="mmseg_m2f.ClassLoss", loss_weight=1.0, no_object_weight=1.0))
    loss = heavy(prediction, [blocks([])])["loss_cls"]
    expected = torch.nn.functional.cross_entropy(prediction[0].class_logits[0], torch.full((6,), 4))
    torch.testing.assert_close(loss, expected)


def test_criterion__wrong_number_of_class_weights():
    criterion = build_criterion(loss_cls=dict(type="mmseg_m2f.ClassLoss", class_weight=[1.0, 2.0]))
    with pytest.raises(ValueError, match="class_weight has 2 entries, but the head has 4 classes"):
        criterion(random_predictions(), [blocks([0]), blocks([1])])


@pytest.mark.parametrize("decoder", ["masks", "boxes"])
def test_criterion__all_layers_at_once_equal_one_by_one(decoder):
    # Without random points and void, the reference takes the same numbers layer by layer and image by image.
    if decoder == "masks":
        everywhere = dict(sampling=dict(type="mmseg_m2f.FullMaskSampling"))
        build, predictions = (lambda **options: build_criterion(**everywhere, **options)), random_predictions()
        targets = [blocks([0, 2]), blocks([3, 1, 0])]
    else:
        build = build_box_criterion
        predictions = [
            BoxPrediction(torch.randn(2, 6, 5, requires_grad=True), torch.rand(2, 6, 4, requires_grad=True))
            for _ in range(3)
        ]
        targets = [box_target([0], [[0.5, 0.6, 0.4, 0.6]]), box_target([3, 1], [[0.2, 0.2, 0.1, 0.3]] * 2)]
    leaves = [part for prediction in predictions for part in prediction if isinstance(part, torch.Tensor)]
    at_once, one_by_one = (build(reference=reference)(predictions, targets) for reference in (None, "mmdet"))
    for name, value in one_by_one.items():
        torch.testing.assert_close(at_once[name], value, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(sum(losses.values()), leaves) for losses in (at_once, one_by_one)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_criterion__unknown_reference():
    with pytest.raises(ValueError, match="reference must be None or 'mmdet', got 'detectron2'"):
        build_criterion(reference="detectron2")


def test_criterion__autocast_changes_little():
    predictions, targets = random_predictions(layers=1), [blocks([0, 1]), blocks([2])]
    criterion = build_criterion()
    torch.manual_seed(3)
    exact = criterion(predictions, targets)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        half = criterion(predictions, targets)
    for name, value in exact.items():
        torch.testing.assert_close(half[name], value, rtol=1e-5, atol=1e-5)


def build_box_criterion(model: str = "detr", **options: object) -> torch.nn.Module:
    cfg = Config.fromfile(CONFIGS / f"_base_/models/{model}.py").model.decode_head.criterion
    cfg.update(options)
    return MODELS.build(cfg)


def box_target(labels: list[int], boxes: list[list[float]]) -> MaskTarget:
    nowhere = torch.full((1, 8, 8), VOID)
    return MaskTarget(torch.tensor(labels, dtype=torch.long), nowhere, "a.jpg", torch.tensor(boxes).reshape(-1, 4))


def test_criterion__boxes_by_hand():
    # The boxes of tests/core/test_boxes.py, the second query far away and sure of nothing.
    logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 0.0, 20.0]]])
    boxes = torch.tensor([[[0.3, 0.3, 0.4, 0.4], [0.1, 0.1, 0.01, 0.01]]], requires_grad=True)
    target = box_target([0], [[0.5, 0.6, 0.4, 0.6]])
    losses = build_box_criterion()([BoxPrediction(logits, boxes)], [target])
    assert losses["loss_bbox"].item() == pytest.approx(3.5, abs=1e-5)
    assert losses["loss_iou"].item() == pytest.approx(2.2777779, abs=1e-5)
    # -log 0.6652409 with weight 1, and nothing with weight 0.1.
    assert losses["loss_cls"].item() == pytest.approx(0.4076059 / 1.1, abs=1e-5)
    sum(losses.values()).backward()
    assert (boxes.grad[0, 1] == 0).all()


def test_criterion__boxes_of_images_without_objects():
    boxes = torch.rand(2, 5, 4, requires_grad=True)
    prediction = BoxPrediction(torch.randn(2, 5, 3, requires_grad=True), boxes)
    losses = build_box_criterion()([prediction], [box_target([], []), box_target([], [])])
    sum(losses.values()).backward()
    assert losses["loss_bbox"].item() == losses["loss_iou"].item() == 0.0
    assert (boxes.grad == 0).all()


def test_criterion__targets_without_boxes():
    prediction = BoxPrediction(torch.randn(1, 5, 5), torch.rand(1, 5, 4))
    with pytest.raises(ValueError, match="blocks: expected boxes for the box costs"):
        build_box_criterion()([prediction], [blocks([0])])


def test_criterion__box_losses_of_a_decoder_without_boxes():
    with pytest.raises(ValueError, match="predicts masks alone"):
        build_box_criterion()(random_predictions(), [box_target([0], [[0.5, 0.5, 1, 1]])] * 2)


def test_criterion__mask_losses_of_a_decoder_without_masks():
    prediction = BoxPrediction(torch.randn(1, 5, 5), torch.rand(1, 5, 4))
    with pytest.raises(ValueError, match="loss_mask and loss_dice need masks"):
        build_box_criterion("detr_panoptic")([prediction], [box_target([0], [[0.5, 0.5, 1, 1]])])


def test_criterion__mask_losses_without_sampling():
    with pytest.raises(ValueError, match="sampling is None"):
        build_box_criterion("detr_panoptic", sampling=None)


#: Three queries of two images with cosines 0.6, 0 and 0.8 in the first, all 1 in the second.
EMBEDDINGS = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]], [[1.0, 1.0], [2.0, 2.0], [0.5, 0.5]]])


def predictions_of(embeddings: torch.Tensor) -> list[MaskPrediction]:
    batch, queries, channels = embeddings.shape
    return [MaskPrediction(torch.zeros(batch, queries, 5), embeddings, torch.randn(batch, channels, 16, 16))]


def test_criterion__query_similarity_is_logged():
    losses = build_criterion()(predictions_of(EMBEDDINGS.requires_grad_()), [blocks([0]), blocks([1])])
    assert losses["query_similarity"].item() == pytest.approx((0.6 + 0.8 + 0 + 3) / 6)
    assert not losses["query_similarity"].requires_grad


@pytest.mark.parametrize(
    # Two segments of the first image and one of the second leave one pair of matched queries.
    ("target", "expected"),
    [("all", [(0.36 + 0.64 + 0 + 3) / 6]), ("matched", [0.36, 0.64, 0.0])],
)
def test_criterion__orthogonality_by_hand(target, expected):
    loss = dict(type="mmseg_m2f.QueryOrthogonalityLoss", loss_weight=2.0, target=target)
    losses = build_criterion(loss_orthogonality=loss)(predictions_of(EMBEDDINGS), [blocks([0, 1]), blocks([2])])
    assert min(abs(losses["loss_orthogonality"].item() - 2 * value) for value in expected) < 1e-5


def test_criterion__orthogonality_in_every_layer():
    loss = dict(type="mmseg_m2f.QueryOrthogonalityLoss")
    predictions, targets = random_predictions(), [blocks([0, 2, 1]), blocks([])]
    losses = build_criterion(loss_orthogonality=loss)(predictions, targets)
    sum(losses[name] for name in ("d0.loss_orthogonality", "loss_orthogonality")).backward()
    matched = [prediction.mask_embeddings.grad for prediction in predictions]
    assert (matched[0][0].abs().sum(-1) > 0).sum() == 3
    assert matched[1] is None or not matched[1].any()
    assert not matched[2][1].any()


def test_criterion__orthogonality_of_boxes():
    criterion = build_box_criterion(loss_orthogonality=dict(type="mmseg_m2f.QueryOrthogonalityLoss"))
    with pytest.raises(ValueError, match="loss_orthogonality compares mask embeddings"):
        criterion([BoxPrediction(torch.randn(1, 5, 5), torch.rand(1, 5, 4))], [box_target([0], [[0.5, 0.5, 1, 1]])])


def test_criterion__orthogonality_of_unknown_queries():
    with pytest.raises(ValueError, match="target must be 'matched' or 'all', got 'content'"):
        build_criterion(loss_orthogonality=dict(type="mmseg_m2f.QueryOrthogonalityLoss", target="content"))


def test_criterion__of_reference_divides_class_losses_per_rank():
    assert build_criterion(reference="mmdet").loss_cls.per_rank
    assert not build_criterion().loss_cls.per_rank


FOCAL = dict(
    assigner=dict(
        type="mmseg_m2f.HungarianAssigner",
        match_costs=[
            dict(type="mmseg_m2f.ClassFocalCost"),
            dict(type="mmseg_m2f.MaskBCECost"),
            dict(type="mmseg_m2f.MaskDiceCost"),
            dict(type="mmseg_m2f.BoxL1Cost"),
            dict(type="mmseg_m2f.BoxGIoUCost"),
        ],
    ),
    loss_cls=dict(type="mmseg_m2f.ClassFocalLoss"),
    loss_bbox=dict(type="mmseg_m2f.BoxL1Loss"),
    loss_iou=dict(type="mmseg_m2f.BoxGIoULoss"),
)


def with_boxes(predictions: list[MaskPrediction]) -> list[MaskPrediction]:
    """K outputs of the class layer, and boxes."""
    return [
        each._replace(
            class_logits=each.class_logits.detach()[..., :-1].requires_grad_(),
            boxes=(torch.rand(*each.class_logits.shape[:2], 4) * 0.4 + 0.3).requires_grad_(),
        )
        for each in predictions
    ]


def boxed(target: MaskTarget) -> MaskTarget:
    return replace(target, boxes=torch.rand(target.num_segments, 4) * 0.4 + 0.3)


def test_criterion__encoder_and_noisy_copies():
    """Copies are compared with the segments they were made of, padding with none, all divided by the copies."""
    criterion = build_criterion(sampling=dict(type="mmseg_m2f.FullMaskSampling"), **FOCAL)
    targets = [boxed(blocks([0, 2])), boxed(blocks([3]))]
    features = torch.randn(2, 8, 16, 16)
    layers = [x._replace(mask_features=features) for x in with_boxes(random_predictions(layers=3))]
    copies = [x._replace(mask_features=features) for x in with_boxes(random_predictions(layers=2, queries=4))]
    # Two copies of each segment in two layers; the second of the last image's two slots is padding.
    images, queries, segments = [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 0, 2], [0, 1, 0, 1, 0, 0]
    pairs = [[0] * 4 + [1] * 4 + [0] * 2 + [1] * 2]
    pairs += [row[:4] * 2 + row[4:] * 2 for row in (images, queries, segments)]
    assignment = Assignment(*(torch.tensor(row) for row in pairs), [[4, 4], [2, 2]])
    found = criterion(TrainingPredictions(layers[1:], layers[0], Denoising(copies, assignment, 2)), targets)
    matched = criterion(layers, targets)
    for ours, as_layer in (("enc_", "d0."), ("d0.", "d1."), ("", "")):
        for name in ("loss_cls", "loss_mask", "loss_dice", "loss_bbox", "loss_iou"):
            torch.testing.assert_close(found[ours + name], matched[as_layer + name])
    assert len([name for name in found if "loss" in name]) == 5 * (1 + 2 + 2)
    last = copies[-1]
    is_class = torch.zeros(2, 4, 4, dtype=torch.bool)
    for image, slot, label in ((0, 0, 0), (0, 1, 2), (0, 2, 0), (0, 3, 2), (1, 0, 3), (1, 2, 3)):
        is_class[image, slot, label] = True
    p = last.class_logits.sigmoid()
    by_hand = torch.where(is_class, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()).sum()
    torch.testing.assert_close(found["dn_loss_cls"], 4 * by_hand / (3 * 2))
    true = torch.stack([targets[0].boxes[0], targets[0].boxes[1], targets[1].boxes[0]])
    differences = (last.boxes[[0, 0, 0, 0, 1, 1], queries] - true[[0, 1, 0, 1, 2, 2]]).abs().sum()
    torch.testing.assert_close(found["dn_loss_bbox"], 5 * differences / (3 * 2))


@pytest.mark.parametrize("loss_cls", ["ClassFocalLoss", "ClassLoss"])
def test_criterion__no_copies_cost_nothing(loss_cls):
    criterion = build_criterion(**FOCAL | dict(loss_cls=dict(type=f"mmseg_m2f.{loss_cls}")))
    layers = with_boxes(random_predictions(layers=2))
    empty = [x.of_queries(slice(0)) for x in layers]
    nothing = torch.zeros(0, dtype=torch.long)
    denoising = Denoising(empty, Assignment(nothing, nothing, nothing, nothing, [[0, 0], [0, 0]]), 0)
    losses = criterion(TrainingPredictions(layers, None, denoising), [boxed(blocks([0, 2])), boxed(blocks([]))])
    copies = {name: value.item() for name, value in losses.items() if "dn_" in name}
    assert len(copies) == 10
    assert set(copies.values()) == {0.0}
    sum(value for name, value in losses.items() if "loss" in name).backward()
