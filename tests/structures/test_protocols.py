from mmseg_m2f import structures
from mmseg_m2f.models.assigners.fixed import FixedAssigner
from mmseg_m2f.models.sampling.random_points import PointSampling


def test_protocols__parts_offer_what_they_ask_for() -> None:
    assert isinstance(FixedAssigner(), structures.Assigner)
    assert isinstance(PointSampling(), structures.MaskSampling)
    assert not isinstance(FixedAssigner(), structures.MaskSampling)


def test_protocols__are_found_beside_the_structures() -> None:
    assert structures.QueryDecoder.__module__ == "mmseg_m2f.structures.protocols"
