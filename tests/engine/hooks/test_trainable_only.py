"""A run with LoRA: small checkpoints, which need the weights that the run started from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine.launch import train
from mmseg_m2f.engine.trained_model import load_trained
from mmseg_m2f.inference import Predictor
from mmseg_m2f.layers.lora import LoRALinear
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

BACKBONE = dict(
    type="mmseg_m2f.TimmPlainViT",
    model_name="vit_tiny_patch16_224",
    img_size=(32, 48),
    patch_size=8,
    lora=dict(rank=2),
    model_options=dict(embed_dim=16, depth=2, num_heads=2),
)
SMALL = dict(channels=16, num_heads=2, feedforward_channels=16)
HEAD = dict(
    type="mmseg_m2f.MaskHead",
    num_classes=2,
    pixel_decoder=dict(type="mmseg_m2f.FPNPixelDecoder", channels=16, norm_groups=4),
    query_decoder=dict(type="mmseg_m2f.MaskedAttentionDecoder", num_queries=4, num_layers=1, **SMALL),
    criterion=dict(
        type="mmseg_m2f.MaskCriterion",
        assigner=dict(type="mmseg_m2f.HungarianAssigner", match_costs=[dict(type="mmseg_m2f.ClassCost", weight=2.0)]),
        loss_cls=dict(type="mmseg_m2f.ClassLoss", loss_weight=2.0),
        loss_mask=dict(type="mmseg_m2f.MaskBCELoss", loss_weight=5.0),
        sampling=dict(type="mmseg_m2f.PointSampling", num_points=64),
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, initial weights of the backbone, and a run of four iterations that resumed after two."""
    folder = tmp_path_factory.mktemp("lora")
    write_dataset(folder / "data")
    for number in range(2):
        vit = build_vit(seed=number)
        torch.save(vit.state_dict(), folder / f"start{number}.pth")
    file = write_config(config(folder), folder / "lora.py")
    train(file, work_dir=str(folder / "run"), options={"max_iters": 2})
    train(file, work_dir=str(folder / "run"), resume=True)
    return folder


def build_vit(seed: int) -> torch.nn.Module:
    import timm

    torch.manual_seed(seed)
    return timm.create_model(
        BACKBONE["model_name"], num_classes=0, img_size=(32, 48), patch_size=8, **BACKBONE["model_options"]
    )


def config(folder: Path, start: int = 0) -> Config:
    cfg = tiny_config(folder / "data", max_iters=4)
    backbone = dict(BACKBONE, checkpoint_path=str(folder / f"start{start}.pth"))
    neck = dict(type="mmseg_m2f.SimplePyramid", in_channels=16, channels=16, scales=(2, 1, 0.5))
    preprocessor = cfg.model.data_preprocessor
    model = dict(type="mmseg_m2f.MaskSegmentor", data_preprocessor=preprocessor, backbone=backbone, neck=neck)
    cfg.model = ConfigDict(model, decode_head=HEAD)
    cfg.custom_hooks = [dict(type="mmseg_m2f.TrainableOnly")]
    cfg.report = False
    return cfg


def test_trainable_only__the_file_has_no_frozen_weights(folder):
    weights = check_checkpoint(folder / "run/iter_4.pth")["state_dict"]
    names = {name for name in weights if name.startswith("backbone.")}
    assert len(names) == 2 * 2 * 3
    assert all("lora_" in name for name in names)
    assert any(weights[name].any() for name in names if name.endswith("lora_up"))


def test_trainable_only__predicts_with_changes_merged_into_the_weights_it_started_from(folder):
    cfg = config(folder)
    predictor = Predictor(cfg, folder / "run/iter_4.pth")
    model = predictor.model
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    start, stored = torch.load(folder / "start0.pth"), check_checkpoint(folder / "run/iter_4.pth")["state_dict"]
    assert torch.equal(model.backbone.vit.pos_embed, start["pos_embed"])
    name = "blocks.1.attn.qkv"
    down, up = (stored[f"backbone.vit.{name}.lora_{part}"] for part in ("down", "up"))
    torch.testing.assert_close(model.backbone.vit.get_submodule(name).weight, start[f"{name}.weight"] + up @ down)
    assert np.isin(predictor(folder / "data/images/000.png").semantic, (0, 1)).all()


def test_trainable_only__other_initial_weights_are_refused(folder):
    with pytest.raises(
        ValueError, match="holds trained weights alone.*Keep the weights that the training started from"
    ):
        load_trained(config(folder, start=1), folder / "run/iter_4.pth")


def test_trainable_only__random_initial_weights_are_refused(folder):
    cfg = config(folder)
    cfg.model.backbone.checkpoint_path = None
    torch.manual_seed(7)  # the file was written with the seed of every test
    with pytest.raises(ValueError, match="got one with other values in"):
        load_trained(cfg, folder / "run/iter_4.pth")


def test_trainable_only__a_merged_config_describes_the_merged_model(folder):
    cfg = config(folder)
    load_trained(cfg, folder / "run/iter_4.pth")
    assert "lora" not in cfg.model.backbone


def test_trainable_only__models_of_other_libraries_are_refused(folder):
    cfg = tiny_config(folder / "data", max_iters=1)
    cfg.custom_hooks = [dict(type="mmseg_m2f.TrainableOnly")]
    cfg.report = False
    with pytest.raises(TypeError, match="expected MaskSegmentor or MaskDetector as model, got EncoderDecoder"):
        train(write_config(cfg, folder / "other.py"), work_dir=str(folder / "other"))
