"""Images of any number of channels: loading, augmentation, normalisation and the model at once."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from mmengine.config import Config

from mmseg_m2f.config.initial_weights import initial_files
from mmseg_m2f.config.nodes import LOADERS, classes_of, config_nodes, is_a, short_type
from mmseg_m2f.config.type_lookup import accepted_arguments
from mmseg_m2f.errors import InvalidTypeError, InvalidValueError

_PREPROCESSORS = {
    "SegDataPreProcessor": "mmseg_m2f.BandSegPreProcessor",
    "DetDataPreprocessor": "mmseg_m2f.BandDetPreprocessor",
}
_WIDENED = ("MaskSegmentor", "MaskDetector")  # they widen the backbone that they build
_SETTINGS = ("count", "mean", "std", "shown")


@dataclass(frozen=True)
class _Channels:
    count: int
    values: dict[str, Sequence[int | float]]  # mean, std, shown, as far as given


def set_channels(cfg: Config, value: int | Mapping[str, object]) -> None:
    """Read, vary, normalise and show images of so many channels, and let the model take them.

    Image files are read by `LoadBands`, with all their bits; `PhotoMetricDistortion` becomes `VaryBands`; the data
    preprocessor becomes one for any number of channels. `MaskSegmentor` and `MaskDetector` widen their backbone, and
    repeat pretrained weights over the channels.

    Args:
        value: the number of channels, or a dict: `count`, and as far as known `mean` and `std` of each channel and
            `shown`, the channels that pictures show as red, green and blue. Values that are set stay.

    Raises:
        TypeError: another setting.
        ValueError: no such number, data without image files, or a model that cannot be widened.
    """
    channels = _read(value)
    _set_loading(cfg, channels.count)
    found = [place for place in (cfg.get("model"), cfg) if (place or {}).get("data_preprocessor")]
    if not found:
        raise InvalidValueError(
            f"channels={channels.count}: expected model.data_preprocessor, which normalises the images, got none. Base "
            "the config on a data set ingredient."
        )
    for place in found:
        place["data_preprocessor"] = _preprocessor(place["data_preprocessor"], channels)
    _set_backbone(cfg, channels.count)


def channels_in_use(cfg: Config) -> int | None:
    """Channels of the images where option `channels` has set them; None where images are RGB files of 8 bits."""
    for place in (cfg.get("model"), cfg):
        preprocessor = (place or {}).get("data_preprocessor") or {}
        if "num_channels" in preprocessor:
            return int(preprocessor["num_channels"])
    return None


def _read(value: int | Mapping[str, object]) -> _Channels:
    settings = dict(value) if isinstance(value, Mapping) else dict(count=value)
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise InvalidTypeError(f"channels: expected {', '.join(_SETTINGS)}, got {', '.join(unknown)} as well.")
    count = settings.pop("count", None)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidValueError(
            f"channels={value}: expected the number of channels of the images, as channels=6, or "
            "channels=dict(count=6, mean=[...], std=[...], shown=[3, 2, 1])."
        )
    return _Channels(count, {key: list(each) for key, each in settings.items()})  # type: ignore[call-overload]


def _set_loading(cfg: Config, count: int) -> None:
    places = [(loader, cfg.get(loader)) for loader in LOADERS]
    for loader, node in places:
        if node and not any(is_a(step, "LoadImageFromFile") or is_a(step, "LoadBands") for step in config_nodes(node)):
            raise InvalidValueError(
                f"channels={count}: expected data that are read from image files (LoadImageFromFile), got "
                f"{loader}.dataset of type {(node.get('dataset') or {}).get('type')} without. Set data=FOLDER as well."
            )
    for step in _steps(cfg):
        kind = short_type(step)
        if kind in ("LoadImageFromFile", "LoadBands"):
            remote = {"backend_args": step["backend_args"]} if step.get("backend_args") else {}
            _replace(step, dict(type="mmseg_m2f.LoadBands", channels=count, **remote))
        elif kind == "PhotoMetricDistortion":
            _replace(step, dict(type="mmseg_m2f.VaryBands"))
        elif kind == "Pad" and isinstance(step.get("pad_val"), Mapping):
            step["pad_val"] = dict(step["pad_val"], img=0)  # OpenCV pads more than 4 channels with zeros alone


def _steps(cfg: Config) -> Iterator[MutableMapping]:
    for key in (*LOADERS, "train_pipeline", "test_pipeline", "tta_pipeline"):
        yield from list(config_nodes(cfg.get(key)))


def _replace(node: MutableMapping, new: Mapping[str, object]) -> None:
    node.clear()
    node.update(new)


def _preprocessor(old: Mapping[str, object], channels: _Channels) -> dict[str, object]:
    kind = short_type(old)
    if kind not in _PREPROCESSORS and f"mmseg_m2f.{kind}" not in _PREPROCESSORS.values():
        raise InvalidValueError(
            f"channels={channels.count}: expected model.data_preprocessor of type {' or '.join(_PREPROCESSORS)}, got "
            f"{old.get('type')}. Leave the option out."
        )
    dropped = {"type", "bgr_to_rgb", "rgb_to_bgr", "num_channels"}
    if old.get("num_channels") != channels.count:
        dropped |= {"mean", "std", "shown"}  # of other images
    kept = {key: value for key, value in old.items() if key not in dropped}
    new = dict(type=_PREPROCESSORS.get(kind, f"mmseg_m2f.{kind}"), num_channels=channels.count)
    return {**kept, **new, **channels.values}


def _set_backbone(cfg: Config, count: int) -> None:
    backbone = cfg.model.get("backbone")
    if not isinstance(backbone, MutableMapping):
        raise InvalidValueError(f"channels={count}: expected a model with a backbone, got {cfg.model.get('type')}.")
    if short_type(cfg.model) in _WIDENED:
        backbone.pop("in_channels", None)
        return
    if not any("in_channels" in (accepted_arguments(target) or ()) for target in classes_of(backbone, cfg)):
        raise InvalidValueError(
            f"channels={count}: expected a MaskSegmentor or MaskDetector, or a backbone with in_channels, got "
            f"{cfg.model.get('type')} with {backbone.get('type')}. Take another backbone=NAME."
        )
    if any(file for _, _, file in initial_files(backbone, "model.backbone")) or backbone.get("pretrained"):
        raise InvalidValueError(
            f"channels={count}: pretrained weights fit other channels in a MaskSegmentor or MaskDetector alone, got "
            f"{cfg.model.get('type')}. Set pretrained=False as well."
        )
    backbone["in_channels"] = count
