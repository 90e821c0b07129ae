import sys

import numpy as np
import pytest

from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.inference.web_page import Drawer, build_page
from mmseg_m2f.visualization import annotate


def test_drawer__draws_what_the_model_predicts_of_rgb(predictor: Predictor) -> None:
    picture = np.zeros((32, 48, 3), dtype=np.uint8)
    picture[8:24, 8:24] = (250, 10, 10)
    drawn, found = Drawer(predictor)(picture, 0.5, 0.5)
    result = predictor(picture[..., ::-1].copy())
    expected = annotate(picture, result, predictor.classes, predictor.palette, opacity=0.5)
    np.testing.assert_array_equal(drawn, np.asarray(expected))
    shares = [(result.semantic == label).mean() for label in range(2)]
    for name, share in zip(predictor.classes, shares, strict=True):
        assert (f"{name}: {share:.1%} of the picture" in found) == (share > 0)


def test_drawer__without_a_picture(predictor: Predictor) -> None:
    assert Drawer(predictor)(None, 0.5, 0.5) == (None, "Choose a picture first.")


def test_build_page__names_the_extra_where_gradio_is_missing(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(TypeError, match=r"mmseg-m2f\[demo\]"):
        build_page(predictor, title="x")


def test_drawer__refuses_other_channels(predictor: Predictor) -> None:
    predictor.num_channels = 6
    with pytest.raises(ValueError, match="got one of 6 channels"):
        Drawer(predictor)
