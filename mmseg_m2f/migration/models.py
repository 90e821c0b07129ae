"""The model of an mmseg or mmdet config, rewritten as a `MaskSegmentor` or `MaskDetector`."""

from collections.abc import Mapping
from typing import NamedTuple

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.migration.heads import HEADS, migrate_head
from mmseg_m2f.migration.reading import Config, MigrationReport, Part
from mmseg_m2f.migration.scopes import Scopes

_DETECTORS = ("Mask2Former", "MaskFormer")


class Model(NamedTuple):
    """What a config says of the model.

    `config` has neither `data_preprocessor` nor class numbers. `head` is the upstream name of the head, below which
    its parameters lie. `num_things` counts the first classes, which are things; None for mmseg, which has no things.
    """

    config: Config
    data_preprocessor: Config
    head: str
    num_classes: int
    num_things: int | None


def migrate_model(cfg: Mapping, *, scope: str, report: MigrationReport) -> Model:
    """Our model for `cfg.model`.

    Raises:
        ValueError: no Mask2Former or MaskFormer for images, or one with a part that has no counterpart.
    """
    model = Part(cfg.get("model"), "model", scope=scope, report=report)
    _check_method(model)
    model.defaults = dict(data_preprocessor=cfg.get("data_preprocessor"))
    scopes = Scopes(scope, keep_root=True)
    shell = _segmentor(model) if "decode_head" in model else _detector(model)
    parts = dict(backbone=scopes.apply(_backbone(model)))
    for key in ("neck", "init_cfg"):
        model.defaults[key] = None
        if (value := model.take(key)) is not None:
            parts[key] = scopes.apply(value)
    preprocessor = Scopes(scope).apply(model.take("data_preprocessor"))
    model.finish()
    report.changed.append(
        "criterion: void pixels weigh nothing, and mask losses are divided by the number of segments; "
        "model.decode_head.criterion.reference='mmdet' restores upstream's rule"
    )
    config = {"type": shell.config.pop("type"), **parts, **shell.config}
    return shell._replace(config=config, data_preprocessor=preprocessor)


def _check_method(model: Part) -> None:
    what = f"model.type is {model.content.get('type')!r}"
    expected = "expected mmseg's EncoderDecoder with a Mask2FormerHead or MaskFormerHead, or mmdet's Mask2Former or "
    expected += "MaskFormer"
    if str(model.content.get("type")).startswith("mmseg_m2f."):
        raise InvalidValueError(f"{what}: the config is one of this package already; {expected}. Use it as it is.")
    if "track_head" in model or "Video" in model.name:
        raise InvalidValueError(
            f"{what}, which segments videos: its queries follow objects through frames, which no part here does; "
            f"{expected}. Migrate the config of its image model, which it starts from."
        )
    head = model.content.get("decode_head") or {}
    name = str(head.get("type") if isinstance(head, Mapping) else head).rpartition(".")[2]
    if (model.name == "EncoderDecoder" and name in HEADS) or model.name in _DETECTORS:
        return
    with_head = f" with decode_head.type {name!r}" if head else ""
    raise InvalidValueError(
        f"{what}{with_head}; {expected}. Other methods have no counterpart here: keep their config and their library."
    )


def _segmentor(model: Part) -> Model:
    head = model.part("decode_head")
    num_classes = head.count("num_classes")
    model.report.method = f"mmseg's {head.name.removesuffix('Head')}"
    train = head.part("train_cfg")
    ignore_index = head.count("ignore_index")
    head.leave_out("align_corners", "upstream's head does not use it either")
    for key in ("num_things_classes", "num_stuff_classes"):
        head.leave_out(key, "num_classes decides")
    head.leave_out("test_cfg", "model.test_cfg decides")
    decode_head = migrate_head(head, train, num_classes)
    head.finish()
    model.part("train_cfg", {}).finish()
    model.defaults["auxiliary_head"] = None
    model.expect("auxiliary_head", None, because="there is one head here")
    test = model.part("test_cfg", dict(mode="whole"))
    test_cfg = {key: test.take(key) for key in ("mode", "crop_size", "stride") if key in test or key == "mode"}
    test.finish()
    config: Config = dict(type="mmseg_m2f.MaskSegmentor", decode_head=decode_head, test_cfg=test_cfg)
    if ignore_index != 255:
        config["ignore_index"] = ignore_index
    return Model(config, {}, "decode_head", num_classes, None)


def _detector(model: Part) -> Model:
    head = model.part("panoptic_head")
    if head.name not in HEADS:
        head.refuse("type", f"{head.content.get('type')!r} has no counterpart here. Nearest: {', '.join(HEADS)}")
    model.report.method = f"mmdet's {head.name.removesuffix('Head')}"
    num_things, num_stuff = head.count("num_things_classes"), head.count("num_stuff_classes")
    decode_head = migrate_head(head, model.part("train_cfg"), num_things + num_stuff)
    head.finish()
    _check_fusion(model.part("panoptic_fusion_head"), num_things, num_stuff)
    config: Config = dict(type="mmseg_m2f.MaskDetector", decode_head=decode_head, test_cfg=_test_cfg(model))
    return Model(config, {}, "panoptic_head", num_things + num_stuff, num_things)


def _test_cfg(model: Part) -> Config:
    test = model.part(
        "test_cfg",
        dict(
            panoptic_on=True,
            instance_on=False,
            semantic_on=False,
            object_mask_thr=0.8,
            iou_thr=0.8,
            filter_low_score=False,
            max_per_image=100,
        ),
    )
    config = dict(
        panoptic=test.take("panoptic_on"),
        instance=test.take("instance_on"),
        semantic=test.take("semantic_on"),
        object_threshold=test.number("object_mask_thr"),
        overlap_threshold=test.number("iou_thr"),
        keep_low_pixels=not test.take("filter_low_score"),
        max_per_image=test.count("max_per_image"),
        things_first=False,  # mmdet takes the best over all classes, then drops stuff
    )
    test.finish()
    return config


def _check_fusion(fusion: Part, num_things: int, num_stuff: int) -> None:
    if fusion.name != "MaskFormerFusionHead":
        fusion.refuse("type", f"{fusion.content.get('type')!r}; expected MaskFormerFusionHead")
    fusion.defaults = dict(loss_panoptic=None, init_cfg=None, test_cfg=None)
    fusion.expect("num_things_classes", num_things, because="the head has that many")
    fusion.expect("num_stuff_classes", num_stuff, because="the head has that many")
    for key in ("loss_panoptic", "init_cfg"):
        fusion.expect(key, None, because="fusion is not trained")
    fusion.leave_out("test_cfg", "model.test_cfg decides")
    fusion.finish()


def _backbone(model: Part) -> object:
    """The backbone, with mmseg's former `pretrained` written as `init_cfg`."""
    backbone = model.take("backbone")
    model.defaults["pretrained"] = None
    pretrained = model.take("pretrained")
    if pretrained is None or not isinstance(backbone, Mapping):
        return backbone
    return {**backbone, "init_cfg": dict(type="Pretrained", checkpoint=pretrained)}
