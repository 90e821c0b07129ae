"""The synthetic batch."""

from dataclasses import replace

import pytest
import torch

from mmseg_m2f.benchmark.setting import Setting, make_batch
from tests.benchmark.tiny import SETTING


def test_make_batch__each_map_holds_as_many_classes_as_asked() -> None:
    batch = make_batch(Setting(size=96, batch=3, objects=7, classes=20), seed=0)
    assert batch.images.shape == (3, 3, 96, 96)
    assert batch.images.std() == pytest.approx(1, abs=0.02)
    for label_map in batch.label_maps:
        present = label_map.unique()
        assert len(present) == 7
        assert 0 <= present[0] <= present[-1] < 20


def test_make_batch__same_seed_same_batch_whatever_the_model() -> None:
    one, same = (make_batch(setting, seed=3) for setting in (SETTING, replace(SETTING, queries=99)))
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.label_maps, same.label_maps)
    assert not torch.equal(one.images, make_batch(SETTING, seed=4).images)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(size=100), "size: expected a positive multiple of 32 pixels, got 100"),
        (dict(objects=6, classes=5), "objects: expected 1…5"),
        (dict(objects=257, classes=300), "objects: expected 1…256"),
        (dict(batch=0), "batch: expected at least 1, got 0"),
    ],
)
def test_setting__refuses_what_no_batch_can_be_made_for(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting(**wrong)
