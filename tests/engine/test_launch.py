"""Config, options and checks as the command line does them; interrupted and resumed runs."""

import json
import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine import Bfloat16OptimWrapper, launch
from mmseg_m2f.engine.launch import evaluate, find_checkpoint, train
from mmseg_m2f.files import locked
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


def amp_wrapper(
    config: Path, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, *, amp: bool = True, **given: str
) -> dict:
    """The type and precision that `--amp` gives the optimizer's wrapper on such a GPU, or on the CPU."""
    built = []
    runner = mock.MagicMock(spec=Runner)
    monkeypatch.setattr(launch, "build_runner", lambda cfg, **_: built.append(cfg) or runner)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    train(config, {f"optim_wrapper.{key}": value for key, value in given.items()}, amp=amp)
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


def test_train__a_config_of_mixed_precision_trains_in_bfloat16_on_the_cpu(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dict(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")
    monkeypatch.setattr(launch, "get_device", lambda: "cpu")
    with pytest.warns(UserWarning, match="expected a GPU for mmengine's AmpOptimWrapper, got the CPU.*bfloat16"):
        wrapper = amp_wrapper(config, monkeypatch, None, amp=False, **given)
    assert wrapper == dict(type="mmseg_m2f.Bfloat16OptimWrapper")
    monkeypatch.setattr(launch, "get_device", lambda: "npu")
    assert amp_wrapper(config, monkeypatch, None, amp=False, **given) == given


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


def test_find_checkpoint__passes_over_weights_that_are_not_finite(tmp_path: Path) -> None:
    torch.save(dict(state_dict=dict(a=torch.ones(1))), tmp_path / "iter_1.pth")
    torch.save(dict(state_dict=dict(a=torch.tensor([float("nan")]))), tmp_path / "iter_2.pth")
    with pytest.warns(UserWarning, match=r"iter_2.pth holds NaN or infinite numbers \(a\)"):
        assert find_checkpoint(tmp_path) == str(tmp_path / "iter_1.pth")


def test_find_checkpoint__does_not_start_anew_where_none_can_be_read(tmp_path: Path) -> None:
    for name in ("iter_1.pth", "iter_2.pth"):
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"has 2 checkpoints; expected one that can be used, got none") as raised:
        find_checkpoint(tmp_path)
    assert "iter_1.pth (2 bytes)" in str(raised.value)


def test_train__resume_as_an_option(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Config] = []
    monkeypatch.setattr(launch, "build_runner", lambda cfg, **_: built.append(cfg) or mock.MagicMock(spec=Runner))
    config = write_config(Config.fromfile(run / "run.py"), tmp_path / "resumed.py")
    for options in ({"resume": True}, {"resume": True, "load_from": "x.pth"}, {"resume": "y.pth"}, {"load_from": "z"}):
        train(config, options, work_dir=str(run))
    found = [(cfg.resume, cfg.load_from) for cfg in built]
    assert found == [(True, str(run / "iter_4.pth")), (True, "x.pth"), (True, "y.pth"), (False, "z")]


def test_train__refuses_a_folder_that_another_training_writes_to(run: Path, tmp_path: Path) -> None:
    config = write_config(Config.fromfile(run / "run.py"), tmp_path / "second.py")
    with locked(run / "train.lock", remedy=""):
        child = os.fork()
        if not child:
            try:
                train(config, work_dir=str(run))
                os._exit(1)
            except ValueError as error:
                os._exit(0 if "expected a run that nobody is doing" in str(error) else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_train__deletes_unfinished_files(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "build_runner", lambda cfg, **_: mock.MagicMock(spec=Runner))
    config = write_config(Config.fromfile(run / "run.py"), tmp_path / "cleaned.py")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/.iter_4.pth.1.tmp").write_bytes(b"")
    train(config, work_dir=str(tmp_path / "work"))
    assert os.listdir(tmp_path / "work") == ["train.lock"]


def test_evaluate__refuses_weights_that_are_not_finite(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "iter_4.pth", weights_only=False)
    content["state_dict"]["decode_head.conv_seg.bias"][0] = float("nan")
    torch.save(content, tmp_path / "spoilt.pth")
    config = write_config(Config.fromfile(run / "run.py"), tmp_path / "spoilt_weights.py")
    with pytest.raises(ValueError, match=r"spoilt.pth: 1 of its .* weights hold NaN .*decode_head.conv_seg.bias"):
        evaluate(config, str(tmp_path / "spoilt.pth"), work_dir=str(tmp_path / "log"))


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
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (written.pop("without_tta", None) is not None) == tta
    assert written == pytest.approx(metrics)
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


def installed(cfg: Config, loops: tuple = ("train", "val")) -> list[str]:
    runner = launch.build_runner(cfg, loops=loops)
    return [type(hook).__name__ for hook in runner.hooks if type(hook).__name__ in ("Preflight", "Report")]


@pytest.mark.parametrize(
    ("changes", "loops", "expected"),
    [
        (dict(custom_hooks=[dict(type="mmengine.EMAHook")]), ("train",), ["Preflight", "Report"]),
        (dict(custom_hooks=None), ("test",), ["Preflight"]),
        (
            dict(custom_hooks=[dict(type="mmseg_m2f.Report", num_images=2), dict(type="mmseg_m2f.Preflight")]),
            ("train",),
            ["Preflight", "Report"],
        ),
        (dict(report=False), ("train",), ["Preflight"]),
        (dict(preflight=False), ("train",), ["Report"]),  # also where the config lists it
    ],
)
def test_build_runner__installs_checks_and_report(
    tmp_path: Path, changes: dict, loops: tuple, expected: list[str]
) -> None:
    write_dataset(tmp_path / "data")
    cfg = tiny_config(tmp_path / "data")
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / "run"), experiment_name=str(tmp_path)))
    cfg.update(changes)
    assert installed(cfg, loops) == expected


def test_build_runner__refuses_a_schedule_that_ends_elsewhere(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    cfg = tiny_config(tmp_path / "data")
    cfg.param_scheduler[0].end = 8
    with pytest.raises(ValueError, match="param_scheduler ends after 8 iterations, after training"):
        launch.build_runner(cfg)
