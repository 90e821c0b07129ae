"""The views of test-time augmentation, where a config does not say which."""

from collections.abc import Mapping, Sequence

from mmengine.config import Config, ConfigDict

from mmseg_m2f.config.nodes import config_nodes, short_type
from mmseg_m2f.errors import InvalidValueError

_MOVED = ("flip", "flip_direction")


def use_views(cfg: Config) -> None:
    """Let a config test the mean over views: those of its `tta_pipeline`, or an image and its mirror image.

    The model is wrapped into `tta_model`, or by default into `QueryTTA` for a `MaskDetector` and `SemanticTTA` for
    others.

    Raises:
        ValueError: neither views nor transforms of images to make them of.
    """
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    finds_objects = short_type(cfg.model) == "MaskDetector"
    if "tta_pipeline" in cfg:
        pipeline = cfg.tta_pipeline
    elif finds_objects:
        pipeline = mirrored_views(dataset.get("pipeline") or ())
    else:
        raise InvalidValueError(
            f"--tta: config {cfg.filename} has no tta_pipeline; expected test transforms that end in "
            "mmengine.TestTimeAug. Add one to the dataset ingredient, or leave --tta out."
        )
    for node in config_nodes(pipeline):
        if short_type(node).startswith("Pack") and node.get("meta_keys"):  # results are flipped back by them
            node["meta_keys"] = (*dict.fromkeys((*node["meta_keys"], *_MOVED)),)
    dataset.pipeline = pipeline
    wrapper = cfg.get("tta_model") or dict(type="mmseg_m2f.SemanticTTA")
    if finds_objects and short_type(wrapper) == "SemanticTTA":  # which runtime.py sets for all
        wrapper = dict(type="mmseg_m2f.QueryTTA")
    cfg.model = ConfigDict(wrapper, module=cfg.model)


def mirrored_views(pipeline: Sequence[Mapping]) -> list[Mapping]:
    """Test transforms that give an image and its mirror image; annotations stay those of the image.

    The flip comes before annotations are loaded, or else before packing.
    """
    names = [short_type(transform) for transform in pipeline]
    loads = [number for number, name in enumerate(names) if "Load" in name and number > 0]
    packs = [number for number, name in enumerate(names) if name.startswith("Pack")]
    place = min([*loads, *packs], default=len(names))
    first = 1 if names and "Load" in names[0] and place > 0 else 0
    flips = [dict(type="mmengine.RandomFlip", prob=prob) for prob in (0.0, 1.0)]
    alternatives = [*([step] for step in pipeline[first:place]), flips, *([step] for step in pipeline[place:])]
    return [*pipeline[:first], dict(type="mmengine.TestTimeAug", transforms=alternatives)]
