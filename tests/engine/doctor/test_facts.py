"""Counts of values and equal files."""

from mmseg_m2f.engine.doctor.facts import SampleFacts, duplicates, spread, total_histogram


def test_total_histogram__adds_samples():
    facts = [SampleFacts("a", stored={0: 2, 5: 1}, mapped={0: 3}), SampleFacts("b", stored={5: 2}, mapped={1: 2})]
    assert total_histogram(facts, mapped=False) == {0: 2, 5: 3}
    assert total_histogram(facts, mapped=True) == {0: 3, 1: 2}


def test_duplicates__names_pairs():
    facts = [SampleFacts("a", digest="1"), SampleFacts("b", digest="2"), SampleFacts("c", digest="1"), SampleFacts("d")]
    assert list(duplicates(facts)) == [("a", "c")]


def test_spread__is_even():
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, None) == [0, 1, 2]
