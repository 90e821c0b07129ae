"""Trainings that start from what fits of another model."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import nn

from mmseg_m2f.engine.hooks.fine_tune import class_layers
from mmseg_m2f.engine.launch import train
from mmseg_m2f.registry import TASK_UTILS
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

BIAS = "decode_head.conv_seg.bias"


@HOOKS.register_module()
class KeepFirstWeights(Hook):
    """Notes the weights with which training starts."""

    seen: dict[str, torch.Tensor]

    def before_train(self, runner: Runner) -> None:
        type(self).seen = {name: value.clone() for name, value in runner.model.state_dict().items()}


@pytest.fixture
def config(tmp_path: Path) -> str:
    write_dataset(tmp_path / "data")
    cfg = tiny_config(tmp_path / "data", max_iters=1)
    for key in ("val_cfg", "val_dataloader", "val_evaluator"):
        cfg.pop(key)
    cfg.custom_hooks = [dict(type="KeepFirstWeights")]
    cfg.report = False
    cfg.experiment_name = tmp_path.name  # runs of one name and second share a log
    return write_config(cfg, tmp_path / "tiny.py")


@pytest.fixture
def stored(config: str, tmp_path: Path) -> dict[str, torch.Tensor]:
    """Weights of the config's model, all different."""
    state = MODELS.build(Config.fromfile(config).model).state_dict()
    return {name: torch.rand_like(v) if v.is_floating_point() else v for name, v in state.items()}


def start(config: str, stored: dict, tmp_path: Path, classes: list[str] | None, **options: object) -> dict:
    meta = {} if classes is None else dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=stored, meta=meta), tmp_path / "start.pth")
    settings = {"pretrained": str(tmp_path / "start.pth"), **options}
    train(config, settings, work_dir=str(tmp_path / "run"))
    return KeepFirstWeights.seen


def test_fine_tune__takes_all_but_the_rows_of_other_classes(config: str, stored: dict, tmp_path: Path) -> None:
    stored["decode_head.conv_seg.weight"] = torch.rand(3, 8, 1, 1)
    stored[BIAS] = torch.tensor([0.1, 0.2, 0.3])
    seen = start(config, stored, tmp_path, ["grey", "Bright", "blue"])  # the data have dark and bright
    for name, value in seen.items():
        if "conv_seg" not in name and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, stored[name]), name
    assert torch.equal(seen["decode_head.conv_seg.weight"][1], stored["decode_head.conv_seg.weight"][1])
    assert seen[BIAS][1] == stored[BIAS][1]
    assert seen[BIAS][0] == 0  # as initialised
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert f"Weights of {tmp_path / 'start.pth'} (OpenMMLab's names):" in log
    assert "rows of 1 of 2 classes by name (bright), new: dark" in log


def test_fine_tune__same_classes_in_another_order(config: str, stored: dict, tmp_path: Path) -> None:
    seen = start(config, stored, tmp_path, ["bright", "dark"])
    assert torch.equal(seen[BIAS], stored[BIAS].flip(0))


def test_fine_tune__without_class_names(config: str, stored: dict, tmp_path: Path) -> None:
    seen = start(config, stored, tmp_path, None)
    assert torch.equal(seen["decode_head.conv_seg.weight"], stored["decode_head.conv_seg.weight"])
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert "start.pth names no classes: the rows of the class layer were taken in their order" in log


def test_fine_tune__refuses_what_nothing_fits_of(config: str, stored: dict, tmp_path: Path) -> None:
    other = {name: torch.ones(3, 2, 1) for name in stored}
    with pytest.raises(ValueError, match=r"pretrained=.*start.pth: none of its \d+ weights .*fits the model"):
        start(config, other, tmp_path, ["dark", "bright"])


def test_fine_tune__resumed_runs_go_on(config: str, stored: dict, tmp_path: Path) -> None:
    start(config, stored, tmp_path, ["dark", "bright"])
    trained = torch.load(tmp_path / "run/iter_1.pth", weights_only=False)["state_dict"]
    (tmp_path / "start.pth").unlink()
    address = f"whole-model://{tmp_path / 'start.pth'}"
    train(config, {"load_from": address, "max_iters": 2}, work_dir=str(tmp_path / "run"), resume=True)
    assert torch.equal(KeepFirstWeights.seen[BIAS], trained[BIAS])
    assert not torch.equal(KeepFirstWeights.seen[BIAS], stored[BIAS])


def test_class_layers__queries_of_fixed_classes() -> None:
    class Head(nn.Module):
        def __init__(self, assigner: str) -> None:
            super().__init__()
            self.criterion = nn.Module()
            self.criterion.assigner = TASK_UTILS.build(dict(type=assigner))
            self.query_decoder = nn.ModuleDict(dict(query_feat=nn.Embedding(2, 3), cls_embed=nn.Linear(3, 3)))

    layers = [f"decode_head.query_decoder.cls_embed.{part}" for part in ("weight", "bias")]
    fixed = ["decode_head.query_decoder.query_feat.weight"]
    model = nn.ModuleDict(dict(decode_head=Head("mmseg_m2f.FixedAssigner")))
    assert list(class_layers(model)) == fixed + layers
    model.decode_head.criterion.assigner = None
    assert list(class_layers(model)) == layers
