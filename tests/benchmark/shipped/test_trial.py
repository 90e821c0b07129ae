import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmseg_m2f.benchmark.shipped import trial
from mmseg_m2f.benchmark.shipped.outcomes import import_libraries
from mmseg_m2f.benchmark.shipped.processes import Limits, StageResult
from mmseg_m2f.benchmark.shipped.trial import (
    STAGES,
    build_model,
    drop_fixed_sizes,
    shorten_work,
    sides_of,
    try_building,
    try_config,
)

TINY = """
default_scope = "mmseg"
norm = dict(type="SyncBN")
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", size=(512, 512)),
    backbone=dict(type="FastSCNN", downsample_dw_channels=(4, 4), global_in_channels=4, global_block_channels=(4, 4, 4),
                  global_block_strides=(2, 2, 1), global_out_channels=4, higher_in_channels=4, lower_in_channels=4,
                  fusion_out_channels=4, norm_cfg=norm),
    decode_head=dict(type="FCNHead", in_channels=4, channels=4, num_classes=HEADS, in_index=-1, norm_cfg=norm),
    train_cfg=dict(), test_cfg=dict(mode="whole"),
)
"""


@pytest.fixture(scope="module", autouse=True)
def libraries():
    import_libraries()


def write(folder, text):
    file = folder / "config.py"
    file.write_text(text)
    return file


def test_try_config__a_working_model_passes_all_stages(tmp_path):
    file = write(tmp_path, TINY.replace("HEADS", "3"))
    assert try_config(file, tmp_path / "log", Limits()) == dict.fromkeys(STAGES, StageResult())


def test_try_config__says_why_a_model_is_not_built_or_not_trained(tmp_path):
    outcome = try_config(write(tmp_path, "default_scope = 'mmseg'"), tmp_path / "log", Limits())
    assert outcome["build"].reason == (
        "mmseg_m2f.errors.InvalidValueError: expected a model, got a config without one: an ingredient of others."
    )
    wrong = (
        TINY.replace("HEADS", "3") + "\nmodel['decode_head']['loss_decode'] = dict(type='DiceLoss', loss_weight='x')\n"
    )
    outcome = try_config(write(tmp_path, wrong), tmp_path / "log", Limits(sides=(64,)))
    assert outcome["build"] == outcome["predict"] == StageResult()
    assert outcome["step"].reason.startswith("TypeError:")


def test_without_random_numbers__layers_draw_none():
    before = torch.get_rng_state()
    with trial._WithoutRandomNumbers():
        layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(2, 2), nn.Embedding(2, 2), nn.MultiheadAttention(4, 2))
        nn.init.trunc_normal_(layers[0].weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert layers[0].weight.shape == (4, 3, 1, 1)


def test_try_building__counts_weights_and_says_why_not(tmp_path):
    file = write(tmp_path, TINY.replace("HEADS", "3"))
    result, weights = try_building(file, tmp_path / "log", Limits())
    assert result == StageResult()
    assert weights == sum(parameter.numel() for parameter in build_model(Config.fromfile(file)).parameters())
    result, weights = try_building(
        write(tmp_path, TINY.replace("FCNHead", "Nowhere").replace("HEADS", "3")), tmp_path / "log", Limits()
    )
    assert "Nowhere is not in the" in result.reason
    assert weights == 0


def test_build_model__downloads_nothing(tmp_path):
    cfg = Config.fromstring(TINY.replace("HEADS", "3"), ".py")
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint="https://example.org/none.pth")
    model = build_model(cfg)
    model.init_weights()
    assert cfg.model.data_preprocessor.size_divisor == 32


def test_drop_fixed_sizes__leaves_other_settings():
    preprocessor = dict(type="A", size=(4, 4), pad_val=0, batch_augments=[dict(type="B")])
    drop_fixed_sizes(preprocessor)
    assert preprocessor == dict(type="A", size_divisor=32, pad_val=0, batch_augments=None)


def test_sides_of__of_the_limits_and_the_own_one():
    limits = Limits(sides=(64, 512))
    assert sides_of(Config(dict(crop_size=(480, 480))), limits) == [64, 480, 512]
    assert sides_of(Config(dict(input_size=300)), limits) == [64, 300, 512]
    assert sides_of(Config(dict(crop_size=(640, 640))), limits) == [64, 512]
    assert sides_of(Config(dict(crop_size=(512, 1024))), limits) == [64, 512]
    assert sides_of(Config(dict()), limits) == [64, 512]


def test_build_model__mmcv_sync_bn_becomes_bn_and_leaves_no_process_group():
    model = build_model(Config.fromstring(TINY.replace("HEADS", "3").replace("SyncBN", "MMSyncBN"), ".py"))
    assert not torch.distributed.is_initialized()
    names = {type(layer).__name__ for layer in model.modules()}
    assert "_BatchNormXd" in names
    assert "SyncBatchNorm" not in names


def test_shorten_work__at_any_depth_and_never_more():
    model = dict(train_cfg=[dict(sampler=dict(num=512), nms_pre=10)], test_cfg=dict(max_per_img=1000, num="all"))
    model["text_encoder"] = dict(templates="vild")
    shorten_work(model)
    assert model.pop("text_encoder") == dict(templates=["a photo of a {}."])
    assert model == dict(train_cfg=[dict(sampler=dict(num=32), nms_pre=10)], test_cfg=dict(max_per_img=100, num="all"))
