"""Windows of tests, by options: their size, how far they overlap, and the scale of the images below them."""

from collections.abc import Sequence

from mmengine.config import Config, ConfigDict

from mmseg_m2f.errors import InvalidValueError

Size = tuple[int, int]


def set_window_size(cfg: Config, size: int | Sequence[int]) -> None:
    """Predict through windows of this size (height and width in pixels, or one number for both), half overlapping.

    Raises:
        ValueError: no such size.
    """
    crop = _read_size("window_size", size, least=1)
    test_cfg = _test_cfg(cfg)
    test_cfg.update(mode="slide", crop_size=crop, stride=(max(crop[0] // 2, 1), max(crop[1] // 2, 1)))


def set_window_overlap(cfg: Config, overlap: int | Sequence[int]) -> None:
    """Let neighbouring windows share so many pixels (rows and columns, or one number for both).

    Raises:
        ValueError: there are no windows, or they are no larger than the overlap.
    """
    shared = _read_size("window_overlap", overlap, least=0)
    crop = window_size(cfg)
    if crop is None:
        raise InvalidValueError(
            f"window_overlap={overlap}: expected a model that predicts through windows (model.test_cfg.mode='slide'), "
            "got one that predicts whole images. Set window_size as well."
        )
    if shared[0] >= crop[0] or shared[1] >= crop[1]:
        raise InvalidValueError(
            f"window_overlap={overlap}: expected less than the windows' size {crop}: they would never move on. "
            "Take e.g. half of it."
        )
    _test_cfg(cfg).stride = (crop[0] - shared[0], crop[1] - shared[1])


def set_window_scale(cfg: Config, scale: float | int | Sequence[float | int]) -> None:
    """Resize images by this factor before windows are cut, or by each of several; the model checks the rest.

    Raises:
        ValueError: no factor, or a model without such a setting.
    """
    kind = str(cfg.model.get("type")).rpartition(".")[2]
    if kind not in ("MaskDetector", "MaskSegmentor"):
        raise InvalidValueError(
            f"window_scale={scale}: expected a MaskDetector or MaskSegmentor, got {kind}. Resize in the test pipeline."
        )
    given = scale if isinstance(scale, (list, tuple)) else [scale]
    factors = [float(each) for each in given if isinstance(each, (int, float)) and not isinstance(each, bool)]
    if not factors or len(factors) < len(given) or min(factors) <= 0:
        raise InvalidValueError(
            f"window_scale={scale}: expected a factor above 0, for example 0.5, or several such as 2,3,4."
        )
    _test_cfg(cfg).scale = factors[0] if len(factors) == 1 else factors


def window_size(cfg: Config) -> Size | None:
    """Height and width of the windows; None where whole images are predicted."""
    test_cfg = cfg.get("model", {}).get("test_cfg") or {}
    if test_cfg.get("mode") != "slide" or not test_cfg.get("crop_size"):
        return None
    height, width = test_cfg["crop_size"]
    return int(height), int(width)


def window_overlap(cfg: Config) -> Size | None:
    """Rows and columns that neighbouring windows share; None where whole images are predicted."""
    size = window_size(cfg)
    if size is None:
        return None
    stride = cfg.model.test_cfg["stride"]
    return size[0] - int(stride[0]), size[1] - int(stride[1])


def _test_cfg(cfg: Config) -> ConfigDict:
    if cfg.model.get("test_cfg") is None:
        cfg.model.test_cfg = ConfigDict()
    return cfg.model.test_cfg


def _read_size(name: str, value: int | Sequence[int], *, least: int) -> Size:
    both = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(both) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in both):
        raise InvalidValueError(f"{name}={value}: expected height and width in pixels, or one number for both.")
    if min(both) < least:
        raise InvalidValueError(f"{name}={value}: expected at least {least} pixels.")
    return both[0], both[1]
