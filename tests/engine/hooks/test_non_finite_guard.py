"""A NaN is named by its place, in every method, and never reaches the weights."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import nn

from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.hooks.non_finite_guard import NonFiniteGuard
from mmseg_m2f.engine.launch import train
from mmseg_m2f.engine.non_finite.stored_steps import replay_step
from tests.spoilt_loss import SpoiltLoss
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

NAN = float("nan")
METHODS = [
    "mask2former_r18_shapes_debug",
    "maskformer_r18_shapes_debug",
    "detr-tiny_r18_shapes_debug",
    "segvit_tiny_shapes_debug",
    "eomt_tiny_shapes_debug",
    "ecenet_r18_shapes_debug",
    "segnext_mscan_tiny_shapes_debug",
    "semantic-fpn_coc_tiny_shapes_debug",
    "cac-upernet_r18_shapes_debug",
]


@HOOKS.register_module()
class PlantNaN(Hook):
    """Spoils the step of an iteration.

    Args:
        place: `pixel` of the batch, `file` (all pixels of the first image), `weight`, `loss` or `gradient`.
        iterations: The iterations, from 1.
    """

    def __init__(self, place: str, iterations: list[int]) -> None:
        self.place = place
        self.iterations = iterations

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if runner.iter + 1 not in self.iterations:
            return
        model = runner.model
        if self.place in ("pixel", "file"):
            inputs = data_batch["inputs"]
            inputs[0] = inputs[0].float()
            (inputs[0][1, 3, 5] if self.place == "pixel" else inputs[0]).fill_(NAN)
        elif self.place == "weight":
            weight_of(model)[1].data.flatten()[-1] = NAN  # the first of SegViT's positions is the class token's
        elif self.place == "loss":
            spoil_loss(model)
        else:
            weight_of(model)[1].register_hook(lambda gradient: gradient * NAN)


def weight_of(model: nn.Module) -> tuple[str, nn.Parameter]:
    """The first weight of the backbone that is trained and used: SegViT's class token gets no gradient."""
    named = [
        (name, p) for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1 and "token" not in name
    ]
    return next((name, parameter) for name, parameter in named if "backbone" in name)


def spoil_loss(model: nn.Module) -> None:
    """As a fault in a loss would: from now on one of them is NaN."""
    loss = model.loss

    def spoilt(*args: object, **keywords: object) -> dict:
        losses = dict(loss(*args, **keywords))
        name = next(name for name in losses if "loss" in name)
        losses[name] = losses[name] * NAN
        return losses

    object.__setattr__(model, "loss", spoilt)


def small_run(name: str, place: str, iterations: list[int], **guard: object) -> tuple[Config, dict]:
    cfg = load_config(name, {"train_dataloader.num_workers": 0, "train_dataloader.batch_size": 2})
    cfg.train_cfg = dict(type="mmengine.IterBasedTrainLoop", max_iters=3, val_interval=100)
    cfg.param_scheduler = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.preflight, cfg.report = False, False
    hooks = [dict(type="PlantNaN", place=place, iterations=iterations), dict(type="mmseg_m2f.NonFiniteGuard", **guard)]
    cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
    return cfg, {}


def message_of_run(name: str, place: str, folder: Path, *, amp: bool = False) -> str:
    cfg, options = small_run(name, place, [2])
    path = write_config(cfg, folder / f"{name.replace('-', '_')}_{place}.py")
    with pytest.raises(ValueError, match="Iteration 2: ") as raised:
        train(path, options, work_dir=str(folder / "run"), amp=amp)
    return str(raised.value)


EXPECTED: dict[str, Callable[[str], str]] = {
    "pixel": lambda _: "1 numbers, the first in channel 1 at y=3, x=5",
    "file": lambda _: "the first in channel 0 at y=0, x=0",
    "weight": lambda weight: f"1 weights hold it: {weight}",
    "loss": lambda _: "Losses that are not finite: ",
    "gradient": lambda weight: f"1 parameters have gradients that are not finite: {weight}",
}


def check_message(name: str, place: str, folder: Path, *, amp: bool) -> None:
    message = message_of_run(name, place, folder, amp=amp)
    weight = weight_of(MODELS.build(load_config(name).model))[0]
    assert EXPECTED[place](weight) in message, message
    assert f"Precision {'bfloat16' if amp else 'float32'}, learning rate " in message
    assert "gradient norm" in message
    if place in ("pixel", "file", "weight"):
        assert "First layer whose output is not finite: backbone" in message
        found, lines = replay_step(folder / "run/non_finite_iter_2.pth")
        assert found
        assert EXPECTED[place](weight) in "\n".join(lines)
    assert not list((folder / "run").glob("iter_*.pth"))


@pytest.mark.parametrize(
    ("name", "place", "amp"),
    [
        ("mask2former_r18_shapes_debug", "pixel", False),
        ("segvit_tiny_shapes_debug", "weight", True),
        ("segnext_mscan_tiny_shapes_debug", "loss", False),
        ("detr-tiny_r18_shapes_debug", "gradient", True),
    ],
)
def test_guard__names_the_place(name: str, place: str, amp: bool, tmp_path: Path) -> None:
    check_message(name, place, tmp_path, amp=amp)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("place", EXPECTED)
@pytest.mark.parametrize("name", METHODS)
def test_guard__names_the_place_in_every_method(name: str, place: str, amp: bool, tmp_path: Path) -> None:
    check_message(name, place, tmp_path, amp=amp)


@pytest.fixture
def files(tmp_path: Path) -> Config:
    write_dataset(tmp_path / "data", count=2)
    cfg = tiny_config(tmp_path / "data", max_iters=6)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.preflight, cfg.report = False, False
    cfg.custom_hooks = []
    return cfg


def test_guard__names_the_image_files(files: Config, tmp_path: Path) -> None:
    files.custom_hooks = [dict(type="PlantNaN", place="pixel", iterations=[3])]
    with pytest.raises(ValueError, match=r"Iteration 3: the loss is not finite \(nan\)") as raised:
        train(write_config(files, tmp_path / "files.py"), work_dir=str(tmp_path / "run"))
    assert f"Images: {tmp_path}/data/images/00" in str(raised.value)
    assert "First layer whose output is not finite: backbone.conv1 (Conv2d, float32)" in str(raised.value)
    assert "its input is not finite" in str(raised.value)
    assert sorted(path.name for path in (tmp_path / "run").glob("iter_*.pth")) == ["iter_2.pth"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("loss", "decode.loss_spoilt = nan"),
        ("gradient", "First gradient on the way back that is not finite: that of the output of "),
    ],
)
def test_replay__repeats_the_fault_of_a_part(files: Config, tmp_path: Path, place: str, message: str) -> None:
    files.model.decode_head.loss_decode = dict(type=SpoiltLoss.__name__, place=place)
    with pytest.raises(ValueError, match=r"Iteration 1: ") as raised:
        train(write_config(files, tmp_path / f"{place}.py"), work_dir=str(tmp_path / "run"))
    assert message in str(raised.value)
    found, lines = replay_step(tmp_path / "run/non_finite_iter_1.pth")
    assert found
    assert message in "\n".join(lines)


@pytest.mark.parametrize("place", ["pixel", "gradient"])
def test_guard__skips_steps(files: Config, tmp_path: Path, place: str) -> None:
    guard = dict(type="mmseg_m2f.NonFiniteGuard", policy="skip", max_skips=1)
    iterations = [6] if place == "gradient" else [4]  # the hook at a weight stays
    files.custom_hooks = [dict(type="PlantNaN", place=place, iterations=iterations), guard]
    runner = train(write_config(files, tmp_path / f"skip_{place}.py"), work_dir=str(tmp_path / "run"))
    assert runner.message_hub.get_info("skipped_steps") == 1
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


def test_guard__skips_no_more_than_allowed(files: Config, tmp_path: Path) -> None:
    guard = dict(type="mmseg_m2f.NonFiniteGuard", policy="skip", max_skips=2)
    files.custom_hooks = [dict(type="PlantNaN", place="pixel", iterations=[2, 3, 4]), guard]
    with pytest.raises(ValueError, match="Iteration 4: "):
        train(write_config(files, tmp_path / "bounded.py"), work_dir=str(tmp_path / "run"))


def test_guard__counts_over_resumptions(files: Config, tmp_path: Path) -> None:
    guard = dict(type="mmseg_m2f.NonFiniteGuard", policy="skip", max_skips=2)
    files.custom_hooks = [dict(type="PlantNaN", place="pixel", iterations=[1, 3, 5]), guard]
    config, options = write_config(files, tmp_path / "counted.py"), dict(work_dir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="Iteration 5: "):
        train(config, **options)
    with pytest.raises(ValueError, match="Iteration 5: "):
        train(config, resume=True, **options)


def test_guard__skips_a_batch_that_the_matching_refuses(tmp_path: Path) -> None:
    cfg, options = small_run("mask2former_r18_shapes_debug", "pixel", [2], policy="skip")
    runner = train(write_config(cfg, tmp_path / "matching.py"), options, work_dir=str(tmp_path / "run"))
    assert runner.message_hub.get_info("skipped_steps") == 1


class Scaler:
    """Stands for torch's, which needs a GPU."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def is_enabled(self) -> bool:
        return True

    def get_scale(self) -> float:
        return self.scale


@pytest.mark.parametrize(("scale", "leaves"), [(8.0, True), (1.0, False)])
def test_guard__leaves_overflows_to_the_loss_scale(files: Config, tmp_path: Path, scale: float, leaves: bool) -> None:
    guard = dict(type="mmseg_m2f.NonFiniteGuard", policy="lower_loss_scale")
    files.custom_hooks = [dict(type="PlantNaN", place="gradient", iterations=[6]), guard]

    class GiveScaler(Hook):
        priority = "VERY_HIGH"

        def before_train(self, runner: Runner) -> None:
            runner.optim_wrapper.loss_scaler = Scaler(scale)

    expected = nullcontext() if leaves else pytest.raises(ValueError, match=r"Iteration 6: a gradient is not finite")
    with expected:
        train(
            write_config(files, tmp_path / f"scale_{leaves}.py"),
            {"default_hooks.checkpoint": None},
            work_dir=str(tmp_path / "run"),
            hooks=[GiveScaler()],
        )


def test_guard__refuses_what_it_cannot_do(files: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="policy is 'ignore'; expected one of raise, skip"):
        NonFiniteGuard(policy="ignore")
    files.custom_hooks = [dict(type="mmseg_m2f.NonFiniteGuard", policy="lower_loss_scale")]
    with pytest.raises(ValueError, match="OptimWrapper does not scale the loss; expected AmpOptimWrapper"):
        train(write_config(files, tmp_path / "unscaled.py"), work_dir=str(tmp_path / "run"))
