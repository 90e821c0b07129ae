import pytest
import torch

from mmseg_m2f.checkpoints.layouts import convert
from tests.checkpoints.layout_examples import random_weights


def test_convert__swin_patches_are_reordered():
    ours = random_weights("swin")
    theirs = convert(ours, to="detectron2").weights
    # Input channel 1 of the patch in row 1, column 0: third in the first order, second group of 12 in the other.
    norm = ours["backbone.stages.0.downsample.norm.weight"]
    assert theirs["backbone.layers.0.downsample.norm.weight"][12 + 1] == norm[1 * 4 + 2]
    reduction = ours["backbone.stages.0.downsample.reduction.weight"]
    assert torch.equal(theirs["backbone.layers.0.downsample.reduction.weight"][:, 12 + 1], reduction[:, 1 * 4 + 2])


def test_convert__backbones_that_others_do_not_have():
    ours = random_weights("resnet") | {"backbone.stages.0.0.gamma": torch.zeros(1)}
    assert "backbone.stages.0.0.gamma" in convert(ours, to="mmdet").weights
    with pytest.raises(KeyError, match=r"1 weights .*backbone\.stages\.0\.0\.gamma"):
        convert(ours, to="detectron2")
