"""Construction of both shells: backbone, neck and head, partly frozen, and compiled if the config says so."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from mmengine.config import ConfigDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_m2f.checkpoints.openmmlab import adopt_detector_keys
from mmseg_m2f.errors import InvalidValueError, UserError
from mmseg_m2f.layers.lora import LoRASettings, add_lora, merge_foreign_lora
from mmseg_m2f.layers.matrix_products import use_fast_products
from mmseg_m2f.models.compiled_parts import compile_parts
from mmseg_m2f.models.feature_spec import check_head, crop_size_of, image_channels_of, probe_feature_spec
from mmseg_m2f.models.frozen_weights import fill_frozen
from mmseg_m2f.models.segmentors.upload import upload_batches_in_one_copy
from mmseg_m2f.models.stem import widen_stem
from mmseg_m2f.registry import MODELS


def build_parts(
    shell: nn.Module,
    *,
    backbone: ConfigDict | dict,
    neck: ConfigDict | dict | None,
    decode_head: ConfigDict | dict,
    crop_size: tuple[int, int] | None = None,
    trainable: Sequence[str] | None = None,
    compile: bool | ConfigDict | dict = False,
) -> list[nn.Module]:
    """Give a shell its `backbone`, `neck` (if any), `decode_head` and `feature_strides`; gives the frozen modules.

    Args:
        shell: has `data_preprocessor` and `extract_feat`. The number of channels of the former, where it has one, is
            what the backbone is widened to.
        backbone: may have `lora`, see `LoRASettings`, whatever its type.
        crop_size: height and width of the images in training; that of the data preprocessor unless given.
        trainable: see `freeze_others`; None trains everything.
        compile: see `compile_parts`.
    """
    backbone, lora = _take_lora(backbone)
    shell.backbone = built = MODELS.build(backbone)
    preprocessor = cast(nn.Module, shell.data_preprocessor)
    if hasattr(preprocessor, "num_channels"):
        widen_stem(built, cast(int, preprocessor.num_channels))
    frozen = [] if lora is None else _adapt_backbone(built, lora)
    if neck is not None:
        shell.neck = MODELS.build(neck)
    feature_spec = probe_feature_spec(
        built,
        built if neck is None else cast(Callable[[Tensor], object], shell.extract_feat),
        image_channels=image_channels_of(preprocessor),
        crop_size=crop_size or crop_size_of(preprocessor),
    )
    check_head(decode_head)
    shell.feature_strides = feature_spec.strides  # type: ignore[assignment]
    shell.decode_head = MODELS.build(decode_head, default_args=dict(feature_spec=feature_spec))
    if trainable is not None:
        frozen += freeze_others(shell, trainable)
    use_fast_products(shell)
    upload_batches_in_one_copy(preprocessor)
    compile_parts(shell, compile)
    shell.register_load_state_dict_pre_hook(adopt_detector_keys)
    shell.register_load_state_dict_pre_hook(fill_frozen)
    shell.register_load_state_dict_pre_hook(merge_foreign_lora)
    return frozen


def _take_lora(backbone: ConfigDict | dict) -> tuple[ConfigDict | dict, Mapping[str, object] | None]:
    """The config of a backbone without `lora`, and `lora`; backbones that adapt themselves keep it."""
    if "lora" not in backbone:
        return backbone, None
    known = MODELS.get(backbone["type"]) if isinstance(backbone["type"], str) else backbone["type"]
    if known is None or "lora" in inspect.signature(known).parameters:
        return backbone, None
    return type(backbone)((key, value) for key, value in backbone.items() if key != "lora"), backbone["lora"]


def _adapt_backbone(backbone: nn.Module, lora: Mapping[str, object]) -> list[nn.Module]:
    """Fix the weights of a backbone and add low-rank changes to its layers; gives its batch norms, which are frozen."""
    try:
        add_lora(backbone, LoRASettings.read(lora), unless_given=None)
    except UserError as error:
        raise type(error)(f"model.backbone.{error.args[0]}") from error
    return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]


def freeze_others(model: nn.Module, trainable: Sequence[str]) -> list[nn.Module]:
    """Freeze all parameters but those whose names begin with one of `trainable`, and return the frozen modules.

    Parameters that do not require gradients before stay frozen. The frozen modules are the outermost ones without a
    trainable parameter. Keep them in evaluation mode: their batch norms would go on updating their statistics.

    Raises:
        ValueError: no parameter's name begins with one of `trainable`.
    """
    names = [name for name, _ in model.named_parameters()]
    for start in trainable:
        if not any(name.startswith(start) for name in names):
            parts = sorted({".".join(name.split(".")[:3]) for name in names})
            raise InvalidValueError(
                f"model.trainable: expected beginnings of parameter names, got '{start}', with which none begins. "
                f"There are: {', '.join(parts)}."
            )
    for name, parameter in model.named_parameters():
        if not name.startswith(tuple(trainable)):
            parameter.requires_grad_(False)
    return list(_outermost_frozen(model))


def _outermost_frozen(module: nn.Module) -> list[nn.Module]:
    parameters = list(module.parameters())
    if not parameters:
        return []
    if not any(parameter.requires_grad for parameter in parameters):
        return [module]
    return [frozen for child in module.children() for frozen in _outermost_frozen(child)]
