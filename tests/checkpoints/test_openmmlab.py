import pytest
import torch
from mmengine.runner import load_checkpoint

from mmseg_m2f.checkpoints.layouts import convert
from mmseg_m2f.checkpoints.openmmlab import adopt_detector_keys
from tests.checkpoints import small_detr, small_maskformer, small_models
from tests.checkpoints.small_models import random_state
from tests.parity.conftest import build_mmseg, build_ours, make_batch


def test_openmmlab__mmseg_checkpoint_predicts_identically(tmp_path):
    theirs = build_mmseg(depth=18).eval()
    torch.save(dict(meta={}, state_dict=theirs.state_dict()), tmp_path / "mmseg.pth")
    ours = build_ours(depth=18).eval()
    load_checkpoint(ours, str(tmp_path / "mmseg.pth"), strict=True)
    images, samples = make_batch(128, 5)
    # Random weights leave many pixels nearly undecided: in float32, rounding alone would decide some of them.
    theirs, ours, images = theirs.double(), ours.double(), images.double()
    with torch.no_grad():
        expected = [sample.pred_sem_seg.data.clone() for sample in theirs.predict(images, samples)]
        actual = [sample.pred_sem_seg.data for sample in ours.predict(images, samples)]
    for label_map, reference in zip(actual, expected, strict=True):
        assert torch.equal(label_map, reference)


def test_openmmlab__mmdet_prefix_is_known(segmentor):
    own = {key: value.clone() for key, value in segmentor.state_dict().items()}
    renamed = {
        key.replace("decode_head.query_decoder.", "panoptic_head.").replace("decode_head.", "panoptic_head."): value + 1
        for key, value in own.items()
    }
    assert any(key.startswith("panoptic_head.transformer_decoder.") for key in renamed)
    segmentor.load_state_dict(renamed, strict=True)
    for key, value in segmentor.state_dict().items():
        assert torch.equal(value, own[key] + 1)


def test_openmmlab__our_own_keys_load(segmentor):
    keys = segmentor.load_state_dict(segmentor.state_dict(), strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == ([], [])


MODELS = {
    "mask2former": lambda: small_models.build_ours("resnet"),
    "maskformer": lambda: small_maskformer.build_ours("resnet"),
    "maskformer, encoder": lambda: small_maskformer.build_ours("resnet", with_encoder=True),
    "detr": small_detr.build_ours,
}


def before_rewrite(name: str, model: str) -> str:
    """What mmdet 2.x called this weight."""
    if model == "mask2former" and ".transformer_decoder." in name:  # attentions in the order of work
        name = name.replace(".cross_attn.", ".attentions.0.").replace(".self_attn.", ".attentions.1.")
    else:
        name = name.replace(".self_attn.", ".attentions.0.").replace(".cross_attn.", ".attentions.1.")
    name = name.replace(".ffn.", ".ffns.0.")
    if model == "detr" and not name.startswith(("backbone.", "bbox_head.")):
        name = name.replace("neck.convs.0.conv.", "input_proj.")
        name = f"bbox_head.transformer.{name}" if name.startswith(("encoder", "decoder")) else f"bbox_head.{name}"
    return name


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("library", "model"), [*(("mmdet", model) for model in MODELS), *(("mmseg", model) for model in list(MODELS)[:3])]
)
def test_openmmlab__files_load_as_they_are(library: str, model: str, old: bool, tmp_path):
    ours = MODELS[model]()
    expected = random_state(ours)
    theirs = convert(expected, to=library).weights
    if old:
        renamed = {before_rewrite(name, model): value for name, value in theirs.items()}
        assert sum(name not in theirs for name in renamed) > 20
        theirs = renamed
    assert not theirs.keys() & {name for name in expected if ".query_decoder." in name}
    torch.save(dict(meta={}, state_dict=theirs), tmp_path / "theirs.pth")
    load_checkpoint(ours, str(tmp_path / "theirs.pth"), strict=True)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_openmmlab__a_real_detr_of_mmdet_loads():
    theirs, ours = small_detr.build_mmdet(), small_detr.build_ours()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    decoder = ours.decode_head.query_decoder
    assert torch.equal(decoder.box_embed[2].weight, theirs.bbox_head.reg_ffn.layers[1].weight)
    assert torch.equal(decoder.transformer_decoder.layers[1].norms[1].bias, theirs.decoder.layers[1].norms[1].bias)


def test_openmmlab__a_detr_loads_under_a_mask_head():
    theirs, ours = small_detr.build_mmdet(), small_detr.build_ours(with_masks=True)
    keys = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert keys.unexpected_keys == []
    assert {name.rsplit(".mask_head.")[0] for name in keys.missing_keys} == {"decode_head.query_decoder"}


def test_openmmlab__a_neck_of_our_own_keeps_its_names(segmentor):
    state = segmentor.state_dict() | {"neck.convs.0.conv.weight": torch.zeros(1)}
    assert segmentor.load_state_dict(state, strict=False).unexpected_keys == ["neck.convs.0.conv.weight"]


def test_openmmlab__old_names_inside_a_backbone_are_not_ours_to_change():
    state = {f"{part}.encoder.layers.0.ffns.0.weight": torch.zeros(1) for part in ("backbone", "encoder")}
    state |= {"backbone.decoder.layers.0.attentions.1.weight": torch.zeros(1), "bbox_head.reg_ffn.x": torch.zeros(1)}
    adopt_detector_keys(torch.nn.Identity(), state, "")
    assert {name for name in state if name.startswith("backbone.")} == {
        "backbone.encoder.layers.0.ffns.0.weight",
        "backbone.decoder.layers.0.attentions.1.weight",
    }
