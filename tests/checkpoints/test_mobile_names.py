"""Names of EfficientNet-Lite and MobileNetV2: those of the published files, in both directions."""

import pytest
import torch

from mmseg_m2f.checkpoints import mobile_names
from tests.weight_packages import PUBLISHED, digest, published_weights, random_mmseg_mobilenet, timm_weights


@pytest.mark.parametrize("ingredient", PUBLISHED)
def test_mobile_names__are_those_of_the_published_files_both_ways(ingredient: str) -> None:
    _, model, key_map, published = PUBLISHED[ingredient]
    ours = timm_weights(model)
    theirs = key_map.from_ours(ours)
    assert digest(theirs) == published
    back = key_map.to_ours(theirs)
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_mobile_names__of_mmseg() -> None:
    ours = random_mmseg_mobilenet()
    theirs = mobile_names.MOBILENET_V2.from_ours(ours)
    published = published_weights("mobilenet_v2")
    without_last = {name: value for name, value in published.items() if not name.startswith("features.18.")}
    assert digest(theirs) == digest(without_last)
    kept, dropped = mobile_names.MOBILENET_V2.modern(published)
    assert len(dropped) == 6
    assert list(mobile_names.MOBILENET_V2.to_ours(kept)) == list(ours)


def test_mobile_names__refuse_those_of_a_deeper_model() -> None:
    with pytest.raises(KeyError, match=r"weights have no counterpart: _blocks\.16\..*Expected an EfficientNet-Lite0"):
        mobile_names.EFFICIENTNET_LITE0.to_ours(published_weights("efficientnet_lite2"))
