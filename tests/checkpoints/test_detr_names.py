"""DETR: weights of other libraries' models in ours, and every layout in every other."""

from itertools import permutations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.checkpoints.layouts import check_round_trip, convert, detect_content
from mmseg_m2f.structures import FeatureSpec
from tests.checkpoints.small_detr import build_huggingface, build_mmdet, build_ours
from tests.checkpoints.small_models import random_state
from tests.parity.conftest import CONFIGS


def counters(state) -> set[str]:
    """Batch counters, which frozen batch norms do not have."""
    return {key for key in state if key.endswith("num_batches_tracked")}


def assert_equal(actual, expected) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(value, actual[key]) for key, value in expected.items())


def without(state, left_out) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key not in left_out}


def test_convert__mmdet_has_our_parameters():
    theirs, ours = build_mmdet(), build_ours()
    assert detect_content(theirs.state_dict()) == ("mmdet", "detr")
    converted = convert(theirs.state_dict(), to="ours")
    assert converted.dropped == []
    ours.load_state_dict(converted.weights, strict=True)
    theirs.load_state_dict(convert(random_state(ours), to="mmdet").weights, strict=True)


@pytest.mark.parity
@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("with_timm", [False, True])
def test_convert__huggingface_loads_what_we_write(with_masks: bool, with_timm: bool, tmp_path):
    from safetensors.torch import load_file, save_file

    layout = "transformers-timm" if with_timm else "transformers"
    theirs = build_huggingface(with_masks=with_masks, with_timm=with_timm)
    theirs.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert detect_content(stored) == (layout, "detr-masks" if with_masks else "detr")
    from_file, from_memory = (convert(state, to="ours") for state in (stored, theirs.state_dict()))
    assert from_file.dropped == from_memory.dropped == []
    assert_equal(from_memory.weights, from_file.weights)
    ours = build_ours(with_masks=with_masks, base_channels=64 if with_timm else 8)
    ours.load_state_dict(from_file.weights, strict=True)  # counters may be missing
    back = convert(from_file.weights, to=layout)
    assert_equal(back.weights, stored)
    written = convert(ours.state_dict(), to=layout)
    assert set(written.dropped) == counters(ours.state_dict()) != set()
    assert_equal(written.weights, stored)
    save_file(
        {key: value.clone() for key, value in written.weights.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    loaded, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"]
    assert_equal(loaded.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("with_masks", [False, True])
def test_convert__round_trips_between_all_layouts(with_masks: bool):
    ours = random_state(build_ours(with_masks=with_masks))
    frozen = without(ours, counters(ours))
    layouts = ["ours", "torchhub", "transformers", "transformers-timm"] + ([] if with_masks else ["mmdet"])
    every = {layout: convert(frozen, to=layout).weights for layout in layouts}
    for source, target in permutations(layouts, 2):
        assert detect_content(every[source]) == (source, "detr-masks" if with_masks else "detr")
        converted = convert(every[source], to=target)
        assert converted.dropped == []
        assert_equal(converted.weights, every[target])
        check_round_trip(every[source], converted.weights)
        if source in ("ours", "mmdet") and target not in ("ours", "mmdet"):
            tracked = convert(ours, to=source).weights
            converted = convert(tracked, to=target)
            assert set(converted.dropped) == counters(tracked)
            assert_equal(converted.weights, every[target])
            check_round_trip(tracked, converted.weights)


TORCHHUB_NAMES = """
backbone.0.body.conv1.weight                      backbone.conv1.weight
backbone.0.body.bn1.running_var                   backbone.bn1.running_var
backbone.0.body.layer3.1.bn2.running_mean         backbone.layer3.1.bn2.running_mean
backbone.0.body.layer4.0.downsample.1.bias        backbone.layer4.0.downsample.1.bias
input_proj.weight                                 pixel_decoder.input_proj.weight
transformer.encoder.layers.0.self_attn.in_proj_weight  pixel_decoder.encoder.layers.0.self_attn.attn.in_proj_weight
transformer.encoder.layers.0.self_attn.out_proj.bias   pixel_decoder.encoder.layers.0.self_attn.attn.out_proj.bias
transformer.encoder.layers.0.linear1.weight       pixel_decoder.encoder.layers.0.ffn.layers.0.0.weight
transformer.encoder.layers.0.linear2.bias         pixel_decoder.encoder.layers.0.ffn.layers.1.bias
transformer.encoder.layers.0.norm1.weight         pixel_decoder.encoder.layers.0.norms.0.weight
transformer.encoder.layers.0.norm2.weight         pixel_decoder.encoder.layers.0.norms.1.weight
query_embed.weight                                query_decoder.query_embed.weight
transformer.decoder.layers.1.self_attn.in_proj_bias  \
    query_decoder.transformer_decoder.layers.1.self_attn.attn.in_proj_bias
transformer.decoder.layers.1.self_attn.out_proj.weight  \
    query_decoder.transformer_decoder.layers.1.self_attn.attn.out_proj.weight
transformer.decoder.layers.1.multihead_attn.in_proj_weight  \
    query_decoder.transformer_decoder.layers.1.cross_attn.attn.in_proj_weight
transformer.decoder.layers.1.multihead_attn.out_proj.weight  \
    query_decoder.transformer_decoder.layers.1.cross_attn.attn.out_proj.weight
transformer.decoder.layers.0.linear1.weight       query_decoder.transformer_decoder.layers.0.ffn.layers.0.0.weight
transformer.decoder.layers.0.linear2.weight       query_decoder.transformer_decoder.layers.0.ffn.layers.1.weight
transformer.decoder.layers.0.norm1.weight         query_decoder.transformer_decoder.layers.0.norms.0.weight
transformer.decoder.layers.0.norm2.weight         query_decoder.transformer_decoder.layers.0.norms.1.weight
transformer.decoder.layers.0.norm3.weight         query_decoder.transformer_decoder.layers.0.norms.2.weight
transformer.decoder.norm.bias                     query_decoder.transformer_decoder.post_norm.bias
class_embed.weight                                query_decoder.cls_embed.weight
bbox_embed.layers.0.weight                        query_decoder.box_embed.0.weight
bbox_embed.layers.1.weight                        query_decoder.box_embed.2.weight
bbox_embed.layers.2.bias                          query_decoder.box_embed.4.bias
"""
MASK_NAMES = """
bbox_attention.q_linear.weight                    query_decoder.mask_head.q_linear.weight
bbox_attention.k_linear.weight                    query_decoder.mask_head.k_linear.weight
mask_head.lay1.weight                             query_decoder.mask_head.convs.0.weight
mask_head.lay5.bias                               query_decoder.mask_head.convs.4.bias
mask_head.gn1.weight                              query_decoder.mask_head.norms.0.weight
mask_head.gn5.bias                                query_decoder.mask_head.norms.4.bias
mask_head.adapter1.weight                         query_decoder.mask_head.adapters.0.weight
mask_head.adapter3.weight                         query_decoder.mask_head.adapters.2.weight
mask_head.out_lay.weight                          query_decoder.mask_head.out_conv.weight
"""


@pytest.mark.parametrize("layout", ["mmdet", "torchhub"])
def test_convert__detr_of_the_published_size(layout: str):
    cfg = Config.fromfile(CONFIGS / "_base_/models/detr.py").model.decode_head
    cfg.update(num_classes=80, criterion=None)
    with torch.device("meta"):
        head = MODELS.build(cfg, default_args=dict(feature_spec=FeatureSpec((2048,), (32,))))
    weights = convert({f"decode_head.{name}": value for name, value in head.state_dict().items()}, to=layout).weights
    assert len(weights) == 193
    assert weights["bbox_head.fc_cls.weight" if layout == "mmdet" else "class_embed.weight"].shape == (81, 256)


def our_name(name: str) -> str:
    return name if name.startswith("backbone.") else f"decode_head.{name}"


@pytest.mark.parametrize("with_masks", [False, True])
def test_convert__torchhub_has_the_authors_names(with_masks: bool):
    ours = random_state(build_ours(with_masks=with_masks))
    theirs = convert(ours, to="torchhub").weights
    names = TORCHHUB_NAMES.split()
    for name, expected in zip(names[::2], names[1::2], strict=True):
        assert torch.equal(theirs[f"detr.{name}" if with_masks else name], ours[our_name(expected)])
    names = MASK_NAMES.split() if with_masks else []
    for name, expected in zip(names[::2], names[1::2], strict=True):
        assert torch.equal(theirs[name], ours[our_name(expected)])
    assert len(theirs) == len(ours) - len(counters(ours))


@pytest.mark.parametrize("with_masks", [False, True])
def test_convert__torchhub_models_wrapped_for_detectron2(with_masks: bool):
    ours = random_state(build_ours(with_masks=with_masks))
    theirs = convert(ours, to="torchhub").weights
    wrapped = {}
    for key, value in theirs.items():
        for stage in range(1, 5):
            key = key.replace(f".body.layer{stage}.", f".backbone.res{stage + 1}.")
        key = key.replace(".body.conv1.", ".backbone.stem.conv1.").replace(".body.bn1.", ".backbone.stem.conv1.norm.")
        key = key.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")
        for n in (1, 2):
            key = key.replace(f".bn{n}.", f".conv{n}.norm.")
        wrapped[f"detr.{key}"] = value
    wrapped["criterion.empty_weight"] = torch.ones(6)
    start = "detr.detr." if with_masks else "detr."
    assert f"{start}backbone.0.backbone.stem.conv1.norm.weight" in wrapped
    assert f"{start}backbone.0.backbone.res5.0.shortcut.norm.weight" in wrapped
    assert f"{start}backbone.0.backbone.res3.1.conv2.norm.running_mean" in wrapped
    converted = convert(wrapped, to="ours")
    assert converted.dropped == ["criterion.empty_weight"]
    assert_equal(converted.weights, without(ours, counters(ours)))
    check_round_trip(wrapped, converted.weights)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ("model.input_projection.weight", "pixel_decoder.input_proj.weight"),
        ("model.query_position_embeddings.weight", "query_decoder.query_embed.weight"),
        ("model.encoder.layers.0.fc1.weight", "pixel_decoder.encoder.layers.0.ffn.layers.0.0.weight"),
        ("model.encoder.layers.0.final_layer_norm.bias", "pixel_decoder.encoder.layers.0.norms.1.bias"),
        (
            "model.decoder.layers.1.encoder_attn_layer_norm.weight",
            "query_decoder.transformer_decoder.layers.1.norms.1.weight",
        ),
        ("model.decoder.layernorm.weight", "query_decoder.transformer_decoder.post_norm.weight"),
        ("class_labels_classifier.bias", "query_decoder.cls_embed.bias"),
        ("bbox_predictor.layers.1.weight", "query_decoder.box_embed.2.weight"),
    ],
)
def test_convert__huggingface_pairs(theirs: str, expected: str):
    ours = random_state(build_ours())
    assert torch.equal(convert(ours, to="transformers").weights[theirs], ours[our_name(expected)])


def test_convert__mmdet_before_its_rewrite():
    ours = random_state(build_ours())
    old = {}
    for key, value in convert(ours, to="mmdet").weights.items():
        key = key.replace(".self_attn.", ".attentions.0.").replace(".cross_attn.", ".attentions.1.")
        key = key.replace(".ffn.", ".ffns.0.").replace("neck.convs.0.conv.", "input_proj.")
        if key.startswith(("encoder.", "decoder.")):
            key = f"transformer.{key}"
        old[key if key.startswith(("backbone.", "bbox_head.")) else f"bbox_head.{key}"] = value
    assert "bbox_head.transformer.decoder.layers.1.attentions.1.attn.in_proj_weight" in old
    assert "bbox_head.transformer.encoder.layers.0.ffns.0.layers.0.0.weight" in old
    assert "bbox_head.input_proj.weight" in old
    assert "bbox_head.query_embedding.weight" in old
    converted = convert(old, to="ours").weights
    assert_equal(converted, ours)
    check_round_trip(old, converted)


def test_convert__mmdet_has_no_mask_head():
    with pytest.raises(ValueError, match="those of a detr-masks, for which mmdet has no names. Expected one of ours"):
        convert(random_state(build_ours(with_masks=True)), to="mmdet")


def published_coco() -> dict[str, torch.Tensor]:
    """Weights under the authors' names with 91 classes; row i of the class layer's bias is i."""
    ours = random_state(build_ours())
    ours["decode_head.query_decoder.cls_embed.weight"] = torch.rand(92, 128)
    ours["decode_head.query_decoder.cls_embed.bias"] = torch.arange(92.0)
    return convert(ours, to="torchhub").weights


@pytest.mark.parametrize("to", ["ours", "mmdet"])
def test_convert__coco_classes_that_exist(to: str):
    theirs = published_coco()
    converted = convert(theirs, to=to, class_order="coco-detection")
    unused = "[0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]"
    assert converted.dropped == [f"class_embed.{end}, rows {unused}" for end in ("weight", "bias")]
    bias = next(value for name, value in converted.weights.items() if name.endswith(("cls_embed.bias", "fc_cls.bias")))
    assert len(bias) == 81
    assert bias[[0, 11, 79, 80]].tolist() == [1, 13, 90, 91]  # person, stop sign, toothbrush, no object
    check_round_trip(theirs, converted.weights, class_order="coco-detection")
    bias[3] += 1
    with pytest.raises(ValueError, match=r"changes 1 of \d+ weights: class_embed.bias"):
        check_round_trip(theirs, converted.weights, class_order="coco-detection")
    bias[3] -= 1
    with pytest.raises(ValueError, match=r"changes 2 of \d+ weights: class_embed.weight, class_embed.bias"):
        check_round_trip(theirs, converted.weights)


def test_convert__coco_classes_are_not_made_up():
    ours = convert(published_coco(), to="ours", class_order="coco-detection").weights
    with pytest.raises(ValueError, match="coco-detection takes 81 of the authors' 92 rows"):
        convert(ours, to="transformers", class_order="coco-detection")
    with pytest.raises(ValueError, match="torchhub and transformers order these classes alike"):
        convert(published_coco(), to="transformers", class_order="coco-detection")
    with pytest.raises(ValueError, match="has 81 rows, but coco-detection has 91 classes"):
        convert(convert(ours, to="torchhub").weights, to="ours", class_order="coco-detection")
