import torch

from mmseg_m2f.export.object_order import align_objects


def outputs() -> dict[str, torch.Tensor]:
    """Three objects in one image; the first two have nearly the same score, the last two the same class."""
    return dict(
        object_scores=torch.tensor([[0.5, 0.5 - 1e-6, 0.25]]),
        object_labels=torch.tensor([[3, 1, 1]]),
        object_boxes=torch.tensor([[[0.0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 1, 1]]]),
        object_masks=torch.eye(3, dtype=torch.bool)[None, :, :, None],
    )


def permuted(order: list[int]) -> dict[str, torch.Tensor]:
    return {name: value[:, order] for name, value in outputs().items()} | dict(labels=torch.zeros(1))


def test_align_objects__equal_scores_change_places() -> None:
    aligned = align_objects(outputs(), permuted([1, 0, 2]), score_tolerance=1e-5)
    assert all(torch.equal(aligned[name], value) for name, value in outputs().items())
    assert "labels" in aligned


def test_align_objects__one_class_and_score_goes_by_box_and_mask() -> None:
    wanted = outputs()
    wanted["object_scores"][:] = 0.5
    wanted["object_labels"][:] = 1
    wanted["object_boxes"][:, 1] = wanted["object_boxes"][:, 0]
    found = {name: value[:, [2, 1, 0]] for name, value in wanted.items()}
    aligned = align_objects(wanted, found, score_tolerance=1e-5)
    assert all(torch.equal(aligned[name], value) for name, value in wanted.items())


def test_align_objects__another_score_or_class_stays_a_difference() -> None:
    found = permuted([0, 1, 2])
    found["object_labels"][0, 0] = 2
    found["object_scores"][0, 2] = 0.125
    aligned = align_objects(outputs(), found, score_tolerance=1e-5)
    assert aligned["object_labels"].tolist() == [[2, 1, 1]]
    assert aligned["object_scores"][0, 2] == 0.125


def test_align_objects__other_shapes_stay() -> None:
    found = {name: value[:, :2] for name, value in outputs().items()}
    assert align_objects(outputs(), found, score_tolerance=1e-5) == found
    assert align_objects({}, dict(labels=torch.zeros(1)), score_tolerance=1e-5).keys() == {"labels"}
