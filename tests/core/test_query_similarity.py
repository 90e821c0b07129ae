import pytest
import torch

from mmseg_m2f.core.query_similarity import orthogonality_loss, query_similarity

#: Cosines of the rows: 0.6 (first and second), 0 (first and third), -0.8 (second and third).
ROWS = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]])


def test_query_similarity__by_hand():
    assert query_similarity(ROWS.unsqueeze(0)).item() == pytest.approx((0.6 + 0.8) / 3)


def test_query_similarity__orthogonal_same_and_single():
    assert query_similarity(torch.eye(4).unsqueeze(0)).item() == 0
    assert query_similarity(torch.ones(2, 3, 5)).item() == pytest.approx(1)
    assert query_similarity(torch.ones(2, 1, 5)).item() == 0


def test_orthogonality_loss__pairs_of_chosen_queries():
    embeddings = ROWS.expand(3, 2, -1, -1)  # three layers, two images
    chosen = torch.zeros(3, 2, 3, dtype=torch.bool)
    chosen[0, 0] = True  # three pairs
    chosen[1, 0, :2] = chosen[1, 1, 1:] = True  # one pair in each image, none between images
    chosen[2, 0, 0] = chosen[2, 1, 1] = True  # no pair
    expected = [(0.36 + 0.64) / 3, (0.36 + 0.64) / 2, 0.0]
    torch.testing.assert_close(orthogonality_loss(embeddings, chosen), torch.tensor(expected))


def test_orthogonality_loss__gradient_turns_chosen_queries_apart():
    embeddings = ROWS.reshape(1, 1, 3, 2).clone().requires_grad_()
    chosen = torch.tensor([[[True, True, False]]])
    orthogonality_loss(embeddings, chosen).sum().backward()
    moved = embeddings.detach() - 0.5 * embeddings.grad
    assert orthogonality_loss(moved, chosen).item() < 0.36
    assert not embeddings.grad[0, 0, 2].any()


def test_orthogonality_loss__zero_embeddings_stay_finite():
    embeddings = torch.zeros(1, 1, 3, 2, requires_grad=True)
    orthogonality_loss(embeddings, torch.ones(1, 1, 3, dtype=torch.bool)).sum().backward()
    assert embeddings.grad.isfinite().all()
