"""Prototypes, cosine logits and distillation against loops over pixels."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_m2f.core.class_context import (
    cosine_logits,
    distillation_target,
    label_prototypes,
    pixel_cross_entropy,
    pixel_divergence,
    shrink_labels,
    soft_prototypes,
    weighted_mean,
)

NUM_CLASSES = 4
TEMPERATURE = 15.0


def make_labels(*, classes: int = NUM_CLASSES) -> torch.Tensor:
    labels = torch.randint(classes, (2, 5, 6))
    labels[0, 0, :2] = -1
    labels[1, 2, 3] = 255  # beyond the classes: void as well
    return labels


def slow_distillation(student, teacher, labels, soft_weight):
    """The formula pixel by pixel and class by class, in float64."""
    q, log_p = teacher.double().softmax(1), student.double().log_softmax(1)
    per_class = []
    for k in range(NUM_CLASSES):
        total = weight = 0.0
        for b, y, x in (labels == k).nonzero().tolist():
            t = soft_weight * q[b, :, y, x]
            t[k] += 1 - soft_weight
            entropy = -sum(value * math.log(value + 1e-12) for value in q[b, :, y, x].tolist())
            divergence = sum(v * (math.log(v) - p) for v, p in zip(t.tolist(), log_p[b, :, y, x].tolist(), strict=True))
            total, weight = total + entropy * divergence, weight + entropy
        if weight:
            per_class.append(total / weight)
    return sum(per_class) / len(per_class)


def distillation(student, teacher, labels, *, soft_weight=0.5, classwise=True, scale=1.0):
    target, entropy = distillation_target(teacher.log_softmax(1), labels, soft_weight=soft_weight)
    divergence = pixel_divergence(target, student.log_softmax(1))
    return weighted_mean(divergence, scale * entropy, labels, student.shape[1], classwise=classwise)


def pixel_entropy(logits):
    return distillation_target(logits.log_softmax(1), torch.zeros_like(logits[:, 0]).long(), soft_weight=1.0)[1]


def test_soft_prototypes__weighted_means():
    features, weights = torch.randn(2, 3, 4, 5), torch.rand(2, NUM_CLASSES, 4, 5)
    for b in range(2):
        for k in range(NUM_CLASSES):
            expected = sum(weights[b, k, y, x] * features[b, :, y, x] for y in range(4) for x in range(5))
            found = soft_prototypes(features, weights)[b, k]
            torch.testing.assert_close(found, expected / weights[b, k].sum())


def test_label_prototypes__means_over_the_pixels_of_a_class():
    features, labels = torch.randn(2, 3, 5, 6), make_labels(classes=3)
    means, present = label_prototypes(features, labels, NUM_CLASSES)
    assert means.shape == (1, NUM_CLASSES, 3)
    for k in range(3):
        torch.testing.assert_close(means[0, k], features.movedim(1, -1)[labels == k].mean(0))
    assert present.tolist() == [[True, True, True, False]]
    assert not means[:, 3].any()


def test_prototypes__a_sure_estimate_gives_those_of_the_labels():
    features, labels = torch.randn(1, 3, 5, 6), torch.randint(2, (1, 5, 6))
    sure = 1e4 * F.one_hot(labels, NUM_CLASSES).movedim(-1, 1).float()
    means, _ = label_prototypes(features, labels, NUM_CLASSES)
    assert torch.equal(soft_prototypes(features, sure.softmax(1)), means)


def test_cosine_logits__bounded_and_blind_to_length():
    features, vectors = 100 * torch.randn(2, 8, 4, 4), torch.randn(2, NUM_CLASSES, 8)
    logits = cosine_logits(features, vectors, TEMPERATURE)
    assert logits.abs().max() <= TEMPERATURE + 1e-4
    expected = TEMPERATURE * F.cosine_similarity(features.unsqueeze(1), vectors[..., None, None], dim=2)
    torch.testing.assert_close(logits, expected)
    lengths = torch.rand(2, 1, 4, 4) + 0.5
    torch.testing.assert_close(cosine_logits(lengths * features, vectors, TEMPERATURE), logits)
    shared = cosine_logits(features, vectors[:1], TEMPERATURE)
    torch.testing.assert_close(shared[1], cosine_logits(features[1:], vectors[:1], TEMPERATURE)[0])


def test_cosine_logits__zero_features_are_no_nan():
    features = torch.zeros(1, 8, 2, 2, requires_grad=True)
    logits = cosine_logits(features.relu(), torch.randn(1, NUM_CLASSES, 8), TEMPERATURE)
    logits.sum().backward()
    assert not logits.any()
    assert not features.grad.any()


@pytest.mark.parametrize(("num_classes", "best", "orthogonal"), [(150, 4.1e-5, 4.6e-5), (19, 2.4e-6, 5.5e-6)])
def test_cosine_logits__bound_of_the_cross_entropy(num_classes, best, orthogonal):
    # The best that class vectors can do: the corners of a regular simplex, every pixel at its own.
    label = torch.zeros(1, 1, 1, dtype=torch.long)
    for vectors, expected in ((torch.eye(num_classes) - 1 / num_classes, best), (torch.eye(num_classes), orthogonal)):
        logits = cosine_logits(vectors[:1, :, None, None].double(), vectors[None].double(), TEMPERATURE)
        assert pixel_cross_entropy(logits, label).item() == pytest.approx(expected, rel=0.02)


def test_shrink_labels__nearest():
    labels = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [255, 255, 2, 2], [255, 255, 2, 2]]])
    assert torch.equal(shrink_labels(labels, (2, 2)), torch.tensor([[[0, 1], [255, 2]]]))


def test_pixel_cross_entropy__mean_over_known_pixels():
    logits, labels = torch.randn(2, NUM_CLASSES, 5, 6, requires_grad=True), make_labels()
    known = (labels >= 0) & (labels < NUM_CLASSES)
    expected = F.cross_entropy(logits.movedim(1, -1)[known], labels[known])
    torch.testing.assert_close(pixel_cross_entropy(logits, labels), expected)
    nothing = pixel_cross_entropy(logits, torch.full_like(labels, -1))
    assert nothing.item() == 0
    nothing.backward()
    assert not logits.grad.any()


def test_distillation_target__range_of_the_entropy():
    logits = torch.randn(2, NUM_CLASSES, 5, 6) * 5
    logits[0, :, 0, 0] = 0
    logits[0, :, 0, 1] = torch.tensor([1e4, 0, 0, 0])
    entropy = pixel_entropy(logits)
    assert entropy.min() >= 0
    assert entropy.max() <= math.log(NUM_CLASSES) + 1e-6
    assert entropy[0, 0, 0].item() == pytest.approx(math.log(NUM_CLASSES))
    assert entropy[0, 0, 1].item() == 0


@pytest.mark.parametrize("soft_weight", [0.5, 1.0, 0.0])
def test_distillation__equals_the_formula(soft_weight):
    student, teacher = torch.randn(2, NUM_CLASSES, 5, 6), torch.randn(2, NUM_CLASSES, 5, 6)
    labels = make_labels(classes=3)  # one class does not occur
    if soft_weight == 0:
        student, teacher = student.double(), teacher.double()  # the loops take the logarithm of 0
        nll = F.cross_entropy(student, labels.where((labels >= 0) & (labels < 4), 0), reduction="none")
        expected = weighted_mean(nll, pixel_entropy(teacher), labels, NUM_CLASSES, classwise=True).item()
    else:
        expected = slow_distillation(student, teacher, labels, soft_weight)
    found = distillation(student, teacher, labels, soft_weight=soft_weight)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_distillation__by_hand():
    """Two pixels of class 0 and one of class 1; the student is undecided, the teacher surer in the second pixel."""
    teacher_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    teacher = teacher_probs.log().T.reshape(1, 2, 1, 3)
    labels = torch.tensor([[[0, 0, 1]]])
    entropies = [math.log(2), -0.9 * math.log(0.9) - 0.1 * math.log(0.1), -0.2 * math.log(0.2) - 0.8 * math.log(0.8)]
    divergences = [math.log(2) - entropy for entropy in entropies]  # from (0.5, 0.5)
    first = (entropies[0] * divergences[0] + entropies[1] * divergences[1]) / (entropies[0] + entropies[1])
    found = distillation(torch.zeros(1, 2, 1, 3), teacher, labels, soft_weight=1.0)
    assert found.item() == pytest.approx((first + divergences[2]) / 2, rel=1e-5)
    every = distillation(torch.zeros(1, 2, 1, 3), teacher, labels, soft_weight=1.0, classwise=False)
    expected = sum(e * d for e, d in zip(entropies, divergences, strict=True)) / sum(entropies)
    assert every.item() == pytest.approx(expected, rel=1e-5)


def test_distillation__zero_only_where_student_and_teacher_agree():
    teacher, labels = torch.randn(2, NUM_CLASSES, 5, 6), make_labels()
    assert distillation(teacher, teacher, labels, soft_weight=1.0).abs() < 1e-6
    assert distillation(teacher + torch.randn_like(teacher), teacher, labels, soft_weight=1.0) > 1e-3


@pytest.mark.parametrize("soft_weight", [0.5, 1.0])
def test_distillation__gradient_of_the_cross_entropy(soft_weight):
    student = torch.randn(2, NUM_CLASSES, 5, 6, requires_grad=True)
    teacher, labels = torch.randn(2, NUM_CLASSES, 5, 6, requires_grad=True), torch.randint(NUM_CLASSES, (2, 5, 6))
    (found,) = torch.autograd.grad(distillation(student, teacher, labels, soft_weight=soft_weight), student)
    one_hot = F.one_hot(labels, NUM_CLASSES).movedim(-1, 1)
    target = soft_weight * teacher.detach().softmax(1) + (1 - soft_weight) * one_hot
    cross_entropy = -(target * student.log_softmax(1)).sum(1)
    entropy = pixel_entropy(teacher.detach())
    loss = weighted_mean(cross_entropy, entropy, labels, NUM_CLASSES, classwise=True)
    torch.testing.assert_close(found, torch.autograd.grad(loss, student)[0])
    assert not distillation_target(teacher.log_softmax(1), labels, soft_weight=soft_weight)[0].requires_grad


def test_distillation__blind_to_scale_of_entropy_and_to_class_sizes():
    student, teacher = torch.randn(1, NUM_CLASSES, 2, 6), torch.randn(1, NUM_CLASSES, 2, 6)
    labels = torch.tensor([[[0] * 6, [1, 1, 1, 2, 2, 3]]])
    once = distillation(student, teacher, labels)
    torch.testing.assert_close(distillation(student, teacher, labels, scale=7.0), once)
    twice = [torch.cat([x, x[..., :1, :]], -2) for x in (student, teacher, labels)]  # the pixels of class 0 again
    torch.testing.assert_close(distillation(*twice), once)
    assert not torch.isclose(
        distillation(*twice, classwise=False), distillation(student, teacher, labels, classwise=False)
    )


@pytest.mark.parametrize("classwise", [True, False])
def test_weighted_mean__without_known_pixels_is_zero_with_a_graph(classwise):
    values = torch.randn(1, 2, 2, requires_grad=True)
    mean = weighted_mean(values, torch.ones(1, 2, 2), torch.full((1, 2, 2), -1), 3, classwise=classwise)
    mean.backward()
    assert mean.item() == 0
    assert not values.grad.any()
