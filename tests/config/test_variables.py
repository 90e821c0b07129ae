"""Options at the top of a config; variables and keys that nothing reads."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.schedules import check_schedule
from tests.command_line import ROOT

SEMANTIC = ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py"
OBJECTS = ROOT / "configs/mask2former/mask2former_r50_coco-instance-1024_50e.py"

Leaf = Callable[..., Path]


@pytest.fixture
def leaf(tmp_path: Path) -> Leaf:
    """Write a config that is based on another one."""

    def write(text: str, base: Path = SEMANTIC, name: str = "mine") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(f"_base_ = {str(base)!r}\n{text}\n")
        return path

    return write


def test_variables__max_iters_reaches_schedule_and_intervals(leaf: Leaf) -> None:
    cfg = load_config(leaf("max_iters = 40000"))
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval, cfg.param_scheduler[0].end) == (40000, 1250, 40000)
    assert (cfg.default_hooks.checkpoint.interval, cfg.max_iters) == (1250, 40000)


def test_variables__settings_beside_an_option_win(leaf: Leaf) -> None:
    cfg = load_config(leaf("max_iters = 40000\ntrain_cfg = dict(val_interval=4000)"))
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval, cfg.param_scheduler[0].end) == (40000, 4000, 40000)
    with pytest.raises(ValueError, match=r"lr=0.001 and a setting beside it, which makes it 0.01, contradict"):
        load_config(leaf("lr = 0.001\noptim_wrapper = dict(optimizer=dict(lr=0.01))"))


def test_variables__of_a_config_between_count_and_the_upper_one_wins(leaf: Leaf) -> None:
    between = leaf("num_queries = 50\nlr = 1e-3", name="between")
    cfg = load_config(leaf("lr = 2e-3", base=between))
    assert cfg.model.decode_head.query_decoder.num_queries == 50
    assert cfg.optim_wrapper.optimizer.lr == 2e-3
    upper = leaf("model = dict(decode_head=dict(query_decoder=dict(num_queries=60)))", base=between)
    with pytest.raises(ValueError, match="num_queries=50 and a setting beside it, which makes it 60"):
        load_config(upper)


def test_variables__the_command_line_wins(leaf: Leaf) -> None:
    assert load_config(leaf("lr = 1e-3"), {"lr": 2e-3}).optim_wrapper.optimizer.lr == 2e-3
    assert load_config(leaf("lr = 1e-3"), {"optim_wrapper.optimizer.lr": 3e-3}).optim_wrapper.optimizer.lr == 3e-3


def test_variables__num_classes_and_classes_reach_head_and_data(leaf: Leaf) -> None:
    cfg = load_config(leaf("classes = ('wall', 'sky', 'tree')"))
    assert cfg.model.decode_head.num_classes == cfg.num_classes == 3
    assert cfg.train_dataloader.dataset.metainfo.classes == cfg.val_dataloader.dataset.metainfo.classes
    cfg = load_config(leaf("num_classes = 7", base=OBJECTS))
    assert (cfg.model.decode_head.num_classes, cfg.model.thing_classes) == (7, list(range(7)))
    with pytest.raises(ValueError, match=r"num_classes=7: .*\(ADE20KDataset\) has 150 classes of its own"):
        load_config(leaf("num_classes = 7"))


def test_variables__crop_size_of_objects_reaches_the_padded_batch(leaf: Leaf) -> None:
    cfg = load_config(leaf("crop_size = (144, 144)", base=OBJECTS))
    (pad,) = cfg.model.data_preprocessor.batch_augments
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert tuple(pad.size) == tuple(steps["mmdet.RandomCrop"].crop_size) == (144, 144)
    assert tuple(steps["mmengine.RandomResize"].scale) == (144, 144)


def test_variables__backbone_in_a_config_based_on_a_config(leaf: Leaf) -> None:
    weights = "init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')"
    cfg = load_config(leaf(f"backbone = dict(depth=101, {weights})"))
    assert (cfg.model.backbone.depth, cfg.model.backbone.norm_eval) == (101, True)
    assert cfg.model.backbone.init_cfg.checkpoint == "torchvision://resnet101"
    cfg = load_config(leaf("backbone = dict(_delete_=True, type='mmseg.ResNet', depth=34)"))
    assert dict(cfg.model.backbone) == dict(type="mmseg.ResNet", depth=34)
    assert load_config(leaf("backbone = 'swin_t'")).model.backbone.type == "mmseg.SwinTransformer"
    with pytest.warns(UserWarning, match="drops the arguments of the former type"):
        cfg = load_config(leaf("backbone = dict(type='mmseg.MobileNetV2')"))
    assert "depth" not in cfg.model.backbone


def test_variables__data_root(leaf: Leaf) -> None:
    base = ROOT / "configs/detr/detr_r50_coco-detection-800_150e.py"
    cfg = load_config(leaf("data_root = '/mine'", base=base))
    assert cfg.train_dataloader.dataset.data_root == cfg.test_dataloader.dataset.data_root == "/mine"
    assert cfg.val_evaluator.ann_file == "/mine/annotations/instances_val2017.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_querys = 50", "nothing reads the top-level variable 'num_querys'. Nearest: num_queries"),
        ("optimizer = dict(lr=1e-3)", "nothing reads the top-level variable 'optimizer'"),
        ("random_crop = dict(type='mmseg.RandomCrop')", "nothing reads the top-level variable 'random_crop'"),
    ],
)
def test_variables__nothing_reads(leaf: Leaf, text: str, message: str) -> None:
    with pytest.raises(KeyError) as raised:
        load_config(leaf(text))
    assert message in str(raised.value)


FOREIGN = """_base_ = "runtime.py"
model = dict(type="mmseg.EncoderDecoder", decode_head=dict(type="mmseg.FCNHead"))
num_querys = 50
nobody_reads_this = dict(a=1)
"""


def test_variables__nothing_reads_those_of_a_foreign_config(tmp_path: Path) -> None:
    path = tmp_path / "foreign.py"
    path.write_text(FOREIGN)
    (tmp_path / "runtime.py").write_text("log_level = 'INFO'")
    with pytest.warns(UserWarning, match=r"foreign.py: nothing reads .* num_querys, nobody_reads_this; they") as caught:
        assert load_config(path).num_querys == 50
    assert len(caught) == 1
    path.write_text(FOREIGN.replace("mmseg.FCNHead", "mmseg_m2f.MaskHead"))
    with pytest.raises(KeyError, match="'num_querys'. Nearest: num_queries"):
        load_config(path)


def test_variables__nothing_reads_those_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/base.py").write_text(FOREIGN)
    (tmp_path / "site/runtime.py").write_text("log_level = 'INFO'")
    (tmp_path / "mine.py").write_text(
        "_base_ = 'site/base.py'\nmodel = dict(decode_head=dict(type='mmseg_m2f.MaskHead'))"
    )
    with pytest.raises(KeyError, match="num_querys"):
        load_config(tmp_path / "mine.py")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "site"))
    with pytest.warns(UserWarning, match=r"mine.py: nothing reads .* num_querys, nobody_reads_this"):
        load_config(tmp_path / "mine.py")


def test_variables__a_test_pipeline_that_tests_do_not_use(leaf: Leaf) -> None:
    with pytest.raises(ValueError, match="test_pipeline is not the pipeline of test_dataloader.dataset, which is the"):
        load_config(leaf('test_pipeline = [dict(type="LoadImageFromFile")]'))
    with pytest.raises(KeyError, match="Set val_dataloader.dataset.pipeline.1.scale and test_dataloader.dataset"):
        load_config(SEMANTIC, {"test_pipeline.1.scale": (64, 64)})


def test_variables__pipelines_at_the_top_are_those_in_use(leaf: Leaf) -> None:
    for cfg in (load_config(leaf("crop_size = (64, 96)")), load_config(SEMANTIC, {"crop_size": (64, 96)})):
        assert [step.crop_size for step in cfg.train_pipeline if "crop_size" in step] == [(64, 96)]
        assert cfg.train_pipeline == cfg.train_dataloader.dataset.pipeline
        assert cfg.test_pipeline == cfg.test_dataloader.dataset.pipeline


def test_variables__helpers_are_read(leaf: Leaf) -> None:
    wide = "channels = 128\nwide = dict(channels=channels)\nmodel = dict(decode_head=dict(pixel_decoder=wide))"
    assert load_config(leaf(wide)).model.decode_head.pixel_decoder.channels == 128
    between = leaf("width = 64", name="between")
    upper = leaf("model = dict(decode_head=dict(pixel_decoder=dict(channels=_base_.width)))", base=between)
    assert load_config(upper).model.decode_head.pixel_decoder.channels == 64


def test_variables__read_by_the_config_itself_must_be_in_use(leaf: Leaf) -> None:
    half = "crop_size = (256, 256)\nmodel = dict(data_preprocessor=dict(size=crop_size))"
    with pytest.raises(ValueError, match=r"crop_size is \(256, 256\), but the value in use is \(512, 512\)"):
        load_config(leaf(half))
    whole = "num_queries = 50\nmodel = dict(decode_head=dict(query_decoder=dict(num_queries=num_queries)))"
    assert load_config(leaf(whole)).model.decode_head.query_decoder.num_queries == 50


def test_variables__a_dumped_config_is_taken_as_it_is(leaf: Leaf, tmp_path: Path) -> None:
    cfg = load_config(leaf("max_iters = 400\nnum_queries = 9"), {"train_dataloader.batch_size": 3})
    cfg.dump(tmp_path / "dumped.py")
    again = load_config(tmp_path / "dumped.py")
    assert again._cfg_dict.to_dict() == cfg._cfg_dict.to_dict()
    assert "train_pipeline" in again


def test_train_cfg__of_a_config_scales_the_schedule_and_says_so(leaf: Leaf) -> None:
    with pytest.warns(UserWarning, match="train_cfg.max_iters=40000 also scales the schedules .* from 160000"):
        cfg = load_config(leaf("train_cfg = dict(max_iters=40000)"))
    assert (cfg.param_scheduler[0].end, cfg.train_cfg.val_interval, cfg.max_iters) == (40000, 5000, 40000)


def test_train_cfg__with_a_schedule_of_its_own(leaf: Leaf) -> None:
    own = "train_cfg = dict(max_iters=40000)\nparam_scheduler = [dict(type='mmengine.PolyLR', end={}, by_epoch=False)]"
    check_schedule(load_config(leaf(own.format(40000))))
    with pytest.raises(ValueError, match="ends after 30000 iterations, before training, which takes 40000"):
        check_schedule(load_config(leaf(own.format(30000))))


def test_published_configs__set_no_option_and_keep_their_values() -> None:
    """What a config resolves to is what its files say: nothing is applied where nothing is set."""
    for path in (SEMANTIC, OBJECTS, ROOT / "configs/segvit/segvit-continual_tiny_shapes-first_demo.py"):
        cfg = load_config(path)
        cfg.pop("work_dir")
        assert cfg._cfg_dict.to_dict() == Config.fromfile(path)._cfg_dict.to_dict()
