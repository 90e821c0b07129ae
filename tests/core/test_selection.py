import pytest
import torch

from mmseg_m2f.core.selection import (
    best_pairs,
    class_probs_of,
    class_votes,
    confident_queries,
    kept_first,
    segment_ids,
    survives_nms,
    vote_logits,
)
from tests.core import oracle

#: Probabilities of a thing, stuff, a thing, and "no object".
CLASS_LOGITS = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.05, 0.8, 0.15, 0.0], [0.1, 0.0, 0.0, 0.9]]).log()
IS_THING = torch.tensor([True, False, True])


def pairs(num_pairs: int, **options: bool) -> list[tuple[int, int]]:
    """Query and class of the best pairs, best first."""
    options = dict(things_first=True, one_class_per_query=False) | options
    found = best_pairs(CLASS_LOGITS[None], IS_THING, max_per_image=num_pairs, **options)
    scores, labels, queries = (x[found[3]] for x in found[:3])
    torch.testing.assert_close(scores, CLASS_LOGITS.softmax(-1)[queries, labels])
    order = scores.argsort(descending=True)
    return list(zip(queries[order].tolist(), labels[order].tolist(), strict=True))


def test_best_pairs__are_things():
    assert pairs(3) == [(0, 0), (0, 2), (1, 2)]


def test_best_pairs__stuff_may_take_places():
    assert pairs(3, things_first=False) == [(0, 0), (0, 2)]


def test_best_pairs__one_class_per_query():
    assert pairs(3, one_class_per_query=True) == [(0, 0), (1, 2), (2, 0)]


def test_confident_queries__leaves_out_no_object_and_the_unconfident():
    scores, labels, is_confident = confident_queries(CLASS_LOGITS[None], 0.5)
    assert is_confident.tolist() == [[False, True, False]]  # the last one's best class is "no object"
    assert labels[0, 1].item() == 1
    assert scores[0, 1].item() == pytest.approx(0.8)


def test_segment_ids__number_accepted_things():
    ids = segment_ids(
        torch.tensor([[0, 2, 1, 0, 1, 0]]),
        IS_THING,
        won=torch.tensor([[9, 4, 5, 7, 0, 8]]),
        own=torch.tensor([[10, 5, 5, 10, 3, 8]]),
        overlap_threshold=0.8,
    )
    assert ids.tolist() == [[1000, 2002, 1, 3, 3, 3000]]


def test_kept_first__numbers_of_each_image():
    kept = torch.tensor([[False, True, False, True], [False] * 4, [True] * 4])
    assert [numbers.tolist() for numbers in kept_first(kept)] == [[1, 3], [], [0, 1, 2, 3]]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_survives_nms__equals_the_greedy_loop(threshold):
    masks, labels = torch.rand(3, 12, 5, 6) < 0.6, torch.randint(2, (3, 12))
    scores = torch.rand(3, 12)
    expected = [oracle.survives_nms(*image, threshold) for image in zip(masks, labels, scores, strict=True)]
    found = survives_nms(masks, labels, scores, threshold)
    assert torch.equal(found, torch.stack(expected))
    assert 0 < found.sum() < found.numel()


def test_class_probs_of__sigmoids_need_not_add_up():
    logits = torch.tensor([[[0.0, 2.0]]])
    torch.testing.assert_close(class_probs_of(logits, "sigmoid"), torch.tensor([[[0.5, 0.880797]]]))
    torch.testing.assert_close(class_probs_of(logits, "softmax"), torch.tensor([[[0.119203]]]))


def test_best_pairs__of_sigmoids():
    logits = torch.tensor([[[2.0, 0.0, 1.0], [-3.0, 5.0, -1.0]]])
    options = dict(max_per_image=2, things_first=True, one_class_per_query=False)
    scores, labels, queries, counts = best_pairs(logits, IS_THING, class_activation="sigmoid", **options)
    found = sorted(zip(queries[0].tolist(), labels[0].tolist(), strict=True))
    assert (found, counts.all().item()) == ([(0, 0), (0, 2)], True)
    torch.testing.assert_close(scores[0].sort().values, torch.tensor([1.0, 2.0]).sigmoid())


def test_vote_logits__sharpen_sigmoids():
    probs = torch.tensor([[[0.9, 0.3, 0.05], [0.2, 0.1, 0.05]]])
    votes = vote_logits(probs.logit(), "sigmoid", object_threshold=0.25).softmax(-1)
    assert votes[0, 0, 0].item() == pytest.approx(0.99995, abs=1e-5)
    assert votes[0, 1].tolist() == [0, 0, 0, 1]  # nothing exceeds the threshold
    assert vote_logits(probs.logit(), "sigmoid")[0, 1].softmax(-1)[:-1].sum().item() == pytest.approx(1)
    assert vote_logits(probs, "softmax") is probs


def test_class_votes__are_those_of_the_logits():
    logits = torch.randn(5, 4)
    softmax = logits.softmax(-1)
    assert torch.equal(class_votes(softmax, "softmax"), softmax[:, :-1])
    sigmoid = logits.sigmoid()
    expected = vote_logits(logits[None], "sigmoid")[0].softmax(-1)[:, :-1]
    found = class_votes(torch.cat([sigmoid, 1 - sigmoid.amax(-1, keepdim=True)], -1), "sigmoid")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(-1), torch.ones(5))  # nothing is left for "no object"
