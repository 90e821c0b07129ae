import torch
from mmengine.registry import MODELS

from mmseg_m2f.structures import BACKGROUND, VOID, MaskPrediction, MaskTarget
from tests.models.assigners.test_fixed import CRITERION


def test_task_criterion__other_classes_are_background():
    # Classes 5, 2, 7 in three columns, then background and void; the task knows 7 and 5, in this order.
    whole = MaskTarget(torch.tensor([5, 2, 7]), torch.tensor([0, 1, 2, BACKGROUND, VOID]).expand(1, 5, 5))
    of_task = MaskTarget(torch.tensor([1, 0]), torch.tensor([0, BACKGROUND, 1, BACKGROUND, VOID]).expand(1, 5, 5))
    prediction = MaskPrediction(torch.randn(1, 2, 3), torch.randn(1, 2, 4), torch.randn(1, 4, 5, 5))
    criterion = MODELS.build(dict(type="mmseg_m2f.TaskCriterion", classes=[7, 5], criterion=CRITERION))
    losses, expected = criterion([prediction], [whole]), MODELS.build(CRITERION)([prediction], [of_task])
    torch.testing.assert_close(losses, expected)
    assert losses["loss_mask"] > 0
    assert len(criterion.box_losses) == 0


def test_task_criterion__no_class_of_the_task():
    whole = MaskTarget(torch.tensor([2]), torch.zeros(1, 5, 5, dtype=torch.long))
    prediction = MaskPrediction(
        torch.randn(1, 2, 3, requires_grad=True), torch.randn(1, 2, 4), torch.randn(1, 4, 5, 5, requires_grad=True)
    )
    criterion = MODELS.build(dict(type="mmseg_m2f.TaskCriterion", classes=[7, 5], criterion=CRITERION))
    losses = criterion([prediction], [whole])
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    torch.testing.assert_close(losses["loss_cls"], -prediction.class_logits.log_softmax(-1)[..., -1].mean())


def test_task_criterion__boxes_follow_their_segments():
    boxes = torch.rand(3, 4)
    target = MaskTarget(torch.tensor([5, 2, 7]), torch.zeros(1, 5, 5, dtype=torch.long), boxes=boxes)
    criterion = MODELS.build(dict(type="mmseg_m2f.TaskCriterion", classes=[7, 5], criterion=CRITERION))
    seen = []
    criterion.criterion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    criterion([MaskPrediction(torch.randn(1, 2, 3), torch.randn(1, 2, 4), torch.randn(1, 4, 5, 5))], [target])
    assert torch.equal(seen[0].boxes, boxes[None, [0, 2]])
