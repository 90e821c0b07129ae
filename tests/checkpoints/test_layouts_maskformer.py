"""MaskFormer: weights of other libraries' models in ours, and every layout in every other."""

from itertools import permutations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.checkpoints.layouts import KEY_MAPS, check_round_trip, convert, detect_content
from mmseg_m2f.structures import FeatureSpec
from tests.checkpoints.small_maskformer import build_huggingface, build_mmdet, build_mmseg, build_ours
from tests.checkpoints.small_models import random_state
from tests.parity.conftest import CONFIGS

BACKBONES = ["resnet", "swin"]
IMAGES = torch.randn(2, 3, 128, 96, generator=torch.Generator().manual_seed(0)).double()


def unused_by_us(state) -> set[str]:
    """Weights of Hugging Face's model that neither its predictions nor we depend on."""
    return {key for key in state if key == "criterion.empty_weight" or ".encoder.model.layernorm." in key}


class _Sample:
    metainfo = dict(img_shape=(128, 96), batch_input_shape=(128, 96))


@pytest.mark.parity
@pytest.mark.parametrize("library", ["mmdet", "mmseg"])
def test_convert__openmmlab_predicts_identically(library: str):
    theirs = build_mmdet("resnet") if library == "mmdet" else build_mmseg("swin")
    ours = build_ours("resnet", with_encoder=True) if library == "mmdet" else build_ours("swin")
    assert detect_content(theirs.state_dict()) == (library, "maskformer")
    converted = convert(theirs.state_dict(), to="ours")
    assert converted.dropped == []
    ours.load_state_dict(converted.weights, strict=True)
    theirs, ours = theirs.double(), ours.double()
    head = theirs.panoptic_head if library == "mmdet" else theirs.decode_head
    with torch.no_grad():
        classes, masks = head(theirs.extract_feat(IMAGES), [_Sample(), _Sample()])
        predictions = ours.decode_head(ours.extract_feat(IMAGES))
    assert len(predictions) == len(classes) == 2
    for prediction, class_logits, mask_logits in zip(predictions, classes, masks, strict=True):
        assert min(class_logits.std(), mask_logits.std()) > 0.01
        torch.testing.assert_close(prediction.class_logits, class_logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(prediction.mask_logits(), mask_logits, rtol=0, atol=1e-5)


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


@pytest.mark.parametrize("with_encoder", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_convert__round_trips_between_all_layouts(name: str, with_encoder: bool):
    ours = random_state(build_ours(name, with_encoder=with_encoder))
    layouts = ["ours", "mmdet", "mmseg", "detectron2"] + ([] if with_encoder else ["transformers"])
    every = {layout: convert(ours, to=layout).weights for layout in layouts}
    for source, target in permutations(layouts, 2):
        assert detect_content(every[source]) == (source, "maskformer")
        converted = convert(every[source], to=target).weights
        assert converted.keys() == every[target].keys()
        assert all(torch.equal(value, every[target][key]) for key, value in converted.items())
        check_round_trip(every[source], converted)


DETECTRON2_NAMES = """
adapter_1.weight                                     pixel_decoder.lateral_convs.0.conv.weight
adapter_3.norm.bias                                  pixel_decoder.lateral_convs.2.gn.bias
layer_1.weight                                       pixel_decoder.output_convs.0.conv.weight
layer_3.norm.weight                                  pixel_decoder.output_convs.2.gn.weight
mask_features.bias                                   pixel_decoder.mask_feature.bias
predictor.query_embed.weight                         query_decoder.query_embed.weight
predictor.class_embed.weight                         query_decoder.cls_embed.weight
predictor.mask_embed.layers.1.weight                 query_decoder.mask_embed.2.weight
predictor.transformer.decoder.norm.weight            query_decoder.transformer_decoder.post_norm.weight
predictor.transformer.decoder.layers.1.norm1.weight  query_decoder.transformer_decoder.layers.1.norms.0.weight
predictor.transformer.decoder.layers.1.norm2.weight  query_decoder.transformer_decoder.layers.1.norms.1.weight
predictor.transformer.decoder.layers.1.norm3.weight  query_decoder.transformer_decoder.layers.1.norms.2.weight
predictor.transformer.decoder.layers.0.linear1.bias  query_decoder.transformer_decoder.layers.0.ffn.layers.0.0.bias
predictor.transformer.decoder.layers.0.linear2.bias  query_decoder.transformer_decoder.layers.0.ffn.layers.1.bias
predictor.transformer.decoder.layers.0.self_attn.in_proj_weight \
    query_decoder.transformer_decoder.layers.0.self_attn.attn.in_proj_weight
predictor.transformer.decoder.layers.0.self_attn.out_proj.bias \
    query_decoder.transformer_decoder.layers.0.self_attn.attn.out_proj.bias
predictor.transformer.decoder.layers.1.multihead_attn.in_proj_bias \
    query_decoder.transformer_decoder.layers.1.cross_attn.attn.in_proj_bias
predictor.transformer.decoder.layers.1.multihead_attn.out_proj.weight \
    query_decoder.transformer_decoder.layers.1.cross_attn.attn.out_proj.weight
"""
NAMES_OF_FPN = """
layer_4.weight                                       pixel_decoder.last_feat_conv.conv.weight
layer_4.norm.weight                                  pixel_decoder.last_feat_conv.gn.weight
predictor.input_proj.weight                          query_decoder.decoder_input_proj.weight
"""
NAMES_OF_ENCODER = """
layer_4.weight                                       pixel_decoder.encoder_out_proj.conv.weight
layer_4.norm.weight                                  pixel_decoder.encoder_out_proj.gn.weight
input_proj.weight                                    pixel_decoder.encoder_in_proj.weight
transformer.encoder.layers.1.norm1.weight            pixel_decoder.encoder.layers.1.norms.0.weight
transformer.encoder.layers.1.norm2.weight            pixel_decoder.encoder.layers.1.norms.1.weight
transformer.encoder.layers.0.linear1.weight          pixel_decoder.encoder.layers.0.ffn.layers.0.0.weight
transformer.encoder.layers.0.linear2.bias            pixel_decoder.encoder.layers.0.ffn.layers.1.bias
transformer.encoder.layers.0.self_attn.in_proj_bias  pixel_decoder.encoder.layers.0.self_attn.attn.in_proj_bias
transformer.encoder.layers.0.self_attn.out_proj.weight \
    pixel_decoder.encoder.layers.0.self_attn.attn.out_proj.weight
"""


@pytest.mark.parametrize("first_files", [False, True])
@pytest.mark.parametrize("with_encoder", [False, True])
def test_convert__detectron2_has_the_authors_names(with_encoder: bool, first_files: bool):
    ours = random_state(build_ours("resnet", with_encoder=with_encoder))
    theirs = convert(ours, to="detectron2").weights
    names = (DETECTRON2_NAMES + (NAMES_OF_ENCODER if with_encoder else NAMES_OF_FPN)).split()
    prefix = "sem_seg_head."
    for their_name, our_name in zip(names[::2], names[1::2], strict=True):
        path = their_name if their_name.startswith("predictor.") else f"pixel_decoder.{their_name}"
        assert torch.equal(theirs[prefix + path], ours[f"decode_head.{our_name}"])
    if first_files:  # as the published ones
        theirs = {name.replace(".pixel_decoder.", "."): value for name, value in theirs.items()}
        assert "sem_seg_head.layer_4.norm.weight" in theirs
    theirs["criterion.empty_weight"] = torch.ones(6)
    converted = convert(theirs, to="ours")
    assert converted.dropped == ["criterion.empty_weight"]
    assert converted.weights.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in converted.weights.items())


@pytest.mark.parametrize(
    ("pixel_decoder", "num_classes", "tensors", "shape"),
    [
        ("FPNPixelDecoder", 150, 144, (256, 2048, 3, 3)),
        ("TransformerFPNPixelDecoder", 133, 216, (256, 256, 3, 3)),
    ],
)
def test_convert__detectron2_of_the_published_size(
    pixel_decoder: str, num_classes: int, tensors: int, shape: tuple[int, ...]
):
    cfg = Config.fromfile(CONFIGS / "_base_/models/maskformer.py").model.decode_head
    cfg.update(num_classes=num_classes, criterion=None)
    cfg.pixel_decoder.type = f"mmseg_m2f.{pixel_decoder}"
    with torch.device("meta"):
        head = MODELS.build(cfg, default_args=dict(feature_spec=FeatureSpec((256, 512, 1024, 2048), (4, 8, 16, 32))))
    theirs = convert({f"decode_head.{name}": value for name, value in head.state_dict().items()}, to="detectron2")
    assert len(theirs.weights) == tensors
    assert theirs.weights["sem_seg_head.pixel_decoder.layer_4.weight"].shape == shape


def test_convert__mmdet_before_its_rewrite():
    ours = random_state(build_ours("resnet", with_encoder=True))
    old = {}
    for key, value in convert(ours, to="mmdet").weights.items():
        key = key.replace(".self_attn.", ".attentions.0.").replace(".cross_attn.", ".attentions.1.")
        old[key.replace(".ffn.", ".ffns.0.")] = value
    assert "panoptic_head.transformer_decoder.layers.1.attentions.1.attn.in_proj_weight" in old
    assert "panoptic_head.pixel_decoder.encoder.layers.0.attentions.0.attn.in_proj_weight" in old
    converted = convert(old, to="ours").weights
    assert converted.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in converted.items())


def test_convert__huggingface_has_no_encoder_in_its_pixel_decoder():
    ours = random_state(build_ours("resnet", with_encoder=True))
    with pytest.raises(KeyError, match=r"29 weights have no counterpart: .*encoder_in_proj.weight.*FPN pixel decoder"):
        convert(ours, to="transformers")


def test_convert__huggingface_files_without_position_index():
    ours = random_state(build_ours("swin"))
    theirs = convert(ours, to="transformers").weights
    indices = [name for name in theirs if name.endswith("relative_position_index")]
    assert len(indices) == 5
    for name in indices:
        del theirs[name]
    converted = convert(theirs, to="ours").weights
    assert converted.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in converted.items())


@pytest.mark.parametrize("layout", ["torchhub", "transformers-timm"])
def test_convert__layouts_of_other_models_are_refused(layout: str):
    assert "maskformer" not in KEY_MAPS[layout]
    with pytest.raises(ValueError, match=f"those of a maskformer, for which {layout} has no names. Expected .*mmseg"):
        convert(random_state(build_ours("resnet")), to=layout)
