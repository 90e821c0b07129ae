"""The authors' files of Mask DINO: names, levels in either order, copies of shared layers."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.checkpoints.layouts import check_round_trip, convert, detect_content
from mmseg_m2f.checkpoints.whole_models import read_whole_model
from mmseg_m2f.layers.deformable_attention import DeformableAttention
from tests.checkpoints.small_models import backbone, random_state
from tests.parity.conftest import CONFIGS

HEADS, LEVELS, POINTS = 2, 4, 4


def build(task: str = "instance") -> torch.nn.Module:
    cfg = Config.fromfile(CONFIGS / f"_base_/models/mask_dino_tiny_{task}.py").model
    cfg.update(backbone=backbone("mmseg", "resnet"))
    if task != "semantic":
        cfg.thing_classes = [0, 1, 2]
    cfg.decode_head.num_classes = 3
    cfg.decode_head.criterion = None
    cfg.decode_head.pixel_decoder.update(channels=32, num_layers=1, num_heads=HEADS, feedforward_channels=64)
    cfg.decode_head.query_decoder.update(num_layers=2, num_queries=6, num_heads=HEADS, feedforward_channels=64)
    return MODELS.build(cfg).eval()


@pytest.fixture(scope="module")
def ours() -> dict[str, torch.Tensor]:
    return random_state(build())


@pytest.fixture(scope="module")
def theirs(ours) -> dict[str, torch.Tensor]:
    return convert(ours, to="detectron2").weights


# By hand, from the table of the release: self-attention's norm is the second, cross-attention's the first.
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("query_decoder.transformer_decoder.layers.1.norms.0", "predictor.decoder.layers.1.norm2"),
        ("query_decoder.transformer_decoder.layers.1.norms.1", "predictor.decoder.layers.1.norm1"),
        ("query_decoder.transformer_decoder.layers.0.norms.2", "predictor.decoder.layers.0.norm3"),
        ("query_decoder.transformer_decoder.layers.0.ffn.layers.0.0", "predictor.decoder.layers.0.linear1"),
        (
            "query_decoder.transformer_decoder.layers.0.cross_attn.sampling_offsets",
            "predictor.decoder.layers.0.cross_attn.sampling_offsets",
        ),
        ("query_decoder.transformer_decoder.position.2", "predictor.decoder.ref_point_head.layers.1"),
        ("query_decoder.transformer_decoder.post_norm", "predictor.decoder_norm"),
        ("query_decoder.selection.proj", "predictor.enc_output"),
        ("query_decoder.selection.norm", "predictor.enc_output_norm"),
        ("query_decoder.box_embed.2", "predictor._bbox_embed.layers.1"),
        ("query_decoder.mask_embed.4", "predictor.mask_embed.layers.2"),
        ("query_decoder.cls_embed", "predictor.class_embed"),
        ("query_decoder.denoising.label_embed", "predictor.label_enc"),
        ("pixel_decoder.input_convs.0.conv", "pixel_decoder.input_proj.2.0"),  # coarsest here, last there
        ("pixel_decoder.input_convs.2.gn", "pixel_decoder.input_proj.0.1"),
        ("pixel_decoder.extra_convs.0.conv", "pixel_decoder.input_proj.3.0"),
        ("pixel_decoder.lateral_convs.0.conv", "pixel_decoder.adapter_1"),
        ("pixel_decoder.output_convs.0.gn", "pixel_decoder.layer_1.norm"),
        ("pixel_decoder.mask_feature", "pixel_decoder.mask_features"),
    ],
)
def test_convert__instance_models_pairs(ours, theirs, part, name):
    assert torch.equal(theirs[f"sem_seg_head.{name}.weight"], ours[f"decode_head.{part}.weight"])


def test_convert__instance_models_have_the_encoder_fine_first(ours, theirs):
    assert detect_content(theirs) == ("detectron2", "mask-dino")
    level = theirs["sem_seg_head.pixel_decoder.transformer.level_embed"]
    assert torch.equal(level.flip(0), ours["decode_head.pixel_decoder.level_encoding.weight"])
    name = "encoder.layers.0.self_attn.{}.bias"
    for part, places in (("sampling_offsets", 2 * POINTS), ("attention_weights", POINTS)):
        theirs_ = theirs["sem_seg_head.pixel_decoder.transformer." + name.format(part)].view(HEADS, LEVELS, places)
        ours_ = ours["decode_head.pixel_decoder." + name.format(part)].view(HEADS, LEVELS, places)
        assert torch.equal(theirs_[:, 0], ours_[:, 3])
        assert torch.equal(theirs_[:, 2], ours_[:, 1])


def test_convert__round_trip_and_copies(ours, theirs, tmp_path):
    check_round_trip(ours, theirs)
    stored = dict(theirs, **{"criterion.empty_weight": torch.ones(4)})
    for name, value in theirs.items():
        if "._bbox_embed." in name:
            for prefix in ("bbox_embed.0.", "bbox_embed.1.", "decoder.bbox_embed.1."):
                stored[name.replace("_bbox_embed.", prefix)] = value.clone()
        if ".decoder_norm." in name:
            stored[name.replace("decoder_norm", "decoder.norm")] = value.clone()
    converted = convert(stored, to="ours")
    assert converted.weights.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in converted.weights.items())
    assert len(converted.dropped) == 1 + 3 * 6 + 2
    torch.save(dict(model=stored), tmp_path / "maskdino.pth")
    read = read_whole_model(str(tmp_path / "maskdino.pth"))
    assert set(read.unknown) == set(converted.dropped)
    assert read.weights.keys() == ours.keys()
    stored["sem_seg_head.predictor.bbox_embed.1.layers.2.bias"] += 1
    with pytest.raises(ValueError, match=r"bbox_embed.1.layers.2.bias differs from \S+_bbox_embed.layers.2.bias"):
        convert(stored, to="ours")


@pytest.mark.parametrize("broken", ["input_proj", "sampling_offsets"])
def test_convert__a_file_whose_levels_cannot_be_told_apart(theirs, broken):
    if broken == "input_proj":
        state = {name: value for name, value in theirs.items() if ".input_proj." not in name}
    else:
        state = {name: value[:-1] if broken in name else value for name, value in theirs.items()}
    with pytest.raises(ValueError, match=r"self_attn.\S+: expected a multiple of \d levels × 8 rows, got"):
        convert(state, to="ours")


def test_convert__semantic_models_have_the_decoder_fine_first():
    ours = random_state(build("semantic"))
    theirs = convert(ours, to="detectron2").weights
    assert detect_content(theirs) == ("detectron2", "mask-dino-coarse-first")
    check_round_trip(ours, theirs)
    assert len(theirs["sem_seg_head.predictor.class_embed.weight"]) == 3 + 1  # "no object"
    assert len(theirs["sem_seg_head.predictor.label_enc.weight"]) == 3
    pairs = {
        "pixel_decoder.level_encoding.weight": "pixel_decoder.transformer.level_embed",
        "pixel_decoder.input_convs.0.conv.weight": "pixel_decoder.input_proj.0.0.weight",
        "query_decoder.query_boxes.weight": "predictor.query_embed.weight",
        "query_decoder.query_feat.weight": "predictor.query_feat.weight",
    }
    for our, their in pairs.items():
        assert torch.equal(ours[f"decode_head.{our}"], theirs[f"sem_seg_head.{their}"])
    ours_ = ours["decode_head.query_decoder.transformer_decoder.layers.1.cross_attn.attention_weights.bias"]
    theirs_ = theirs["sem_seg_head.predictor.decoder.layers.1.cross_attn.attention_weights.bias"]
    assert torch.equal(ours_.view(HEADS, 3, POINTS).flip(1), theirs_.view(HEADS, 3, POINTS))


def test_convert__panoptic_models_have_the_names_of_instance_models(ours):
    panoptic = random_state(build("panoptic"))
    assert {name: value.shape for name, value in panoptic.items()} == {name: ours[name].shape for name in ours}
    theirs = convert(panoptic, to="detectron2").weights
    assert detect_content(theirs) == ("detectron2", "mask-dino")
    check_round_trip(panoptic, theirs)


def test_convert__chosen_queries_with_coarse_levels_first(ours):
    theirs = convert(ours, to="detectron2", model="mask-dino-coarse-first").weights
    assert detect_content(theirs) == ("detectron2", "mask-dino-coarse-first")
    check_round_trip(theirs, convert(theirs, to="ours").weights)


def test_convert__attention_over_levels_in_reverse_order_is_the_same(ours, theirs):
    sizes = [(2, 3), (4, 6), (8, 12), (16, 24)]
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, height * width, 32, generator=generator) for height, width in sizes]
    queries = torch.randn(1, 5, 32, generator=generator)
    boxes = torch.rand(1, 5, 4, generator=generator)
    outputs = []
    for weights, prefix, order in (
        (ours, "decode_head.pixel_decoder.encoder.layers.0.self_attn.", slice(None)),
        (theirs, "sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.", slice(None, None, -1)),
    ):
        attention = DeformableAttention(32, num_levels=LEVELS, num_heads=HEADS, num_points=POINTS)
        attention.load_state_dict(
            {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        )
        with torch.no_grad():
            outputs.append(attention(queries, torch.cat(maps[order], 1), boxes, sizes[order]))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)
    assert outputs[0].std() > 0.01
