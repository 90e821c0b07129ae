"""What can be measured, and that the others get the weights of the first."""

from pathlib import Path

import pytest
import torch

from mmseg_m2f.benchmark.implementations import HuggingFace, Ours, Upstream, build, build_all, check_names
from mmseg_m2f.benchmark.implementations.ours import split_name
from mmseg_m2f.benchmark.setting import make_batch
from tests.benchmark.tiny import CONFIG, ROOT, SETTING, write_variant


def test_check_names__the_first_must_be_ours() -> None:
    check_names(["ours", "ours+compile", "mmseg", "huggingface", CONFIG, f"{CONFIG}+compile"])
    with pytest.raises(ValueError, match="'ours' or a config of ours first, got mmseg ours"):
        check_names(["mmseg", "ours"])
    with pytest.raises(ValueError, match="expected each once, got ours ours"):
        check_names(["ours", "ours"])
    with pytest.raises(FileNotFoundError, match="none.py"):
        check_names(["ours", "none.py"])


def test_build__refuses_other_tasks() -> None:
    config = ROOT / "configs/mask2former/mask2former_r50_coco-instance-1024_50e.py"
    with pytest.raises(ValueError, match=r"expected model\.type 'mmseg_m2f\.MaskSegmentor', got 'mmseg_m2f\.MaskDet"):
        build(str(config), SETTING)


def test_build_all__weights_of_the_first_where_they_fit(tmp_path: Path) -> None:
    same = write_variant(tmp_path / "same.py")
    deep = write_variant(tmp_path / "deep.py", query_decoder=dict(num_layers=4))
    first, equal, other = (each.model.state_dict() for each in build_all([CONFIG, same, deep], SETTING))
    assert all(torch.equal(first[name], equal[name]) for name in first)
    assert other.keys() > first.keys()
    name = "decode_head.pixel_decoder.encoder.layers.0.self_attn.sampling_offsets.weight"
    assert first[name].std() > 0  # shaken: the recipe starts at zero


def test_build__counts_of_the_setting() -> None:
    ours = build(CONFIG, SETTING)
    assert isinstance(ours, Ours)
    (last,) = ours.layers(ours.forward(make_batch(SETTING, seed=0).images))[-1:]
    assert last.class_logits.shape == (2, SETTING.queries, SETTING.classes + 1)
    assert ours.model.decode_head.criterion.sampling.num_points == SETTING.points


def test_build__compiled() -> None:
    plain, compiled = build_all([CONFIG, f"{CONFIG}+compile"], SETTING)
    assert plain.model.decode_head._compiled_call_impl is None
    assert compiled.model.decode_head._compiled_call_impl is not None
    given = compiled.model.state_dict()
    assert all(torch.equal(given[name], value) for name, value in plain.model.state_dict().items())


def test_split_name__options_in_any_order() -> None:
    assert split_name("ours") == ("ours", set())
    assert split_name("a/b.py+graphs") == ("a/b.py", {"+graphs"})
    assert split_name("ours+compile+graphs") == split_name("ours+graphs+compile") == ("ours", {"+compile", "+graphs"})


def test_build__graphs_need_a_gpu() -> None:
    with pytest.raises(ValueError, match=r"CUDA graphs need a GPU, got --device cpu"):
        build(f"{CONFIG}+graphs", SETTING)


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("kind", [Upstream, HuggingFace])
def test_others__predict_and_learn_what_ours_does(kind: type) -> None:
    from mmseg_m2f.benchmark.gate import compare

    ours = build("ours", SETTING)
    other = kind(ours.model.state_dict(), SETTING)
    found = compare(ours, other, make_batch(SETTING, seed=0))
    assert found.compared
    # So few points tie often, so losses and gradients are left to the gate of a real run.
    assert [f for f in found.failures if f.partition(",")[0] not in ("losses", "gradients")] == []
    assert found.figures["mask logits, largest difference"] > 0  # another program
