"""What the command line may change in a config."""

from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.config.load import load_config
from tests.command_line import ROOT


def test_drop_initial_weights__nothing_is_fetched() -> None:
    cfg = load_config(ROOT / "configs/mask2former/mask2former_convnext_t_ade20k-512_160k.py")
    assert cfg.model.backbone.pretrained
    drop_initial_weights(cfg.model)
    assert cfg.model.backbone.pretrained is False
    cfg = load_config(ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py")
    assert "init_cfg" in cfg.model.backbone
    drop_initial_weights(cfg.model)
    assert "init_cfg" not in cfg.model.backbone
