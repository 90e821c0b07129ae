"""Checkpoints of whole models in all layouts, told apart from weights of a backbone."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mmseg_m2f.checkpoints.converting import write_weights
from mmseg_m2f.checkpoints.layouts import convert
from mmseg_m2f.checkpoints.whole_models import is_whole_model, read_whole_model, whole_model_address
from tests.checkpoints.layout_examples import LAYOUTS, random_weights

SUFFIXES = {"detectron2": ".pkl", "transformers": ".safetensors"}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return random_weights("resnet")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_read_whole_model__from_every_layout(weights: dict, tmp_path: Path, layout: str) -> None:
    file = tmp_path / f"model{SUFFIXES.get(layout, '.pth')}"
    converted = convert(weights, to=layout).weights if layout != "ours" else weights
    write_weights(file, converted, layout=layout)
    assert is_whole_model(str(file))
    model = read_whole_model(whole_model_address(str(file)))
    counters = {name for name in weights if name.endswith("num_batches_tracked")}
    assert weights.keys() - counters <= model.weights.keys() <= weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.weights.items())
    assert (model.unknown, model.classes) == ([], None)
    assert model.layout.startswith(layout)


def test_read_whole_model__names_what_has_no_counterpart(weights: dict, tmp_path: Path) -> None:
    state = {**convert(weights, to="mmdet").weights, "rpn_head.conv.weight": torch.ones(1)}
    torch.save(dict(state_dict=state), tmp_path / "a.pth")
    assert read_whole_model(str(tmp_path / "a.pth")).unknown == ["rpn_head.conv.weight"]


@pytest.mark.parametrize(
    "meta",
    [
        dict(dataset_meta=dict(classes=("road", "car"))),
        dict(dataset_meta=dict(CLASSES=["road", "car"])),  # candidates of mmdet 3.0
        dict(CLASSES=["road", "car"]),  # mmdet 2, mmseg 0
    ],
)
def test_read_whole_model__class_names_of_training(tmp_path: Path, meta: dict) -> None:
    state = {"module.backbone.a": torch.ones(1), "module.decode_head.conv_seg.bias": torch.ones(2)}
    torch.save(dict(state_dict=state, meta=meta), tmp_path / "a.pth")
    model = read_whole_model(str(tmp_path / "a.pth"))
    assert model.classes == ("road", "car")
    assert list(model.weights) == ["backbone.a", "decode_head.conv_seg.bias"]
    loaded = CheckpointLoader.load_checkpoint(whole_model_address(str(tmp_path / "a.pth")), logger=None)
    assert loaded["meta"] == dict(dataset_meta=dict(classes=("road", "car")))


@pytest.mark.parametrize(("labels", "expected"), [(("road", "car"), ("road", "car")), (("LABEL_0", "LABEL_1"), None)])
def test_read_whole_model__class_names_of_hugging_face(weights: dict, tmp_path: Path, labels: tuple, expected) -> None:
    write_weights(tmp_path / "model.safetensors", convert(weights, to="transformers").weights, layout="transformers")
    (tmp_path / "config.json").write_text(json.dumps(dict(id2label=dict(enumerate(labels)))))
    assert read_whole_model(str(tmp_path / "model.safetensors")).classes == expected
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"config.json: expected the description of a Hugging Face model"):
        read_whole_model(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (("conv1.weight", "layer1.0.conv1.weight"), False),  # torchvision
        (("backbone.conv1.weight", "head.fc.weight"), False),  # mmpretrain
        (("backbone.conv1.weight",), False),
        (("backbone.conv1.weight", "decode_head.conv_seg.weight"), True),
        (("backbone.conv1.weight", "neck.convs.0.weight", "rpn_head.conv.weight"), True),
    ],
)
def test_is_whole_model__tells_backbones_apart(tmp_path: Path, names: tuple, whole: bool) -> None:
    torch.save(dict(state_dict={name: torch.ones(1) for name in names}), tmp_path / "a.pth")
    assert is_whole_model(str(tmp_path / "a.pth")) is whole


@pytest.mark.parametrize("value", [True, None, "on", "torchvision://resnet50", "package://a/b.pth", "absent.pth"])
def test_is_whole_model__other_values(value: object) -> None:
    assert not is_whole_model(value)


def test_is_whole_model__leaves_broken_files_to_the_check(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"PK broken")
    assert not is_whole_model(str(tmp_path / "a.pth"))
