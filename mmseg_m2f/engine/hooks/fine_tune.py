"""Training that starts from the layers of another model that fit."""

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmseg_m2f.checkpoints.fitting import ClassRows, check_fit, fit_table, fit_weights
from mmseg_m2f.checkpoints.whole_models import SCHEME, is_whole_model_address
from mmseg_m2f.engine.class_agreement import checkpoint_classes, dataset_classes, matching_rows
from mmseg_m2f.models.assigners import FixedAssigner
from mmseg_m2f.registry import HOOKS

_CLASS_LAYERS = ("cls_embed", "conv_seg", "class_embed")  # of mask heads, of per-pixel heads, of explicit classes


@HOOKS.register_module()
class FineTune(Hook):
    """Lets the model take what fits of `load_from = "whole-model://PATH"`, and logs a table of it.

    Tensors are taken by name and shape. Of class layers, and of queries that stand for classes (`FixedAssigner`), the
    rows of classes whose names the training set and the checkpoint share are taken; the others keep their random
    values. Where one of both names no classes, rows are taken by their numbers if there are equally many, with a
    warning. `decode_head.replace_classifier=True` takes none of these rows. The launcher installs the hook; a resumed
    run does not use it.

    Raises:
        ValueError: Nothing of the checkpoint fits.
    """

    priority = "HIGHEST"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replaces the checkpoint's weights by the model's complete state."""
        address = runner.cfg.get("load_from")
        if not is_whole_model_address(address) or runner.cfg.get("resume"):
            return
        source, layout = str(address).removeprefix(SCHEME), str(checkpoint.get("layout", "ours"))
        model: nn.Module = runner.model.get_submodule("module") if is_model_wrapper(runner.model) else runner.model
        wanted = dataset_classes(runner.train_dataloader.dataset, loop="train")
        stored = checkpoint_classes(checkpoint, source=source)
        classes = None
        if wanted is not None and stored is not None:
            classes = ClassRows(wanted.names, stored.names, matching_rows(wanted.names, stored.names))
        weights, own = checkpoint["state_dict"], model.state_dict()
        layers = set(class_layers(model))
        renewed = bool(getattr(getattr(model, "decode_head", None), "replace_classifier", False))
        fit = fit_weights(own, weights, class_layers=layers, classes=classes, new_class_layers=renewed)
        fit.unused.update(dict.fromkeys(checkpoint.get("unknown", ()), "the model has none"))
        check_fit(fit, weights, source=source, layout=layout)
        print_log(fit_table(fit, source=source, layout=layout), logger="current")
        if classes is None and layers & set(fit.taken):
            nameless = source if stored is None else "The training set"
            print_log(
                f"{nameless} names no classes: the rows of the class layer were taken in their order. Where that is "
                "another, start with a new class layer: model.decode_head.replace_classifier=True.",
                logger="current",
                level=30,
            )
        checkpoint["state_dict"] = fit.state
        checkpoint["meta"] = {key: value for key, value in checkpoint["meta"].items() if key != "dataset_meta"}


def class_layers(model: nn.Module) -> Iterator[str]:
    """The names of parameters whose first axis counts classes."""
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        criterion = getattr(module, "criterion", None)
        if isinstance(getattr(criterion, "assigner", None), FixedAssigner):
            yield from (
                f"{name}.query_decoder.query_feat.{part}"
                for part, _ in module.get_submodule("query_decoder.query_feat").named_parameters()
            )
        if last in _CLASS_LAYERS:
            yield from (f"{name}.{part}" for part, _ in module.named_parameters(recurse=False))
