"""Mask2Former: weights of other libraries' models in ours, and every layout in every other."""

from itertools import permutations

import pytest
import torch

from mmseg_m2f.checkpoints.layouts import check_round_trip, convert, detect_content
from tests.checkpoints.layout_examples import BACKBONES, IMAGES, LAYOUTS, assert_same_predictions, random_weights
from tests.checkpoints.small_models import build_openmmlab, build_ours


@pytest.mark.parity
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("library", ["mmdet", "mmseg"])
def test_convert__openmmlab_predicts_identically(library: str, name: str):
    theirs, ours = build_openmmlab(library, name), build_ours(name)
    assert detect_content(theirs.state_dict()) == (library, "mask2former")
    converted = convert(theirs.state_dict(), to="ours")
    assert converted.dropped == []
    ours.load_state_dict(converted.weights, strict=True)
    theirs, ours = theirs.double(), ours.double()
    head = theirs.panoptic_head if library == "mmdet" else theirs.decode_head
    with torch.no_grad():
        samples = [_Sample(), _Sample()]
        classes, masks = head(theirs.extract_feat(IMAGES), samples)
    assert_same_predictions(ours, list(zip(classes, masks, strict=True)))


class _Sample:
    metainfo = dict(img_shape=(128, 96), batch_input_shape=(128, 96))


@pytest.mark.parametrize("name", BACKBONES)
def test_convert__round_trips_between_all_layouts(name: str):
    ours = random_weights(name)
    every = {layout: convert(ours, to=layout).weights for layout in LAYOUTS}
    for source, target in permutations(LAYOUTS, 2):
        assert detect_content(every[source]) == (source, "mask2former")
        converted = convert(every[source], to=target).weights
        assert converted.keys() == every[target].keys()
        assert all(torch.equal(value, every[target][key]) for key, value in converted.items())


def test_check_round_trip__names_what_changed():
    ours = random_weights("resnet")
    theirs = convert(ours, to="detectron2").weights
    theirs["sem_seg_head.predictor.class_embed.bias"] = theirs["sem_seg_head.predictor.class_embed.bias"] + 1
    with pytest.raises(ValueError, match=r"changes 1 of \d+ weights: decode_head\.query_decoder\.cls_embed\.bias"):
        check_round_trip(ours, theirs)


def test_convert__mmdet_before_its_rewrite():
    ours = random_weights("resnet")
    old = {}
    for key, value in convert(ours, to="mmdet").weights.items():
        if ".transformer_decoder.layers." in key:
            key = key.replace(".cross_attn.", ".attentions.0.").replace(".self_attn.", ".attentions.1.")
        elif ".pixel_decoder.encoder." in key:
            key = key.replace(".self_attn.", ".attentions.0.")
        old[key.replace(".ffn.", ".ffns.0.")] = value
    assert "panoptic_head.transformer_decoder.layers.1.attentions.1.attn.in_proj_weight" in old
    assert "panoptic_head.pixel_decoder.encoder.layers.0.attentions.0.value_proj.weight" in old
    converted = convert(old, to="ours").weights
    assert converted.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in converted.items())


def test_convert__lists_all_names_without_counterpart():
    theirs = convert(random_weights("resnet"), to="detectron2").weights
    theirs |= {"backbone.stem.conv2.weight": torch.zeros(1), "sem_seg_head.predictor.extra": torch.zeros(1)}
    with pytest.raises(KeyError, match=r"2 weights have no .*stem\.conv2\.weight, sem_seg_head\.predictor\.extra\."):
        convert(theirs, to="ours")


def test_convert__a_missing_part_of_a_packed_weight_is_named():
    theirs = convert(random_weights("resnet"), to="transformers").weights
    del theirs["model.transformer_module.decoder.layers.1.self_attn.k_proj.bias"]
    with pytest.raises(KeyError, match=r"1 weights .*transformer_decoder\.layers\.1\.self_attn\.attn\.in_proj_bias"):
        convert(theirs, to="ours")


def test_convert__a_weight_under_two_names():
    theirs = convert(random_weights("resnet"), to="detectron2").weights
    theirs["sem_seg_head.mask_features.bias"] = torch.zeros(32)
    with pytest.raises(KeyError, match=r"sem_seg_head\.mask_features\.bias: .* sem_seg_head\.pixel_decoder\.mask_f"):
        convert(theirs, to="ours")


def test_detect_content__none_and_two():
    with pytest.raises(ValueError, match=r"no layout that is known: 1 names, such as fc\.weight\. Expected exactly"):
        detect_content({"fc.weight": torch.zeros(1)})
    both = {"panoptic_head.query_feat.weight": torch.zeros(1), "sem_seg_head.x": torch.zeros(1)}
    with pytest.raises(ValueError, match="mmdet and detectron2"):
        detect_content(both)


def test_convert__class_order():
    ours = random_weights("resnet")
    ours["decode_head.query_decoder.cls_embed.weight"] = torch.rand(151, 32)
    ours["decode_head.query_decoder.cls_embed.bias"] = torch.arange(151.0)
    theirs = convert(ours, to="detectron2", class_order="ade20k-panoptic").weights
    bias = theirs["sem_seg_head.predictor.class_embed.bias"]
    assert bias[0] == 100  # the wall is the first stuff class
    assert bias[7] == 0  # the bed is the first thing
    assert bias[150] == 150
    check_round_trip(ours, theirs, class_order="ade20k-panoptic")
    with pytest.raises(ValueError, match="ours and mmdet order these classes alike"):
        convert(ours, to="mmdet", class_order="ade20k-panoptic")
    with pytest.raises(ValueError, match="has 6 rows, but ade20k-panoptic has 150 classes"):
        convert(random_weights("resnet"), to="detectron2", class_order="ade20k-panoptic")
