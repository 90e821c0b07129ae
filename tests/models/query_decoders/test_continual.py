import pytest
import torch
from torch import nn

from mmseg_m2f.core.postprocess import semantic_scores
from mmseg_m2f.models.query_decoders import ContinualDecoder
from mmseg_m2f.structures import FeatureSpec

SPEC = FeatureSpec((16, 32), (16, 16))
TASKS = [[0, 4], [2], [5, 1]]  # of 7 classes; 3 and 6 are not known yet


def decoder(tasks: list[list[int]] = TASKS) -> ContinualDecoder:
    branch = dict(type="mmseg_m2f.AttentionToMaskDecoder", channels=32, num_layers=1, dropout=0.5)
    built = ContinualDecoder(7, SPEC, tasks=tasks, branch=branch)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3)
    return built


def feature_maps() -> list[torch.Tensor]:
    return [torch.randn(2, channels, 3, 5) for channels in SPEC.channels]


def test_continual__each_task_scores_its_own_classes():
    built, maps = decoder().eval(), feature_maps()
    (result,) = built(maps, last_only=True)
    assert result.class_logits.shape == (2, 5, 8)
    scores = semantic_scores(result.class_logits, result.mask_logits())
    for branch, task in zip(built.branches, TASKS, strict=True):
        alone = branch(maps)[-1]
        torch.testing.assert_close(scores[:, task], semantic_scores(alone.class_logits, alone.mask_logits()))
    assert not scores[:, [3, 6]].any()


def test_continual__the_last_task_is_trained_and_nothing_is_forgotten():
    built, maps = decoder(), feature_maps()
    known = [0, 4, 2]

    def scores() -> torch.Tensor:
        (result,) = built.eval()(maps, last_only=True)
        return semantic_scores(result.class_logits, result.mask_logits()).detach()

    before = scores()
    optimizer = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    built.train()
    assert [branch.training for branch in built.branches] == [False, False, True]
    predictions = built(maps)
    assert [tuple(p.class_logits.shape) for p in predictions] == [(2, 2, 3)] * 2
    sum(p.class_logits.square().mean() + p.mask_logits().square().mean() for p in predictions).backward()
    optimizer.step()
    after = scores()
    assert torch.equal(before[:, known], after[:, known])
    assert (before[:, [5, 1]] != after[:, [5, 1]]).all()


def test_continual__starts_from_the_checkpoint_of_the_tasks_before():
    earlier, later = decoder(TASKS[:2]), decoder()
    missing, unexpected = later.load_state_dict(earlier.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.startswith("branches.2.") for name in missing)
    maps, known = feature_maps(), [0, 4, 2]
    before, after = (built.eval()(maps, last_only=True)[0] for built in (earlier, later))
    scores = semantic_scores(before.class_logits, before.mask_logits())[:, known]
    later_scores = semantic_scores(after.class_logits, after.mask_logits())[:, known]
    torch.testing.assert_close(later_scores, scores, rtol=1e-5, atol=1e-6)


def test_continual__backbone_that_would_forget():
    maps = [x.requires_grad_() for x in feature_maps()]
    decoder(TASKS[:1]).train()(maps)
    with pytest.raises(ValueError, match=r"2 earlier tasks rely on the backbone.*Set model.trainable=.'decode_head.'."):
        decoder().train()(maps)


@pytest.mark.parametrize(
    ("tasks", "advice"),
    [
        ([[0, 1], [1]], r"Correct the classes \[1\]"),
        ([[0, 7]], r"Correct the classes \[7\]"),
        ([[0], []], "Drop the empty task"),
    ],
)
def test_continual__tasks_that_overlap_or_are_empty(tasks, advice):
    with pytest.raises(ValueError, match=advice):
        decoder(tasks)
