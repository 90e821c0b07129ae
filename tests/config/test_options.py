"""Options and dotted keys of the command line."""

import pytest

from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.options import OPTIONS
from tests.command_line import ROOT

SEMANTIC = ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py"
OBJECTS = ROOT / "configs/mask2former/mask2former_r50_coco-instance-1024_50e.py"


@pytest.mark.parametrize("path", [SEMANTIC, OBJECTS], ids=["semantic", "objects"])
def test_apply_options__quantities(path) -> None:
    length = load_config(path).train_cfg.max_iters
    cfg = load_config(path, dict(num_queries=50, batch_size=3, lr=2e-4, max_iters=length // 10, crop_size=256))
    assert cfg.model.decode_head.query_decoder.num_queries == 50
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (3, 2e-4)
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == length // 10
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 500
    assert cfg.crop_size == (256, 256)
    assert load_config(path, dict(val_interval=77)).train_cfg.val_interval == 77


def test_apply_options__length_of_the_loop_alone_scales_schedules_and_says_so() -> None:
    with pytest.warns(UserWarning, match=r"--cfg-options train_cfg.max_iters=40000 also scales the schedules"):
        cfg = load_config(SEMANTIC, {"train_cfg.max_iters": 40000})
    assert (cfg.param_scheduler[0].end, cfg.max_iters, cfg.train_cfg.val_interval) == (40000, 40000, 5000)


def test_apply_options__dotted_keys_win_or_contradict() -> None:
    cfg = load_config(SEMANTIC, {"max_iters": 1600, "train_cfg.val_interval": 9})
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (1600, 9)
    with pytest.raises(ValueError, match=r"--cfg-options: num_queries=5 and a setting beside it, which makes it 6"):
        load_config(SEMANTIC, {"num_queries": 5, "model.decode_head.query_decoder.num_queries": 6})


def test_apply_options__variables_follow_dotted_keys() -> None:
    cfg = load_config(SEMANTIC, {"model.decode_head.num_classes": 7})
    assert cfg.num_classes == 7


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("num_querys", "nothing reads 'num_querys'. Nearest: num_queries"),
        ("train_pipeline.0.type", "'train_pipeline' is a variable that files read while they are loaded"),
        ("backbone.depth", "'backbone' is an option and has no parts. Set model.backbone.depth"),
        ("data_preprocessor.mean", "nothing reads this key. Set model.data_preprocessor.mean"),
        ("train_pipeline", "'train_pipeline' is a variable that files read"),
    ],
)
def test_apply_options__keys_that_nothing_reads(key: str, message: str) -> None:
    with pytest.raises(KeyError) as raised:
        load_config(SEMANTIC, {key: 18})
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["num_classes", "batch_size", "max_iters", "val_interval", "lr", "num_queries"])
def test_apply_options__refuses_nonsense(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}=-1: expected"):
        load_config(SEMANTIC, {name: -1})


def test_apply_options__data_is_an_ingredient() -> None:
    assert next(iter(OPTIONS)) == "data"  # what is replaced whole comes first
    with pytest.raises(ValueError, match="data={'train': 1}: expected the name of an ingredient"):
        load_config(SEMANTIC, {"data": {"train": 1}})
