from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS

from mmseg_m2f.config.channels import channels_in_use
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.nodes import config_nodes, short_type
from mmseg_m2f.registry import MODELS
from tests.band_images import write_band_data
from tests.config.test_every_option import NAMES, write_objects

SEMANTIC = "mask2former-tiny_r18_camvid-240x320_cpu"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bands")
    write_band_data(folder)
    return folder


def leaf(folder: Path, root: Path, *lines: str, base: str = SEMANTIC) -> Path:
    file = folder / "mine.py"
    path = Path(load_config(base).filename).resolve()
    data = f"data = dict(root={str(root)!r}, classes=('low', 'high'))"
    file.write_text("\n".join([f"_base_ = {str(path)!r}", data, "crop_size = (32, 32)", *lines]) + "\n")
    return file


def types(node: object) -> set[str]:
    return {short_type(each) for each in config_nodes(node)}


def test_set_channels__reaches_loading_augmentation_preprocessor_and_model(root: Path, tmp_path: Path):
    values = "mean=[1.0] * 6, std=[2.0] * 6, shown=[3, 2, 1]"
    cfg = load_config(leaf(tmp_path, root, f"channels = dict(count=6, {values})", "pretrained = False"))
    for key in ("train_dataloader", "val_dataloader", "test_dataloader", "tta_pipeline"):
        assert "LoadBands" in types(cfg[key])
        assert not {"LoadImageFromFile", "PhotoMetricDistortion"} & types(cfg[key])
    assert "VaryBands" in types(cfg.train_dataloader)
    model = MODELS.build(cfg.model)
    assert model.backbone.conv1.weight.shape[1] == 6
    assert model.data_preprocessor.mean.flatten().tolist() == [1] * 6
    assert model.data_preprocessor.shown == (3, 2, 1)
    samples = [DATASETS.build(cfg.train_dataloader.dataset)[index] for index in range(2)]
    assert samples[0]["inputs"].shape == (6, 32, 32)
    batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    losses = model.train_step(batch, _Optimizer(model))
    assert torch.isfinite(losses["loss"])
    assert model.backbone.conv1.weight.grad[:, 5].abs().sum() > 0


class _Optimizer:
    """What `train_step` needs of mmengine's wrapper: the gradients alone."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def optim_context(self, model: torch.nn.Module) -> torch.enable_grad:
        return torch.enable_grad()

    def update_params(self, loss: torch.Tensor) -> None:
        loss.backward()


def test_set_channels__on_the_command_line_keeps_known_values(root: Path, tmp_path: Path):
    file = leaf(tmp_path, root, "channels = dict(count=6, mean=[1.0] * 6, std=[2.0] * 6)")
    cfg = load_config(file, {"channels": 6})
    assert cfg.model.data_preprocessor.mean == [1.0] * 6
    cfg = load_config(file, {"channels": 4})
    assert "mean" not in cfg.model.data_preprocessor
    assert channels_in_use(cfg) == 4
    assert channels_in_use(load_config(SEMANTIC)) is None


def test_set_channels__objects(tmp_path: Path):
    write_objects(tmp_path / "data")
    options = {"data": "dsb2018_256", "data_root": str(tmp_path / "data"), "channels": 3}
    options |= {"classes": NAMES, "pretrained": False}
    cfg = load_config("mask2former_r18_shapes-instance_demo", options)
    assert cfg.model.data_preprocessor.type == "mmseg_m2f.BandDetPreprocessor"
    cfg.model.data_preprocessor.update(mean=[0.0] * 3, std=[1.0] * 3)
    model = MODELS.build(cfg.model)
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]
    batch = model.data_preprocessor({key: [value] for key, value in sample.items()}, True)
    assert batch["inputs"].shape[1] == 3


def test_set_channels__rgb_weights_of_the_backbone_pass_the_check(root: Path, tmp_path: Path):
    from mmseg_m2f.config.initial_weights import check_initial_weights

    rgb = MODELS.build(dict(type="mmseg.ResNet", depth=18))
    for name, state in (("rgb", rgb.state_dict()), ("six", dict(rgb.state_dict()))):
        if name == "six":
            state["conv1.weight"] = state["conv1.weight"].repeat(1, 2, 1, 1)
        torch.save(dict(state_dict=state), tmp_path / f"{name}.pth")
        options = {"channels": 6, "backbone": "r18_from_scratch", "pretrained": str(tmp_path / f"{name}.pth")}
        check_initial_weights(load_config(leaf(tmp_path, root), options))


def test_set_channels__per_pixel_models(root: Path, tmp_path: Path):
    options = {"data": "camvid_96x128", "data_root": str(root), "channels": 6}
    cfg = load_config("deeplabv3plus_r18_shapes_demo", options)
    assert cfg.model.backbone.in_channels == 6
    with pytest.raises(ValueError, match="pretrained weights fit other channels in a MaskSegmentor"):
        load_config("deeplabv3plus_r18_shapes_demo", options | {"pretrained": "weights.pth"})


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "channels=0: expected the number of channels"),
        (True, ValueError, "channels=True: expected the number of channels"),
        (dict(mean=[1.0]), ValueError, "expected the number of channels"),
        (dict(count=2, means=[1.0]), TypeError, "channels: expected count, mean, std, shown, got means as well"),
    ],
)
def test_set_channels__refused(value, error, message, root: Path, tmp_path: Path):
    with pytest.raises(error, match=message):
        load_config(leaf(tmp_path, root), {"channels": value})


def test_set_channels__generated_data():
    with pytest.raises(ValueError, match=r"channels=6: expected data that are read from image files"):
        load_config("mask2former_r18_shapes_demo", {"channels": 6})


def test_set_channels__contradicted(root: Path, tmp_path: Path):
    cfg = load_config(leaf(tmp_path, root), {"channels": 6, "model.backbone.in_channels": 4, "pretrained": False})
    with pytest.raises(ValueError, match="expected images of 6 channels"):
        MODELS.build(cfg.model)
    with pytest.raises(ValueError, match="contradict each other"):
        load_config(leaf(tmp_path, root), {"channels": 6, "model.data_preprocessor.num_channels": 4})
