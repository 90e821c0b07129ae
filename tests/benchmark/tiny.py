"""Settings and configs that measure themselves in a second."""

from pathlib import Path

from mmseg_m2f.benchmark.setting import Setting

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/mask2former/mask2former_r18_shapes_debug.py")
SETTING = Setting(size=64, objects=3, queries=10, classes=5, points=64)


def write_variant(path: Path, base: str = CONFIG, **head: object) -> str:
    """A config that differs from another in keys of the head."""
    path.write_text(f"_base_ = {base!r}\nmodel = dict(decode_head=dict(**{head!r}))\n")
    return str(path)


def write_mask_dino(path: Path, *, masks: bool = True) -> str:
    """Mask DINO with R50 for objects, with other numbers of layers, widths and slots than are published.

    Args:
        masks: False leaves out what compares masks and what starts from them.
    """
    query_decoder: dict[str, object] = dict(num_layers=2, feedforward_channels=48, denoising=dict(num_queries=12))
    criterion: dict[str, object] = {}
    if not masks:
        query_decoder |= dict(box_init="encoder")
        costs = [dict(type=f"mmseg_m2f.{name}") for name in ("ClassFocalCost", "BoxL1Cost", "BoxGIoUCost")]
        criterion = dict(loss_mask=None, loss_dice=None, sampling=None, assigner=dict(match_costs=costs))
    return write_variant(
        path,
        str(ROOT / "configs/mask_dino/mask-dino_r50_coco-instance-1024_50e.py"),
        pixel_decoder=dict(num_layers=1, feedforward_channels=32),
        query_decoder=query_decoder,
        criterion=criterion,
    )
