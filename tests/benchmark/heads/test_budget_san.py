"""mmseg's own config of SAN, which asks for mmengine's mixed precision, trained and tested on a CPU by this package."""

from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmseg.utils import register_all_modules

from mmseg_m2f.benchmark.heads.budget import Budget, apply_budget
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine import Bfloat16OptimWrapper
from mmseg_m2f.engine.launch import evaluate, train

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]  # upstream warns of its own defaults

SAN = Path(mmseg.__file__).parent / ".mim/configs/san/san-vit-b16_coco-stuff164k-640x640.py"


def shrink(model: dict) -> None:
    """Keep the parts of the model, with few and narrow layers and the names of the eight generated classes."""
    narrow = dict(embed_dims=16, num_heads=2, mlp_ratio=1)
    model["image_encoder"].update(narrow, num_layers=3, out_indices=(0, 1, 2))
    names = [f"class {number}" for number in range(8)]
    model["text_encoder"].update(
        narrow, dataset_name=None, vocabulary=names, templates=["{}"], num_layers=1, output_dims=16
    )
    head = model["decode_head"]
    head["deep_supervision_idxs"] = [1]
    head["san_cfg"].update(clip_channels=16, embed_dims=16, num_queries=5)
    head["san_cfg"]["cfg_encoder"].update(num_encode_layer=3, num_heads=2, mlp_ratio=1)
    head["san_cfg"]["cfg_decoder"].update(num_heads=2, embed_channels=16, mlp_channels=16)
    head["maskgen_cfg"].update(narrow, sos_token_num=5, out_dims=16, num_layers=1)
    head["train_cfg"]["num_points"] = 64


def write_weights(model: dict, file: Path) -> None:
    """What stands for CLIP's weights, without which mmseg's SAN does not start."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmseg"):
        shapes = MODELS.build(Config(dict(model, pretrained=None))).state_dict()
    torch.save({name: 0.1 * torch.rand_like(value) for name, value in shapes.items()}, file)


def test_budget__of_san_trains_in_bfloat16_on_a_cpu_and_is_tested(tmp_path: Path) -> None:
    cfg = load_config(SAN)
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    apply_budget(cfg, Budget(1, crop=(64, 64), data="shapes", from_scratch=True), seed=0)
    shrink(cfg.model)
    write_weights(cfg.model, tmp_path / "clip.pth")
    cfg.model.pretrained = str(tmp_path / "clip.pth")
    for name in ("train", "val", "test"):
        cfg[f"{name}_dataloader"].update(batch_size=2, num_workers=0, persistent_workers=False)
        cfg[f"{name}_dataloader"].dataset.length = 2
    cfg.dump(tmp_path / "san.py")
    with pytest.warns(UserWarning, match="expected a GPU for mmengine's AmpOptimWrapper, got the CPU"):
        runner = train(tmp_path / "san.py", work_dir=str(tmp_path / "run"))
    assert isinstance(runner.optim_wrapper, Bfloat16OptimWrapper)
    assert all(parameter.isfinite().all() for parameter in runner.model.parameters())
    metrics = evaluate(tmp_path / "san.py", str(tmp_path / "run/iter_1.pth"), work_dir=str(tmp_path / "test"))
    assert 0 <= metrics["mIoU"] <= 1
