"""Files of all layouts: written, read again, and refused when they are damaged."""

import collections
import pickle
from pathlib import Path

import pytest
import torch

from mmseg_m2f.checkpoints.converting import convert_file, read_weights, write_weights
from mmseg_m2f.checkpoints.layouts import convert, detect_content
from mmseg_m2f.checkpoints.whole_models import read_whole_model
from mmseg_m2f.core.low_rank import merge_low_rank
from mmseg_m2f.layers.lora import LoRASettings, add_lora, merge_lora
from tests.checkpoints import small_detr, small_eomt
from tests.checkpoints.small_models import random_state
from tests.checkpoints.test_layouts import random_weights

FILES = {
    "mmdet": "a.pth",
    "detectron2": "a.pkl",
    "transformers": "a.safetensors",
    "mmseg": "b.pth",
}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return random_weights("swin")


@pytest.fixture
def source(weights: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    write_weights(tmp_path / "source.pth", weights, layout="ours")
    return tmp_path / "source.pth"


def test_convert_file__through_all_layouts_and_back(weights, source: Path, tmp_path: Path):
    last = source
    for layout, name in [*FILES.items(), ("transformers", "c.bin"), ("ours", "c.pth")]:
        report = convert_file(last, tmp_path / name, to=layout)
        last = tmp_path / name
        assert detect_content(read_weights(last)).layout == layout
        assert report.num_written == len(read_weights(last))
        assert report.dropped == []
    back = read_weights(last)
    assert back.keys() == weights.keys()
    assert all(torch.equal(value, back[key]) for key, value in weights.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES.values(), "c.bin", "c.pth", source.name])


def test_convert_file__detr_through_its_layouts(tmp_path: Path):
    weights = random_state(small_detr.build_ours())
    write_weights(tmp_path / "source.pth", weights, layout="ours")
    counters = [name for name in weights if name.endswith("num_batches_tracked")]
    last = tmp_path / "source.pth"
    steps = [
        ("torchhub", "a.pth"),
        ("transformers-timm", "b.safetensors"),
        ("transformers", "c.bin"),
        ("ours", "d.pth"),
    ]
    for layout, name in steps:
        report = convert_file(last, tmp_path / name, to=layout)
        assert report.source.model == "detr"
        assert report.dropped == (counters if layout == "torchhub" else [])
        last = tmp_path / name
        assert detect_content(read_weights(last)) == (layout, "detr")
    back = read_weights(last)
    assert back.keys() == weights.keys() - set(counters)
    assert all(torch.equal(value, weights[name]) for name, value in back.items())
    assert torch.load(tmp_path / "a.pth", weights_only=True).keys() == {"model"}
    assert "model.backbone.conv_encoder.model.embedder.embedder.convolution.weight" in torch.load(tmp_path / "c.bin")


def test_convert_file__eomt_through_its_layouts(tmp_path: Path):
    weights = random_state(small_eomt.build_ours())
    write_weights(tmp_path / "source.pth", weights, layout="ours")
    last = tmp_path / "source.pth"
    steps = [("lightning", "a.bin"), ("transformers", "b.safetensors"), ("lightning", "c.pth"), ("ours", "d.pth")]
    for layout, name in steps:
        report = convert_file(last, tmp_path / name, to=layout)
        assert report.source.model == "eomt"
        last = tmp_path / name
        assert detect_content(read_weights(last)) == (layout, "eomt")
    back = read_weights(last)
    assert back.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in back.items())
    assert "network.q.weight" in torch.load(tmp_path / "a.bin", weights_only=True)


def test_convert_file__low_rank_changes_are_merged(tmp_path: Path):
    model = small_eomt.build_ours()
    add_lora(model.backbone.vit.blocks, LoRASettings(2, alpha=8))
    weights = random_state(model)
    write_weights(tmp_path / "lora.pth", weights, layout="ours")
    assert merge_lora(model.eval())
    model.load_state_dict(merge_low_rank(weights))
    write_weights(tmp_path / "merged.pth", model.state_dict(), layout="ours")
    for name in ("lora", "merged"):
        convert_file(tmp_path / f"{name}.pth", tmp_path / f"{name}.safetensors", to="transformers")
    found, expected = (read_weights(tmp_path / f"{name}.safetensors") for name in ("lora", "merged"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert read_whole_model(str(tmp_path / "lora.pth")).weights.keys() == model.state_dict().keys()


def test_write_weights__as_each_library_reads_it(weights, tmp_path: Path):
    from safetensors import safe_open

    for layout, name in FILES.items():
        write_weights(tmp_path / name, convert(weights, to=layout).weights, layout=layout)
    assert torch.load(tmp_path / "a.pth", weights_only=True).keys() == {"meta", "state_dict"}
    theirs = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert theirs["__author__"]
    assert isinstance(theirs["model"], collections.OrderedDict)
    assert theirs["model"]._metadata["sem_seg_head"]["version"] == 2
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_read_weights__training_state_of_mmengine(weights, tmp_path: Path):
    torch.save(dict(meta=dict(epoch=1), state_dict=weights, optimizer=dict(state={})), tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").keys() == weights.keys()


def test_convert_file__keeps_half_precision(weights, tmp_path: Path):
    half = {key: value.bfloat16() if value.is_floating_point() else value for key, value in weights.items()}
    write_weights(tmp_path / "half.pth", half, layout="ours")
    convert_file(tmp_path / "half.pth", tmp_path / "a.safetensors", to="transformers")
    assert torch.bfloat16 in {value.dtype for value in read_weights(tmp_path / "a.safetensors").values()}
    with pytest.raises(ValueError, match=r"is bfloat16, which numpy's arrays cannot hold"):
        convert_file(tmp_path / "half.pth", tmp_path / "a.pkl", to="detectron2")


def test_convert_file__refused_target_stays_as_it_was(weights, tmp_path: Path):
    (tmp_path / "a.pkl").write_bytes(b"valuable")
    weights = weights | {"backbone.unknown": torch.zeros(1)}
    write_weights(tmp_path / "source.pth", weights, layout="ours")
    with pytest.raises(KeyError, match=r"backbone\.unknown"):
        convert_file(tmp_path / "source.pth", tmp_path / "a.pkl", to="detectron2")
    assert (tmp_path / "a.pkl").read_bytes() == b"valuable"
    assert len(list(tmp_path.iterdir())) == 2


def test_convert_file__a_wrong_position_index_is_noticed(weights, tmp_path: Path):
    name = next(key for key in weights if key.endswith("relative_position_index"))
    write_weights(tmp_path / "source.pth", weights | {name: weights[name] + 1}, layout="ours")
    with pytest.raises(ValueError, match=r"changes 1 of \d+ weights: .*relative_position_index"):
        convert_file(tmp_path / "source.pth", tmp_path / "a.bin", to="transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


def test_convert_file__targets_that_do_not_fit(source: Path):
    with pytest.raises(ValueError, match=r"a\.pth ends in \.pth, but transformers reads \.safetensors or \.bin"):
        convert_file(source, source.with_name("a.pth"), to="transformers")
    with pytest.raises(ValueError, match=r"source\.pth is the source; expected another file"):
        convert_file(source, source, to="mmdet")


@pytest.mark.parametrize("name", [*FILES.values(), "c.bin"])
def test_read_weights__missing_file(tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match="no such file. Expected a .pth"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("layout", FILES)
def test_read_weights__truncated_file(weights, tmp_path: Path, layout: str):
    path = tmp_path / FILES[layout]
    write_weights(path, convert(weights, to=layout).weights, layout=layout)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{path.name}.*bytes.*again"):
        read_weights(path)


def test_read_weights__no_weights(tmp_path: Path):
    torch.save(dict(state_dict=dict(a="text")), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: a is a str; expected arrays or tensors only"):
        read_weights(tmp_path / "a.pth")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="holds a list; expected a mapping"):
        read_weights(tmp_path / "a.pkl")
