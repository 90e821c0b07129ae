"""A dataset of a few image files and a small per-pixel segmentor, for tests that run the whole machinery."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

CLASSES = ("dark", "bright")
PALETTE = [[20, 20, 120], [240, 200, 40]]


def write_dataset(root: Path, *, count: int = 4, size: tuple[int, int] = (32, 48)) -> None:
    """`images/NNN.png` with a bright rectangle, and `labels/NNN.png` saying where it is."""
    generator = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        label = np.zeros(size, dtype=np.uint8)
        y, x = generator.integers(0, [size[0] // 2, size[1] // 2])
        label[y : y + size[0] // 2, x : x + size[1] // 2] = 1
        image = np.where(label[..., None] == 1, 200, 40) + generator.integers(0, 40, (*size, 3))
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{index:03}.png")
        Image.fromarray(label).save(root / "labels" / f"{index:03}.png")


def tiny_config(root: Path, *, max_iters: int = 4, num_classes: int = 2) -> Config:
    """Trains for `max_iters` iterations on the dataset below `root`, with a checkpoint every two."""
    image = dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmengine.LoadImageFromFile")])
    label = dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmseg.LoadAnnotations")])
    pack = dict(type="mmseg.PackSegInputs")
    norm = dict(type="BN", requires_grad=True)
    dataset = dict(
        type="mmseg.BaseSegDataset",
        data_root=str(root),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        img_suffix=".png",
        metainfo=dict(classes=CLASSES, palette=PALETTE),
        pipeline=[image, label, pack],
    )
    flips = [dict(type="mmengine.RandomFlip", prob=p) for p in (0.0, 1.0)]
    evaluation = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type="mmengine.DefaultSampler", shuffle=False),
        dataset=dict(dataset, test_mode=True),
    )
    evaluator = dict(type="mmseg_m2f.SemanticIoU")
    return Config(
        dict(
            model=dict(
                type="mmseg.EncoderDecoder",
                data_preprocessor=dict(
                    type="mmseg.SegDataPreProcessor",
                    mean=[120.0] * 3,
                    std=[60.0] * 3,
                    size=(32, 48),
                    test_cfg=dict(size_divisor=16),
                ),
                backbone=dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=norm),
                decode_head=dict(
                    type="mmseg.FCNHead",
                    in_channels=64,
                    channels=8,
                    num_convs=1,
                    concat_input=False,
                    dropout_ratio=0.0,
                    num_classes=num_classes,
                    norm_cfg=norm,
                    loss_decode=dict(type="mmseg.CrossEntropyLoss"),
                ),
                train_cfg=dict(),
                test_cfg=dict(mode="whole"),
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type="mmengine.InfiniteSampler", shuffle=True),
                dataset=dataset,
            ),
            val_dataloader=evaluation,
            test_dataloader=evaluation,
            val_evaluator=evaluator,
            test_evaluator=evaluator,
            train_cfg=dict(type="mmengine.IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters),
            val_cfg=dict(type="mmengine.ValLoop"),
            test_cfg=dict(type="mmengine.TestLoop"),
            optim_wrapper=dict(
                type="mmengine.OptimWrapper",
                optimizer=dict(type="mmengine.AdamW", lr=0.01),
                clip_grad=dict(max_norm=1.0, norm_type=2),
            ),
            param_scheduler=[
                dict(type="mmengine.PolyLR", eta_min=0.0, power=0.9, begin=0, end=max_iters, by_epoch=False)
            ],
            default_hooks=dict(
                checkpoint=dict(
                    type="mmengine.CheckpointHook",
                    by_epoch=False,
                    interval=2,
                    backend_args=dict(backend="mmseg_m2f.atomic"),
                ),
                logger=dict(type="mmengine.LoggerHook", interval=1, log_metric_by_epoch=False),
            ),
            custom_hooks=[dict(type="mmseg_m2f.Preflight")],
            log_processor=dict(by_epoch=False),
            visualizer=dict(type="mmengine.Visualizer", vis_backends=[dict(type="mmengine.LocalVisBackend")]),
            randomness=dict(seed=0),
            tta_pipeline=[image, dict(type="mmengine.TestTimeAug", transforms=[flips, [label], [pack]])],
        )
    )


def write_config(cfg: Config, path: Path) -> str:
    """The config as a file, as the tools take it."""
    cfg.dump(path)
    return str(path)
