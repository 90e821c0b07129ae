import numpy as np
import pytest

from mmseg_m2f.evaluation.confidence_groups import (
    ConfidenceGroups,
    answer_figures,
    area_under_risk_coverage,
    expected_calibration_error,
    group_answers,
    join_groups,
)


def grouped(confidences: list[float], hits: list[int], *, exact: bool = True) -> ConfidenceGroups:
    labels = np.zeros(len(hits), int)
    return group_answers(labels, np.array(confidences), np.array(hits, bool), exact=exact, where="here")


def test_expected_calibration_error__by_hand():
    # Bins of width 1/15: 0.95 and 0.99 lie in the last, 0.5 in the eighth.
    groups = grouped([0.95, 0.99, 0.5, 0.5], [1, 0, 1, 0])
    assert expected_calibration_error(groups) == pytest.approx((abs(1.94 - 1) + abs(1.0 - 1)) / 4)
    # Overconfidence in one bin does not make up for underconfidence in another.
    assert expected_calibration_error(grouped([1.0, 0.0], [0, 1])) == 1.0
    assert expected_calibration_error(grouped([1.0, 0.0], [1, 0])) == 0.0


def test_expected_calibration_error__bins_include_their_upper_end():
    assert grouped([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0], [0, 0, 0, 0]).bins.tolist() == [0, 0, 1, 14]


def test_area_under_risk_coverage__by_hand():
    # Risks of the first 1, 2, 3, 4: 0, 1/2, 1/3, 2/4
    groups = grouped([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    assert area_under_risk_coverage(groups) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert area_under_risk_coverage(grouped([0.9, 0.2], [1, 1])) == 0.0


def test_area_under_risk_coverage__equal_confidences_are_the_mean_over_orders():
    confidences, hits = [0.9, 0.5, 0.5, 0.5, 0.1], [1, 1, 0, 1, 0]
    orders = []
    for wrong_place in range(3):  # where the wrong one of the three equal ones may stand
        ordered = [1, *(int(place != wrong_place) for place in range(3)), 0]
        orders.append(area_under_risk_coverage(grouped([0.9, 0.5, 0.4, 0.3, 0.1], ordered)))
    assert area_under_risk_coverage(grouped(confidences, hits)) == pytest.approx(np.mean(orders))
    assert area_under_risk_coverage(grouped([0.5] * 4, [1, 0, 0, 1])) == pytest.approx(0.5)


def test_area_under_risk_coverage__depends_on_the_order_alone():
    generator = np.random.default_rng(0)
    confidences, hits = generator.random(300), generator.random(300) < 0.7
    plain = area_under_risk_coverage(grouped([*confidences], [*hits]))
    assert area_under_risk_coverage(grouped([*confidences**3], [*hits])) == pytest.approx(plain, abs=1e-12)
    assert area_under_risk_coverage(grouped([*confidences], [*hits], exact=False)) == pytest.approx(plain, abs=0.01)


def test_groups__split_over_images_change_nothing():
    generator = np.random.default_rng(0)
    confidences, hits = generator.random(200), generator.random(200) < 0.5
    whole = grouped([*confidences], [*hits], exact=False)
    parts = [tuple(grouped([*confidences[i::2]], [*hits[i::2]], exact=False)) for i in range(2)]
    assert answer_figures(join_groups(parts)) == pytest.approx(answer_figures(whole))
    assert whole.counts.sum() == 200
    assert len(whole.counts) < 100


def test_groups__of_a_class():
    groups = group_answers(
        np.array([0, 1, 1]), np.array([0.5, 0.9, 0.9]), np.array([1, 1, 0], bool), exact=True, where=""
    )
    assert groups.of_class(1).counts.tolist() == [2]
    assert groups.of_class(1).hits.tolist() == [1]
    assert np.isnan(expected_calibration_error(groups.of_class(2)))
    assert np.isnan(area_under_risk_coverage(groups.of_class(2)))


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_groups__refuse_what_is_no_probability(value):
    with pytest.raises(ValueError, match=r"here: expected confidences in \[0, 1\], got"):
        grouped([0.5, value], [1, 0])
