import numpy as np
import pytest

from mmseg_m2f.visualization import (
    Curve,
    plot_curves,
)


@pytest.mark.parametrize("empty", [True, False])
def test_plot_curves__draws_with_and_without_data(empty: bool) -> None:
    steps = np.arange(1, 40)
    losses = {} if empty else {"loss": Curve(steps, np.where(steps % 7, 3.0 / steps, np.nan))}
    scores = {} if empty else {"mIoU": Curve(steps[::10], np.linspace(0.1, 0.9, 4))}
    picture = plot_curves(losses, scores=scores, learning_rate=None if empty else Curve(steps, 1e-4 / steps))
    assert picture.size == (1320, 495)
    assert len(picture.getcolors(100000) or []) > 10


def test_plot_curves__one_value_is_a_dot() -> None:
    one = Curve(np.array([50]), np.array([2.0]))
    pixels = np.asarray(plot_curves({"first": one}, scores={}))
    inside = pixels[100:400, 100:600].reshape(-1, 3)  # below the legend
    assert (inside == (31, 119, 180)).all(1).any()  # matplotlib's first colour
