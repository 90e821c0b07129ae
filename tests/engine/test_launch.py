"""Config, options and checks as the command line does them; interrupted and resumed runs."""

import functools
import json
import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from PIL import Image

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine import Bfloat16OptimWrapper, launch
from mmseg_m2f.engine.launch import evaluate, find_checkpoint, train
from tests.command_line import ROOT
from tests.tiny_segmentation import tiny_config, write_config, write_dataset


@HOOKS.register_module()
class StopAfter(Hook):
    """Stands for Ctrl-C after so many iterations."""

    priority = "LOWEST"

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if runner.iter + 1 == self.iterations:
            raise KeyboardInterrupt


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """`configs/tiny.py` with a shared data_root, beside two backbone ingredients."""
    folder = tmp_path / "configs/method"
    ingredients = tmp_path / "configs/_base_/backbones"
    folder.mkdir(parents=True)
    ingredients.mkdir(parents=True)
    (ingredients / "wide.py").write_text('backbone = dict(type="mmseg.ResNet", depth=34)\n')
    (ingredients / "narrow.py").write_text('backbone = dict(type="mmseg.MobileNetV2")\n')
    (ingredients / "empty.py").write_text("depth = 3\n")
    cfg = tiny_config(tmp_path / "data")
    cfg.data_root = str(tmp_path / "data")
    cfg.test_dataloader.dataset.data_root = "elsewhere"
    cfg.dump(folder / "tiny.py")
    return folder / "tiny.py"


def test_load_config__names_the_nearest_file(config: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tyni.py: expected an existing file.*Nearest: .*tiny.py"):
        load_config(config.with_name("tyni.py"))
    with pytest.raises(FileNotFoundError, match=r"Nearest: .*method/tiny.py"):
        load_config(config.parents[1] / "methods/tiny.py")


def test_load_config__work_dir_is_option_or_config_or_name(config: Path) -> None:
    assert load_config(config).work_dir == "work_dirs/tiny"
    assert load_config(config, {"work_dir": "mine"}).work_dir == "mine"
    assert load_config(config, {"work_dir": "mine"}, work_dir="given").work_dir == "given"


def test_load_config__data_root_reaches_the_datasets_that_shared_it(config: Path) -> None:
    cfg = load_config(config, {"data_root": "/new"})
    roots = [cfg[f"{loop}_dataloader"].dataset.data_root for loop in ("train", "val", "test")]
    assert roots == ["/new", "/new", "elsewhere"]
    assert cfg.data_root == "/new"


def test_load_config__data_root_needs_a_dataset_with_files(tmp_path: Path) -> None:
    (tmp_path / "generated.py").write_text('train_dataloader = dict(dataset=dict(type="mmseg_m2f.GeneratedShapes"))\n')
    with pytest.raises(ValueError, match=r"data_root=/new: no dataset of .*generated.py has a data_root"):
        load_config(tmp_path / "generated.py", {"data_root": "/new"})


@pytest.mark.parametrize("as_path", [True, False])
def test_load_config__backbone_is_replaced_whole(config: Path, as_path: bool) -> None:
    name = str(config.parents[1] / "_base_/backbones/wide.py") if as_path else "wide"
    cfg = load_config(config, {"backbone": name, "model.backbone.out_indices": (0,)})
    assert dict(cfg.model.backbone) == dict(type="mmseg.ResNet", depth=34, out_indices=(0,))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("wid", ValueError, "backbone=wid: expected the name of a file.*Nearest: wide"),
        ("empty", ValueError, "empty.py defines no backbone"),
        ("no/such.py", FileNotFoundError, "expected an ingredient file"),
    ],
)
def test_load_config__backbone_names_the_nearest(config: Path, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_config(config, {"backbone": name})


@pytest.mark.parametrize(
    ("leaf", "part", "expected"),
    [
        ("ecenet/ecenet_r18_shapes_demo", "decode_head", dict(in_channels=[32, 48, 64, 96])),
        ("segnext/segnext_r18_shapes_demo", "decode_head", dict(in_channels=[48, 64, 96])),
        ("cac/cac-deeplabv3plus_r18_shapes_demo", "decode_head.host", dict(in_channels=96, c1_in_channels=32)),
        ("cac/cac-deeplabv3plus_r18_shapes_demo", "auxiliary_head", dict(in_channels=64)),
        ("context_cluster/semantic-fpn_coc_tiny_shapes_demo", "neck", dict(in_channels=[64, 128, 256, 512])),
    ],
)
def test_load_config__per_pixel_heads_get_the_channels_of_another_backbone(
    leaf: str, part: str, expected: dict
) -> None:
    name = "r18_from_scratch" if part == "neck" else "coc_tiny_from_scratch"
    cfg = load_config(ROOT / f"configs/{leaf}.py", {"backbone": name})
    node = functools.reduce(getattr, part.split("."), cfg.model)
    assert {key: node[key] for key in expected} == expected
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape[:2] == (1, 8)


def test_load_config__channels_that_are_given_stay() -> None:
    options = {"backbone": "coc_tiny_from_scratch", "model.decode_head.in_channels": [1, 2, 3, 4]}
    cfg = load_config(ROOT / "configs/ecenet/ecenet_r18_shapes_demo.py", options)
    assert cfg.model.decode_head.in_channels == [1, 2, 3, 4]


def test_load_config__another_backbone_with_too_few_maps() -> None:
    options = {"backbone": "coc_tiny_from_scratch", "model.backbone.out_indices": (0, 1)}
    with pytest.raises(ValueError, match=r"SegNeXtHead reads map 3 \(in_index\), but the backbone gives 2"):
        load_config(ROOT / "configs/segnext/segnext_r18_shapes_demo.py", options)


def test_load_config__another_type_keeps_what_it_takes(config: Path) -> None:
    with pytest.warns(UserWarning, match=r"former type: base_channels, depth; it keeps norm_cfg"):
        cfg = load_config(config, {"model.backbone.type": "mmseg.MobileNetV2"})
    assert dict(cfg.model.backbone) == dict(type="mmseg.MobileNetV2", norm_cfg=dict(type="BN", requires_grad=True))


def test_load_config__another_optimizer_wrapper_keeps_the_parameter_rule() -> None:
    options = {"optim_wrapper.type": "mmseg_m2f.Bfloat16OptimWrapper"}
    cfg = load_config(ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py", options)
    assert cfg.optim_wrapper.constructor == "mmseg_m2f.ParameterRule"
    cfg = load_config(ROOT / "configs/ecenet/ecenet_swin_b_ade20k-640_160k.py", options)
    assert cfg.optim_wrapper.paramwise_cfg == dict(backbone_lr_mult=1.0)


def test_load_config__another_type_in_a_list(config: Path) -> None:
    options = {"param_scheduler.0.type": "mmengine.LinearLR", "param_scheduler.0.start_factor": 0.1}
    with pytest.warns(UserWarning, match=r"param_scheduler.0.type=mmengine.LinearLR drops .*: eta_min, power;"):
        cfg = load_config(config, options)
    assert dict(cfg.param_scheduler[0]) == dict(
        type="mmengine.LinearLR", begin=0, end=8, by_epoch=False, start_factor=0.1
    )


def amp_wrapper(
    config: Path, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, **given: str
) -> dict:
    """The type and precision that `--amp` gives the optimizer's wrapper on such a GPU, or on the CPU."""
    built = []
    runner = mock.MagicMock(spec=Runner)
    monkeypatch.setattr(launch, "_build_runner", lambda cfg, **_: built.append(cfg) or runner)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    train(config, {f"optim_wrapper.{key}": value for key, value in given.items()}, amp=True)
    return {key: built[0].optim_wrapper[key] for key in built[0].optim_wrapper if key not in ("optimizer", "clip_grad")}


def test_train__amp_is_what_the_device_has(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bfloat16 = dict(type="mmseg_m2f.Bfloat16OptimWrapper")
    assert amp_wrapper(config, monkeypatch, None) == bfloat16
    scaled = dict(type="mmengine.AmpOptimWrapper", loss_scale="dynamic")
    assert amp_wrapper(config, monkeypatch, (7, 5)) == scaled
    unscaled = dict(type="mmengine.AmpOptimWrapper", dtype="bfloat16", loss_scale=dict(enabled=False))
    assert amp_wrapper(config, monkeypatch, (8, 0)) == unscaled


def test_train__amp_and_a_config_that_sets_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict(type="mmengine.AmpOptimWrapper", dtype="float16", loss_scale="dynamic")
    assert amp_wrapper(config, monkeypatch, (9, 0), **given) == given
    assert amp_wrapper(config, monkeypatch, None, **given) == dict(type="mmseg_m2f.Bfloat16OptimWrapper")
    with pytest.raises(ValueError, match=r"--amp: optim_wrapper.type is 'mmengine.OptimWrapperDict'"):
        amp_wrapper(config, monkeypatch, None, type="mmengine.OptimWrapperDict")


def test_train__amp_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_dataset(tmp_path / "data")
    config = write_config(tiny_config(tmp_path / "data", max_iters=2), tmp_path / "half.py")
    runner = train(config, work_dir=str(tmp_path / "run"), amp=True)
    assert isinstance(runner.optim_wrapper, Bfloat16OptimWrapper)
    stored = weights(tmp_path / "run/iter_2.pth")
    assert torch.bfloat16 not in {value.dtype for value in stored.values()}


def test_train__lr_scaling_needs_its_base(config: Path) -> None:
    with pytest.raises(ValueError, match=r"--auto-scale-lr: the config has no auto_scale_lr.base_batch_size"):
        train(config, auto_scale_lr=True)


def test_train__lr_scaling_scales(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    config = write_config(tiny_config(tmp_path / "data", max_iters=1), tmp_path / "scaled.py")
    options = {"auto_scale_lr": dict(base_batch_size=8), "param_scheduler": None}
    runner = train(config, options, work_dir=str(tmp_path / "run"), auto_scale_lr=True)
    assert runner.optim_wrapper.get_lr()["lr"] == [pytest.approx(0.01 * 2 / 8)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in check_checkpoint(path)["state_dict"].items()}


def test_train__interrupted_and_resumed_equals_straight(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=5)
    cfg = tiny_config(tmp_path / "data", max_iters=8)
    straight, broken, resumed = (write_config(cfg, tmp_path / f"{n}.py") for n in ("straight", "broken", "resumed"))
    train(straight, work_dir=str(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        train(broken, {"custom_hooks": [dict(type="mmengine.StopAfter", iterations=7)]}, work_dir=str(tmp_path / "b"))
    newest = tmp_path / "b/iter_6.pth"
    newest.write_bytes(newest.read_bytes()[:-100])  # as a killed writer leaves it
    with pytest.warns(UserWarning, match=r"--resume passes over it.*iter_6.pth"):
        runner = train(resumed, work_dir=str(tmp_path / "b"), resume=True)
    assert runner.iter == 8
    expected, got = weights(tmp_path / "a/iter_8.pth"), weights(tmp_path / "b/iter_8.pth")
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []


def test_train__resume_without_checkpoint_starts(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    config = write_config(tiny_config(tmp_path / "data", max_iters=1), tmp_path / "fresh.py")
    assert train(config, work_dir=str(tmp_path / "run"), resume=True).iter == 1


def test_find_checkpoint__takes_the_highest_number(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    for name in ("iter_9.pth", "iter_10.pth", "best_mIoU_iter_20.pth"):
        torch.save(dict(state_dict={}), tmp_path / name)
    assert find_checkpoint(tmp_path) == str(tmp_path / "iter_10.pth")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, config and a checkpoint of four iterations."""
    folder = tmp_path_factory.mktemp("run")
    write_dataset(folder / "data")
    train(write_config(tiny_config(folder / "data"), folder / "run.py"), work_dir=str(folder))
    return folder


@pytest.mark.parametrize("tta", [False, True])
def test_evaluate__writes_metrics_labels_and_pictures(run: Path, tmp_path: Path, tta: bool) -> None:
    config = write_config(Config.fromfile(run / "run.py"), tmp_path / f"evaluate_{tta}.py")
    metrics = evaluate(
        config,
        str(run / "iter_4.pth"),
        work_dir=str(tmp_path / "log"),
        out=str(tmp_path / "out"),
        show_dir=str(tmp_path / "show"),
        tta=tta,
    )
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == pytest.approx(metrics)
    assert 0 <= metrics["mIoU"] <= 1
    names = [f"{index:03}.png" for index in range(4)]
    assert sorted(os.listdir(tmp_path / "out/labels")) == sorted(os.listdir(tmp_path / "show")) == names
    with Image.open(tmp_path / "out/labels/000.png") as label:
        assert (label.mode, label.size) == ("P", (48, 32))


def test_evaluate__tta_needs_a_pipeline(run: Path, tmp_path: Path) -> None:
    cfg = Config.fromfile(run / "run.py")
    cfg.pop("tta_pipeline")
    with pytest.raises(ValueError, match=r"--tta: config .* has no tta_pipeline"):
        evaluate(write_config(cfg, tmp_path / "plain.py"), str(run / "iter_4.pth"), tta=True)


def test_load_config__data_root_reaches_the_paths_below_it(tmp_path: Path) -> None:
    leaf = ROOT / "configs/detr/detr_r50_coco-detection-800_150e.py"
    cfg = load_config(leaf, {"data_root": str(tmp_path)})
    assert cfg.val_evaluator.ann_file == f"{tmp_path}/annotations/instances_val2017.json"
    assert cfg.test_dataloader.dataset.data_root == str(tmp_path)
    assert cfg.train_dataloader.dataset.ann_file == "annotations/instances_train2017.json"
