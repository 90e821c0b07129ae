import importlib
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from mmseg_m2f.benchmark.heads.budget import Budget, apply_budget
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.load import load_config
from tests.command_line import ROOT


def small_config(**changes: object) -> Config:
    crop = dict(type="RandomCrop", crop_size=(512, 512))
    return Config(
        dict(
            model=dict(
                type="EncoderDecoder",
                pretrained="open-mmlab://resnet50_v1c",
                data_preprocessor=dict(type="SegDataPreProcessor", size=(512, 512)),
                backbone=dict(type="ResNet", init_cfg=dict(type="Pretrained", checkpoint="x.pth")),
                decode_head=dict(num_classes=150, loss_cls=dict(class_weight=[1.0] * 150 + [0.1])),
                auxiliary_head=[dict(num_classes=150)],
            ),
            train_dataloader=dict(dataset=dict(dataset=dict(pipeline=[dict(type="Resize"), crop]))),
            val_dataloader=dict(dataset=dict(pipeline=[dict(crop)])),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=1000, val_interval=100),
            default_hooks=dict(
                timer=dict(type="IterTimerHook"), checkpoint=dict(type="CheckpointHook", save_best="mIoU")
            ),
        )
        | changes
    )


def schedules(budget: int, train_cfg: dict, *given: dict) -> list[dict]:
    cfg = small_config(train_cfg=train_cfg, param_scheduler=list(given))
    apply_budget(cfg, Budget(budget), seed=0)
    return [schedule.to_dict() if isinstance(schedule, ConfigDict) else schedule for schedule in cfg.param_scheduler]


def test_budget__iterations_validations_and_checkpoints():
    cfg = small_config()
    apply_budget(cfg, Budget(90, validations=4), seed=3)
    assert cfg.train_cfg == dict(type="mmengine.IterBasedTrainLoop", max_iters=90, val_interval=23)
    assert cfg.default_hooks.checkpoint.interval == 23
    assert "save_best" not in cfg.default_hooks.checkpoint
    assert cfg.default_hooks.timer.type == "IterTimerHook"
    assert cfg.randomness == dict(seed=3)
    assert cfg.custom_hooks == []  # the launcher adds the report


def test_budget__schedule_of_iterations_is_compressed():
    iterations = dict(type="IterBasedTrainLoop", max_iters=1000)
    warm_up = dict(type="LinearLR", start_factor=0.1, begin=0, end=100, by_epoch=False)
    decay = dict(type="PolyLR", power=0.9, begin=100, end=1000, by_epoch=False)
    found = schedules(50, iterations, warm_up, decay)
    assert found == [dict(warm_up, end=5), dict(decay, begin=5, end=50)]
    assert schedules(4, iterations, warm_up, decay) == [dict(decay, begin=0, end=4)]  # nothing is left to warm up


def test_budget__schedule_of_epochs_becomes_one_of_iterations():
    epochs = dict(type="EpochBasedTrainLoop", max_epochs=12)
    warm_up = dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500)
    steps = dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)
    cosine = dict(type="CosineAnnealingLR", T_max=6, begin=6, end=12, convert_to_iter_based=True)
    assert schedules(1200, epochs, warm_up, steps, cosine) == [
        dict(warm_up, end=120),
        dict(steps, by_epoch=False, end=1200, milestones=[800, 1100]),
        dict(type="CosineAnnealingLR", T_max=600, begin=600, end=1200, by_epoch=False),
    ]
    assert schedules(12000, epochs, warm_up)[0]["end"] == 500


def test_budget__crop_reaches_training_and_padding():
    cfg = small_config()
    apply_budget(cfg, Budget(10, crop=(64, 96)), seed=0)
    assert cfg.train_dataloader.dataset.dataset.pipeline[1].crop_size == (64, 96)
    assert cfg.val_dataloader.dataset.pipeline[0].crop_size == (512, 512)
    assert cfg.model.data_preprocessor.size == (64, 96)


def test_budget__crop_without_anything_to_crop():
    cfg = small_config(train_dataloader=dict(dataset=dict(pipeline=[])))
    with pytest.raises(ValueError, match=r"crop_size=\(64, 96\): expected a RandomCrop.* Leave the option"):
        apply_budget(cfg, Budget(10, crop=(64, 96)), seed=0)


def test_budget__other_data():
    cfg = small_config()
    apply_budget(cfg, Budget(10, crop=(64, 96), data="shapes", from_scratch=True), seed=0)
    shapes = Config.fromfile(ROOT / "configs/_base_/datasets/shapes.py")
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type == "mmseg_m2f.GeneratedShapes"
        assert loader.dataset.image_size == (64, 96)
    assert cfg.train_dataloader.batch_size == shapes.train_dataloader.batch_size
    assert cfg.test_evaluator == shapes.test_evaluator
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head[0].num_classes == 8
    assert cfg.model.decode_head.loss_cls.class_weight == [1.0] * 8 + [0.1]
    assert cfg.model.pretrained is None
    assert "init_cfg" not in cfg.model.backbone


def test_budget__options_reach_other_data():
    cfg = small_config(data_root="data/before")
    options = {"data_root": "/elsewhere", "train_dataloader.batch_size": 3}
    apply_budget(cfg, Budget(10, data="camvid_96x128", options=options), seed=0)
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    assert {loader.dataset.data_root for loader in loaders} == {"/elsewhere"}
    assert cfg.train_dataloader.batch_size == 3


def test_budget__unknown_data():
    with pytest.raises(ValueError, match=r"data=shape: expected the name of a file .* Nearest: shapes"):
        apply_budget(small_config(), Budget(10, data="shape"), seed=0)


def test_budget__data_for_models_that_count_things():
    model = dict(panoptic_head=dict(num_things_classes=80, num_stuff_classes=53), bbox_head=dict(num_classes=80))
    cfg = small_config(model=model)
    apply_budget(cfg, Budget(10, data="coco_panoptic_640"), seed=0)
    assert cfg.model.panoptic_head == dict(num_things_classes=80, num_stuff_classes=53)
    apply_budget(cfg, Budget(10, data="shapes_panoptic"), seed=0)
    assert cfg.model.panoptic_head == dict(num_things_classes=5, num_stuff_classes=3)
    assert cfg.model.bbox_head.num_classes == 5


def test_budget__things_of_other_data():
    cfg = load_config(ROOT / "configs/eomt/eomt_tiny_shapes-panoptic_demo.py")
    assert cfg.model.thing_classes == [3, 4, 5, 6, 7]
    apply_budget(cfg, Budget(10, data="shapes_instance"), seed=0)
    assert cfg.model.thing_classes == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        (
            "eomt/eomt_tiny_shapes-panoptic_demo",
            "camvid_96x128",
            "MaskDetector learns from objects; expected .*PackDet",
        ),
        ("mask2former/mask2former_r18_shapes_demo", "shapes_panoptic", "MaskSegmentor learns from label maps; .*PackS"),
    ],
)
def test_budget__data_for_another_kind_of_model(config, data, message):
    with pytest.raises(ValueError, match=rf"data={data}: the model mmseg_m2f\.{message}.* Choose data like"):
        apply_budget(load_config(ROOT / f"configs/{config}.py"), Budget(10, data=data), seed=0)


def test_budget__two_stage_warm_up_is_scaled():
    cfg = load_config(ROOT / "configs/eomt/eomt_dinov2_vit_l_coco-panoptic-640_12e.py")
    length = cfg.train_cfg.max_iters
    apply_budget(cfg, Budget(length // 10), seed=0)
    assert warm_up_of(cfg) == (50, 100)
    apply_budget(cfg, Budget(20), seed=0)
    assert warm_up_of(cfg) == (1, 1)  # a stage without an iteration cannot be


def test_budget__two_stage_warm_up_of_epochs():
    epochs = dict(type="EpochBasedTrainLoop", max_epochs=12)
    cfg = small_config(train_cfg=epochs, custom_hooks=[dict(type="mmseg_m2f.TwoStageWarmup", head_iters=1000)])
    apply_budget(cfg, Budget(400), seed=0)
    assert warm_up_of(cfg) == (20, 20)


def warm_up_of(cfg: Config) -> tuple[int, int]:
    (hook,) = [hook for hook in cfg.custom_hooks if hook["type"] == "mmseg_m2f.TwoStageWarmup"]
    return hook["head_iters"], hook["backbone_iters"]


@pytest.mark.parametrize(
    "wrong", [dict(iterations=0), dict(iterations=1, validations=0), dict(iterations=1, crop=(0, 9))]
)
def test_budget__refuses(wrong):
    with pytest.raises(ValueError, match="expected"):
        Budget(**wrong)


@pytest.mark.parametrize(
    ("library", "config", "schedules"),
    [
        ("mmseg", "sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512", [(0, 100)]),
        ("mmdet", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco", [(0, 10), (0, 100)]),
    ],
)
def test_budget__configs_of_other_libraries(library, config, schedules):
    folder = Path(importlib.import_module(library).__file__).parent
    cfg = load_config(folder / f".mim/configs/{config}.py")
    apply_budget(cfg, Budget(100), seed=0)
    check_config(cfg)
    assert cfg.train_cfg.max_iters == 100
    assert [(schedule["begin"], schedule["end"]) for schedule in cfg.param_scheduler] == schedules
