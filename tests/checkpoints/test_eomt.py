"""EoMT: Hugging Face's weights in ours, and every layout in every other."""

from itertools import permutations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.checkpoints.layouts import KEY_MAPS, check_round_trip, convert, detect_content
from tests.checkpoints.small_eomt import build_huggingface, build_ours
from tests.checkpoints.small_models import random_state
from tests.parity.conftest import CONFIGS

LAYOUTS = [layout for layout, maps in KEY_MAPS.items() if "eomt" in maps]


@pytest.mark.parity
def test_convert__huggingface_loads_what_we_write(tmp_path):
    from safetensors.torch import load_file, save_file

    theirs = build_huggingface()
    theirs.attn_mask_probs.copy_(torch.tensor([0.0, 0.25]))
    theirs.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    written = convert(convert(stored, to="ours").weights, to="transformers").weights
    assert {key for key in stored if key not in written} <= {"criterion.empty_weight"}
    assert all(torch.equal(value, stored[key]) for key, value in written.items())
    save_file({key: value.clone() for key, value in written.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert set(report["missing_keys"]) <= {"criterion.empty_weight"}
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in theirs.state_dict().items())


@pytest.mark.parity
def test_convert__huggingface_of_the_published_size():
    from transformers import EomtConfig, EomtForUniversalSegmentation

    cfg = Config.fromfile(CONFIGS / "eomt/eomt_dinov2_vit_l_coco-panoptic-640_12e.py").model
    cfg.backbone.pretrained = False
    with torch.device("meta"):
        theirs = EomtForUniversalSegmentation(EomtConfig(num_labels=133)).state_dict()
    cfg.decode_head.criterion = None
    ours = MODELS.build(cfg).state_dict()
    converted = convert(ours, to="transformers").weights
    assert theirs.keys() - converted.keys() == {"criterion.empty_weight"}
    assert {key: value.shape for key, value in converted.items()} == {key: theirs[key].shape for key in converted}


def test_convert__round_trips_between_all_layouts():
    ours = random_state(build_ours())
    every = {layout: convert(ours, to=layout).weights for layout in LAYOUTS}
    assert every.keys() == {"ours", "lightning", "transformers"}
    for source, target in permutations(LAYOUTS, 2):
        assert detect_content(every[source]) == (source, "eomt")
        converted = convert(every[source], to=target).weights
        assert converted.keys() == every[target].keys()
        assert all(torch.equal(value, every[target][key]) for key, value in converted.items())
        check_round_trip(every[source], converted)


AUTHORS_NAMES = """
encoder.backbone.pos_embed                   backbone.vit.pos_embed
encoder.backbone.reg_token                   backbone.vit.reg_token
encoder.backbone.patch_embed.proj.weight     backbone.vit.patch_embed.proj.weight
encoder.backbone.blocks.3.attn.qkv.bias      backbone.vit.blocks.3.attn.qkv.bias
encoder.backbone.blocks.3.ls2.gamma          backbone.vit.blocks.3.ls2.gamma
encoder.backbone.norm.weight                 backbone.vit.norm.weight
q.weight                                     decode_head.query_decoder.query_feat.weight
class_head.weight                            decode_head.query_decoder.cls_embed.weight
mask_head.2.bias                             decode_head.query_decoder.mask_embed.2.bias
upscale.0.conv1.weight                       decode_head.query_decoder.upscale.0.upsample.weight
upscale.1.conv2.weight                       decode_head.query_decoder.upscale.1.smooth.weight
upscale.1.norm.bias                          decode_head.query_decoder.upscale.1.norm.bias
attn_mask_probs                              decode_head.query_decoder.attn_mask_probs
"""


def test_convert__lightning_has_the_authors_names():
    ours = random_state(build_ours())
    theirs = convert(ours, to="lightning").weights
    names = AUTHORS_NAMES.split()
    for their_name, our_name in zip(names[::2], names[1::2], strict=True):
        assert torch.equal(theirs[f"network.{their_name}"], ours[our_name])
    # Theirs normalises images itself, in [0, 1].
    mean, std = (theirs[f"network.encoder.pixel_{name}"] for name in ("mean", "std"))
    assert mean.shape == std.shape == (1, 3, 1, 1)
    torch.testing.assert_close(mean.flatten() * 255, torch.tensor([123.675, 116.28, 103.53]))
    torch.testing.assert_close(std.flatten() * 255, torch.tensor([58.395, 57.12, 57.375]))
    converted = convert(theirs | {"criterion.empty_weight": torch.ones(6)}, to="ours")
    assert set(converted.dropped) == {
        "criterion.empty_weight",
        "network.encoder.pixel_mean",
        "network.encoder.pixel_std",
    }
    assert converted.weights.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in converted.weights.items())


def test_convert__gated_layers_are_refused():
    theirs = convert(random_state(build_ours()), to="transformers").weights
    ours = convert(theirs, to="ours").weights
    first = "backbone.vit.blocks.0.mlp.fc1.weight"
    ours[first] = torch.cat([ours[first]] * 2)
    with pytest.raises(KeyError, match=rf"1 weights have no counterpart: {first}.*no gated layers"):
        convert(ours, to="transformers")
    check_round_trip(ours, convert(ours, to="lightning").weights)
    theirs["layers.0.mlp.weights_in.weight"] = theirs.pop("layers.0.mlp.fc1.weight")
    with pytest.raises(KeyError, match=r"1 weights have no counterpart: layers\.0\.mlp\.weights_in.*no gated layers"):
        convert(theirs, to="ours")
