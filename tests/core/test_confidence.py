import math

import numpy as np
import pytest
import torch

from mmseg_m2f.core.confidence import (
    certainty_maps,
    check_temperature,
    fit_class_temperature,
    fit_score_temperature,
    image_certainty,
    known_probs,
    label_certainty,
    temper_scores,
)
from mmseg_m2f.core.postprocess import resize_maps, semantic_scores
from mmseg_m2f.core.results import semantic_labels
from mmseg_m2f.core.strips import Resizing


def test_known_probs__by_hand():
    scores = torch.tensor([[0.6, 0.2], [0.0, 0.0], [1.5, 0.5]])  # claimed by one query, by none, by two
    expected = torch.tensor([[0.6, 0.2, 0.2], [0.0, 0.0, 1.0], [0.75, 0.25, 0.0]])
    torch.testing.assert_close(known_probs(scores), expected)
    # Square roots, normalised: √0.6 : √0.2 : √0.2
    total = math.sqrt(0.6) + 2 * math.sqrt(0.2)
    torch.testing.assert_close(known_probs(scores, 2.0)[0], torch.tensor([0.6, 0.2, 0.2]).sqrt() / total)
    squares = torch.tensor([0.36, 0.04, 0.04]) / 0.44
    torch.testing.assert_close(known_probs(scores, 0.5)[0], squares)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 7.0])
def test_known_probs__sum_to_one_in_the_order_of_the_scores(temperature):
    scores = torch.rand(50, 7) * torch.rand(50, 1) * 2
    probs = known_probs(scores, temperature)
    torch.testing.assert_close(probs.sum(1), torch.ones(50))
    assert torch.equal(probs[:, :-1].argsort(1), scores.argsort(1))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 50.0])
def test_known_probs__extreme_scores_stay_finite(temperature):
    scores = torch.tensor([[100.0, 0.0], [1e-30, 0.0], [0.5, 0.5], [1.0, 0.0]])
    assert known_probs(scores, temperature).isfinite().all()


def test_label_certainty__reads_the_label_and_the_unclaimed_mass():
    scores = torch.tensor([[0.6, 0.1], [0.2, 0.3]])[..., None]  # K H W: two pixels
    found = image_certainty(scores, torch.tensor([[0], [1]]))
    torch.testing.assert_close(found.confidence, torch.tensor([[0.6], [0.3]]))
    torch.testing.assert_close(found.unknown, torch.tensor([[0.2], [0.6]]))


@pytest.mark.parametrize("resize_scores", [False, True])
def test_certainty_maps__are_those_of_whole_scores(resize_scores):
    class_logits, mask_logits = torch.randn(2, 6, 5), torch.randn(2, 6, 80, 90) * 4
    resizing = Resizing((160, 192), (150, 180), (200, 300))
    labels = semantic_labels(class_logits, mask_logits, resizing, resize_scores=resize_scores)
    masks = resize_maps(mask_logits, resizing.canvas)[..., :150, :180]
    if resize_scores:
        scores = resize_maps(semantic_scores(class_logits, masks), resizing.size)
    else:
        scores = semantic_scores(class_logits, resize_maps(masks, resizing.size))
    expected = label_certainty(scores, labels, 1.7)
    for memory in (1, 64):
        found = certainty_maps(
            *(class_logits, mask_logits, labels, resizing),
            temperature=1.7,
            resize_scores=resize_scores,
            max_memory_mb=memory,
        )
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found.confidence.min() >= 0
    assert torch.equal(scores.argmax(1), labels)


def test_temper_scores__by_hand():
    scores = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0])
    # odds 1:4 and 9:1; their square roots are 1:2 and 3:1
    torch.testing.assert_close(temper_scores(scores, 2.0), torch.tensor([0.0, 1 / 3, 0.5, 0.75, 1.0]))
    assert torch.equal(temper_scores(scores, 1.0), scores)


@pytest.mark.parametrize("temperature", [0.05, 0.7, 20.0])
def test_temper_scores__keeps_the_order(temperature):
    scores = torch.rand(1000).sort().values
    assert (temper_scores(scores, temperature).diff() >= 0).all()


def test_fit_class_temperature__finds_a_planted_one():
    generator = np.random.default_rng(0)
    probs = generator.dirichlet(np.ones(4), 20000)  # the fourth is unclaimed mass, which is never the truth
    known = probs[:, :3] / probs[:, :3].sum(1, keepdims=True)
    labels = (generator.random((len(known), 1)) > known.cumsum(1)).sum(1).clip(max=2)
    assert fit_class_temperature(known, labels) == pytest.approx(1.0, abs=0.03)
    sharp = known**3 / (known**3).sum(1, keepdims=True)
    assert fit_class_temperature(sharp, labels) == pytest.approx(3.0, abs=0.1)


def test_fit_class_temperature__minimises_the_mean_of_minus_log_p():
    scores = np.random.default_rng(1).dirichlet(np.ones(4), 200)[:, :3]
    labels = scores.argmax(1)
    labels[:90] = 0
    found = fit_class_temperature(scores, labels)

    def loss(temperature: float) -> float:
        probs = known_probs(torch.from_numpy(scores), temperature)
        return float(-probs[torch.arange(200), torch.from_numpy(labels)].log().mean())

    assert loss(found) < min(loss(found * 1.02), loss(found / 1.02))


def test_fit_score_temperature__finds_a_planted_one():
    generator = np.random.default_rng(0)
    right = generator.random(20000)
    hits = generator.random(20000) < right
    assert fit_score_temperature(right, hits) == pytest.approx(1.0, abs=0.04)
    odds = (right / (1 - right)) ** 2
    assert fit_score_temperature(odds / (1 + odds), hits) == pytest.approx(2.0, abs=0.08)
    assert math.isfinite(fit_score_temperature(np.array([0.0, 1.0]), np.array([True, False])))


def test_fits__need_data():
    with pytest.raises(ValueError, match="expected labelled pixels of held-out images, got none"):
        fit_class_temperature(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match="expected detected objects of held-out images, got none"):
        fit_score_temperature(np.zeros(0), np.zeros(0, bool))


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "2", True])
def test_check_temperature__refuses(value):
    with pytest.raises(ValueError, match="here: expected a finite number above 0, got"):
        check_temperature(value, where="here")
    assert check_temperature(2, where="here") == 2.0
