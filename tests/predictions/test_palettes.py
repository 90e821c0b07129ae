from types import SimpleNamespace

import numpy as np
import pytest

from mmseg_m2f.predictions.palettes import class_colours, distinct_palette, read_categories, shades


def test_shades__the_first_is_the_colour_itself_and_all_differ() -> None:
    found = shades([(200, 30, 30), (0, 90, 0)], [0, 1, 0, 0, 0, 1])
    np.testing.assert_allclose(found[:2], [(200, 30, 30), (0, 90, 0)], atol=1e-3)
    assert len(np.unique(found.round(), axis=0)) == 6
    assert (found >= 0).all()
    assert (found <= 255).all()
    assert shades([(200, 30, 30)], []).shape == (0, 3)


def test_distinct_palette__colours_differ_and_stay_the_same() -> None:
    assert distinct_palette(60) == distinct_palette(60)
    assert len(set(distinct_palette(60))) == 60
    assert distinct_palette(60)[:5] == distinct_palette(5)


CLASSES, PALETTE = ("road", "tree"), [[128, 64, 128], [0, 128, 0]]


def test_class_colours__made_up_where_the_dataset_has_none() -> None:
    classes, palette = class_colours(SimpleNamespace(metainfo=dict(classes=CLASSES)))
    assert classes == ["road", "tree"]
    assert len(palette) == 2


def test_class_colours__dataset_without_classes_is_named() -> None:
    with pytest.raises(ValueError, match=r"SimpleNamespace: expected class names.*Pass metainfo="):
        class_colours(SimpleNamespace(metainfo={}))


def test_read_categories__ids_of_ours_and_of_mmdet_s_data_sets() -> None:
    ours = SimpleNamespace(metainfo=dict(classes=CLASSES, category_ids=(90, 3)))
    mmdets = SimpleNamespace(metainfo=dict(classes=CLASSES), cat_ids=[3, 90])
    neither = SimpleNamespace(metainfo=dict(classes=CLASSES))
    assert [[*read_categories(dataset).ids] for dataset in (ours, mmdets, neither)] == [[90, 3], [3, 90], [0, 1]]
