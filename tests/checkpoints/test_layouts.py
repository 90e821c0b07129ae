"""Mask2Former: weights of other libraries' models in ours, and every layout in every other."""

import re
from itertools import permutations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.checkpoints.layouts import KEY_MAPS, check_round_trip, convert, detect_content
from tests.checkpoints.small_models import backbone, build_huggingface, build_openmmlab, build_ours, random_state
from tests.parity.conftest import CONFIGS

BACKBONES = ["resnet", "swin"]
LAYOUTS = [layout for layout, maps in KEY_MAPS.items() if "mask2former" in maps]


def random_weights(name: str) -> dict[str, torch.Tensor]:
    return random_state(build_ours(name))


def unused_by_us(state) -> set[str]:
    """Weights of Hugging Face's model that neither its predictions nor we depend on."""
    return {key for key in state if key == "criterion.empty_weight" or ".swin.layernorm." in key}


def assert_same_predictions(ours, expected) -> None:
    with torch.no_grad():
        predictions = ours.decode_head(ours.extract_feat(IMAGES))
    assert len(predictions) == len(expected) == 3
    for prediction, (classes, masks) in zip(predictions, expected, strict=True):
        assert classes.std() > 0.01
        assert masks.std() > 0.01
        torch.testing.assert_close(prediction.class_logits, classes, rtol=0, atol=1e-5)
        torch.testing.assert_close(prediction.mask_logits(), masks, rtol=0, atol=1e-5)


IMAGES = torch.randn(2, 3, 128, 96, generator=torch.Generator().manual_seed(0)).double()


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


@pytest.mark.parity
@pytest.mark.parametrize("name", BACKBONES)
def test_convert__huggingface_predicts_identically(name: str):
    theirs, ours = build_huggingface(name), build_ours(name)
    converted = convert(theirs.state_dict(), to="ours")
    assert set(converted.dropped) == unused_by_us(theirs.state_dict())
    ours.load_state_dict(converted.weights, strict=True)
    theirs, ours = theirs.double(), ours.double()
    with torch.no_grad():
        outputs = theirs(pixel_values=IMAGES, output_auxiliary_logits=True)
    layers = [(x["class_queries_logits"], x["masks_queries_logits"]) for x in outputs.auxiliary_logits]
    assert_same_predictions(ours, [*layers, (outputs.class_queries_logits, outputs.masks_queries_logits)])


@pytest.mark.parity
@pytest.mark.parametrize("name", BACKBONES)
def test_convert__huggingface_loads_what_we_write(name: str, tmp_path):
    from safetensors.torch import load_file, save_file

    theirs = build_huggingface(name)
    theirs.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    written = convert(convert(stored, to="ours").weights, to="transformers").weights
    assert {key for key in stored if key not in written} == unused_by_us(stored)
    assert all(torch.equal(value, stored[key]) for key, value in written.items())
    save_file({key: value.clone() for key, value in written.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"]
    state = loaded.state_dict()
    unused = unused_by_us(state)
    assert set(report["missing_keys"]) <= unused
    assert all(torch.equal(value, state[key]) for key, value in theirs.state_dict().items() if key not in unused)


@pytest.mark.parametrize("name", BACKBONES)
def test_convert__round_trips_between_all_layouts(name: str):
    ours = random_weights(name)
    every = {layout: convert(ours, to=layout).weights for layout in LAYOUTS}
    for source, target in permutations(LAYOUTS, 2):
        assert detect_content(every[source]) == (source, "mask2former")
        converted = convert(every[source], to=target).weights
        assert converted.keys() == every[target].keys()
        assert all(torch.equal(value, every[target][key]) for key, value in converted.items())


@pytest.mark.parametrize("encoder", [False, True])
def test_convert__other_pixel_decoders_of_the_authors(encoder: bool):
    cfg = Config.fromfile(CONFIGS / f"_base_/models/mask2former_{'transformer_fpn' if encoder else 'fpn'}.py").model
    cfg.backbone = backbone("mmseg", "resnet")
    cfg.decode_head.update(num_classes=5, criterion=None)
    cfg.decode_head.pixel_decoder.update(channels=32)
    cfg.decode_head.query_decoder.update(channels=32, num_layers=1, num_heads=2, feedforward_channels=48)
    ours = random_state(MODELS.build(cfg))
    theirs = convert(ours, to="detectron2").weights
    assert detect_content(theirs) == ("detectron2", "mask2former")
    assert len(theirs) == len(ours)
    check_round_trip(ours, theirs)
    with pytest.raises(KeyError, match="Expected a Mask2Former with the deformable pixel decoder"):
        convert(ours, to="transformers")


def test_check_round_trip__names_what_changed():
    ours = random_weights("resnet")
    theirs = convert(ours, to="detectron2").weights
    theirs["sem_seg_head.predictor.class_embed.bias"] = theirs["sem_seg_head.predictor.class_embed.bias"] + 1
    with pytest.raises(ValueError, match=r"changes 1 of \d+ weights: decode_head\.query_decoder\.cls_embed\.bias"):
        check_round_trip(ours, theirs)


def test_convert__swin_patches_are_reordered():
    ours = random_weights("swin")
    theirs = convert(ours, to="detectron2").weights
    # Input channel 1 of the patch in row 1, column 0: third in the first order, second group of 12 in the other.
    norm = ours["backbone.stages.0.downsample.norm.weight"]
    assert theirs["backbone.layers.0.downsample.norm.weight"][12 + 1] == norm[1 * 4 + 2]
    reduction = ours["backbone.stages.0.downsample.reduction.weight"]
    assert torch.equal(theirs["backbone.layers.0.downsample.reduction.weight"][:, 12 + 1], reduction[:, 1 * 4 + 2])


DETECTRON2_NAMES = {
    "resnet": """
backbone.stem.conv1.weight
backbone.stem.conv1.norm.running_var
backbone.res2.0.conv1.weight
backbone.res2.0.conv2.norm.running_mean
backbone.res3.0.shortcut.weight
backbone.res3.0.shortcut.norm.bias
backbone.res5.1.conv2.weight
sem_seg_head.pixel_decoder.input_proj.0.0.weight
sem_seg_head.pixel_decoder.input_proj.2.1.bias
sem_seg_head.pixel_decoder.transformer.level_embed
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.sampling_offsets.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.attention_weights.bias
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.value_proj.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.output_proj.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.linear1.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.linear2.bias
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.norm1.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.norm2.bias
sem_seg_head.pixel_decoder.adapter_1.weight
sem_seg_head.pixel_decoder.adapter_1.norm.weight
sem_seg_head.pixel_decoder.layer_1.weight
sem_seg_head.pixel_decoder.layer_1.norm.bias
sem_seg_head.pixel_decoder.mask_features.weight
sem_seg_head.predictor.query_feat.weight
sem_seg_head.predictor.query_embed.weight
sem_seg_head.predictor.level_embed.weight
sem_seg_head.predictor.transformer_cross_attention_layers.0.multihead_attn.in_proj_weight
sem_seg_head.predictor.transformer_cross_attention_layers.1.multihead_attn.out_proj.bias
sem_seg_head.predictor.transformer_cross_attention_layers.1.norm.weight
sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.in_proj_bias
sem_seg_head.predictor.transformer_self_attention_layers.1.self_attn.out_proj.weight
sem_seg_head.predictor.transformer_self_attention_layers.1.norm.bias
sem_seg_head.predictor.transformer_ffn_layers.0.linear1.weight
sem_seg_head.predictor.transformer_ffn_layers.1.linear2.bias
sem_seg_head.predictor.transformer_ffn_layers.1.norm.weight
sem_seg_head.predictor.decoder_norm.weight
sem_seg_head.predictor.class_embed.weight
sem_seg_head.predictor.mask_embed.layers.0.weight
sem_seg_head.predictor.mask_embed.layers.1.bias
sem_seg_head.predictor.mask_embed.layers.2.weight
""",
    "swin": """
backbone.patch_embed.proj.weight
backbone.patch_embed.norm.bias
backbone.layers.0.blocks.1.norm1.weight
backbone.layers.0.blocks.1.attn.relative_position_bias_table
backbone.layers.0.blocks.1.attn.relative_position_index
backbone.layers.3.blocks.0.attn.qkv.bias
backbone.layers.3.blocks.0.attn.proj.weight
backbone.layers.3.blocks.0.norm2.bias
backbone.layers.3.blocks.0.mlp.fc1.weight
backbone.layers.3.blocks.0.mlp.fc2.bias
backbone.layers.2.downsample.reduction.weight
backbone.layers.2.downsample.norm.weight
backbone.norm3.bias
sem_seg_head.predictor.class_embed.bias
""",
}


@pytest.mark.parametrize("name", BACKBONES)
def test_convert__detectron2_has_the_authors_names(name: str):
    names = DETECTRON2_NAMES[name].split()
    assert set(names) <= convert(random_weights(name), to="detectron2").weights.keys()


@pytest.mark.parametrize(
    ("part", "theirs"),
    [
        # Each of these could be taken for its neighbour without any name missing.
        ("query_feat", "query_feat"),
        ("query_embed", "query_embed"),
        ("mask_embed.2", "mask_embed.layers.1"),
        ("mask_embed.4", "mask_embed.layers.2"),
        ("transformer_decoder.layers.1.norms.0", "transformer_cross_attention_layers.1.norm"),
        ("transformer_decoder.layers.1.norms.1", "transformer_self_attention_layers.1.norm"),
        ("transformer_decoder.layers.1.norms.2", "transformer_ffn_layers.1.norm"),
        ("transformer_decoder.post_norm", "decoder_norm"),
        (
            "transformer_decoder.layers.0.cross_attn.attn.out_proj",
            "transformer_cross_attention_layers.0.multihead_attn.out_proj",
        ),
        (
            "transformer_decoder.layers.0.self_attn.attn.out_proj",
            "transformer_self_attention_layers.0.self_attn.out_proj",
        ),
        ("pixel_decoder.encoder.layers.0.norms.0", "pixel_decoder.transformer.encoder.layers.0.norm1"),
        ("pixel_decoder.encoder.layers.0.norms.1", "pixel_decoder.transformer.encoder.layers.0.norm2"),
        ("pixel_decoder.input_convs.2.conv", "pixel_decoder.input_proj.2.0"),
        ("pixel_decoder.lateral_convs.0.gn", "pixel_decoder.adapter_1.norm"),
        ("pixel_decoder.output_convs.0.gn", "pixel_decoder.layer_1.norm"),
    ],
)
def test_convert__detectron2_pairs(part: str, theirs: str):
    ours = random_weights("resnet")
    converted = convert(ours, to="detectron2").weights
    part = part if part.startswith("pixel_decoder") else f"query_decoder.{part}"
    theirs = theirs if theirs.startswith("pixel_decoder") else f"predictor.{theirs}"
    assert torch.equal(converted[f"sem_seg_head.{theirs}.weight"], ours[f"decode_head.{part}.weight"])


def test_convert__first_release_of_the_authors():
    ours = random_weights("resnet")
    theirs = convert(ours, to="detectron2").weights
    old = {key.replace(".pixel_decoder.", ".").replace("query_feat", "static_query"): v for key, v in theirs.items()}
    assert "sem_seg_head.adapter_1.weight" in old
    old["criterion.empty_weight"] = torch.ones(6)
    converted = convert(old, to="ours")
    assert converted.dropped == ["criterion.empty_weight"]
    assert all(torch.equal(value, ours[key]) for key, value in converted.weights.items())
    assert converted.weights.keys() == ours.keys()
    check_round_trip(old, convert(old, to="mmdet").weights)


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


def test_convert__older_files_of_huggingface():
    ours = random_weights("swin")
    theirs = convert(ours, to="transformers").weights
    encoder = "model.pixel_level_module.encoder."
    old = {}
    for key, value in theirs.items():
        key = re.sub(r"norms\.stage(\d)", lambda stage: f"norms.{int(stage[1]) - 1}", key)
        old[key.replace(encoder, f"{encoder}model.") if "hidden_states_norms" not in key else key] = value
    old[f"{encoder}model.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(1)
    assert f"{encoder}hidden_states_norms.0.weight" in old
    converted = convert(old, to="ours")
    assert len(converted.dropped) == 1
    assert converted.weights.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in converted.weights.items())


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


def test_convert__backbones_that_others_do_not_have():
    ours = random_weights("resnet") | {"backbone.stages.0.0.gamma": torch.zeros(1)}
    assert "backbone.stages.0.0.gamma" in convert(ours, to="mmdet").weights
    with pytest.raises(KeyError, match=r"1 weights .*backbone\.stages\.0\.0\.gamma"):
        convert(ours, to="detectron2")


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
