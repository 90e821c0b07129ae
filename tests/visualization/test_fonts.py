import numpy as np
import pytest

from mmseg_m2f.visualization import fonts, legend, overlay_panoptic
from mmseg_m2f.visualization.fonts import drawable_names, font_of

PALETTE = [(200, 0, 0), (0, 200, 0)]
#: Private characters, which no font has.
NOWHERE = ["\ue123\ue124", "\ue125"]


@pytest.fixture(autouse=True)
def shipped_font_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fonts the system has."""
    fonts._file_with.cache_clear()
    monkeypatch.setattr(fonts, "findSystemFonts", list)
    fonts._files.cache_clear()


@pytest.mark.parametrize(
    ("one", "other"), [("δρόμος", "τοίχος"), ("дорога", "здание"), ("Straße", "Allée"), ("a", "b")]
)
def test_legend__tells_names_of_many_scripts_apart(one: str, other: str) -> None:
    assert drawable_names([one, other]) == [one, other]
    first, second = (np.asarray(legend([name], PALETTE[:1], width=200)) for name in (one, other))
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_font_of__ascii_is_in_pillow_s_own() -> None:
    assert font_of("road", 13).getname() != font_of("дорога", 13).getname() == ("DejaVu Sans", "Book")


def test_drawable_names__numbers_and_a_warning_where_no_font_has_them() -> None:
    with pytest.warns(UserWarning, match="No font has the characters of 2 class names .* numbers of these classes"):
        assert drawable_names(["sky", *NOWHERE]) == ["sky", "1", "2"]


def test_overlay_panoptic__numbers_instead_of_boxes() -> None:
    image, panoptic = np.full((80, 80, 3), 100, np.uint8), np.ones((80, 80), int)
    with pytest.warns(UserWarning, match="No font"):
        drawn = overlay_panoptic(image, panoptic, NOWHERE, PALETTE)
    np.testing.assert_array_equal(drawn, overlay_panoptic(image, panoptic, ["0", "1"], PALETTE))
