import re

import pytest
import torch

from mmseg_m2f.checkpoints.layouts import convert
from tests.checkpoints.layout_examples import BACKBONES, IMAGES, assert_same_predictions, random_weights, unused_by_us
from tests.checkpoints.small_models import build_huggingface, build_ours


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
