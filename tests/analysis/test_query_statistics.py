import numpy as np
import pytest
import torch

from mmseg_m2f.analysis.query_statistics import QueryStatistics, partners_by_layer

Q, K, L, G, SIDE = 6, 3, 4, 3, 32


def images(number: int) -> list[dict]:
    """Random images in which query 5 is never active and never matched, and query 4 has one fixed class and place."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(number):
        logits = torch.from_numpy(generator.normal(size=(Q, K + 1))).float()
        logits[5, K] = 9.0
        logits[4, 1] = 9.0
        masks = torch.from_numpy(generator.random((Q, SIDE, SIDE)) < 0.3)
        masks[4] = False
        masks[4, :16, 16:] = True
        partners = [generator.permutation(5)[:G] for _ in range(L)]
        partners[-1][0] = -1 if generator.random() < 0.3 else partners[-1][0]
        made.append(dict(logits=logits, masks=masks, partners=partners, labels=generator.integers(K, size=G)))
    return made


def added(made: list[dict]) -> QueryStatistics:
    statistics = QueryStatistics.empty(Q, K, L)
    for each in made:
        statistics.add_image(each["logits"], each["masks"], partners=each["partners"], labels=each["labels"])
    return statistics


def test_query_statistics__equal_a_recount() -> None:
    made = images(8)
    found = added(made)
    active, matched = np.zeros(Q), np.zeros((Q, K))
    predicted, areas, changed = np.zeros((Q, K)), np.zeros(Q), np.zeros(L - 1)
    for each in made:
        for query in range(Q):
            label = max(range(K + 1), key=lambda k: each["logits"][query, k])
            if label < K:
                active[query] += 1
                predicted[query, label] += 1
                areas[query] += each["masks"][query].sum() / SIDE**2
        for segment in range(G):
            if (partner := each["partners"][-1][segment]) >= 0:
                matched[partner, each["labels"][segment]] += 1
            for layer in range(L - 1):
                changed[layer] += each["partners"][layer][segment] != each["partners"][layer + 1][segment]
    assert (found.num_images, found.segments) == (8, 8 * G)
    np.testing.assert_array_equal(found.active, active)
    np.testing.assert_array_equal(found.matched, matched)
    np.testing.assert_array_equal(found.predicted, predicted)
    np.testing.assert_allclose(found.area_sum, areas, rtol=1e-6)
    np.testing.assert_allclose(found.change_rates(), changed / (8 * G))


def test_query_statistics__find_the_dead_query_and_the_fixed_one() -> None:
    found = added(images(8))
    assert found.dead().tolist() == [5]
    assert found.predicted[4].tolist() == [0, 8, 0]
    expected = np.zeros((16, 16))
    expected[:8, 8:] = 1
    np.testing.assert_allclose(found.places[4] / 8, expected)
    assert found.area_sum[4] / 8 == pytest.approx(0.25)


def test_query_statistics__a_segment_that_keeps_its_query_does_not_change() -> None:
    made = images(1)
    made[0]["partners"] = [np.array([0, 1, 2]), np.array([0, 1, 2]), np.array([0, 2, 1]), np.array([0, 2, 1])]
    assert added(made).change_rates().tolist() == [0, 2 / 3, 0]


def test_query_statistics__boxes_and_images_without_segments() -> None:
    statistics = QueryStatistics.empty(Q, K, L)
    nothing = [np.zeros(0, dtype=np.int64)] * L
    statistics.add_image(images(1)[0]["logits"], None, partners=nothing, labels=np.zeros(0, dtype=np.int64))
    assert statistics.area_sum.sum() == statistics.matched.sum() == 0
    assert statistics.change_rates().tolist() == [0, 0, 0]


def test_partners_by_layer__without_a_partner() -> None:
    pairs = np.array([[0, 0, 1], [3, 4, 3], [1, 0, 0]])  # layer, query, segment
    assert [each.tolist() for each in partners_by_layer(pairs, num_layers=2, num_segments=3)] == [
        [4, 3, -1],
        [3, -1, -1],
    ]
