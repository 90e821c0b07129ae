"""Checkpoints without the frozen weights."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_m2f.engine.resume.run_state import unwrapped
from mmseg_m2f.errors import InvalidTypeError
from mmseg_m2f.models.frozen_weights import fill_frozen, without_frozen
from mmseg_m2f.registry import HOOKS


@HOOKS.register_module()
class TrainableOnly(Hook):
    """Leaves the frozen parameters out of checkpoints: with LoRA or a frozen backbone, most of the file.

    A model that loads such a checkpoint must be built with the weights that the training started from, as its config
    says (`pretrained=True`, `checkpoint_path`, `init_cfg`); other frozen weights are refused. Resuming, testing and
    predicting work as with whole checkpoints.

    Raises:
        TypeError: the model is no `MaskSegmentor` or `MaskDetector`, which complete such weights.
        ValueError: the model has no frozen parameters.
    """

    priority = "VERY_LOW"  # after the moving average has taken its place in the checkpoint

    def before_train(self, runner: Runner) -> None:
        """Refuses models that could not load what would be written."""
        model = unwrapped(runner.model)
        if not any(getattr(hook, "hook", hook) is fill_frozen for hook in model._load_state_dict_pre_hooks.values()):
            raise InvalidTypeError(
                f"TrainableOnly: expected MaskSegmentor or MaskDetector as model, got {type(model).__name__}, which "
                "cannot complete such a checkpoint. Take the hook out of custom_hooks."
            )
        without_frozen(model, {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the frozen weights out, also of the moving average."""
        model = unwrapped(runner.model)
        checkpoint["state_dict"] = without_frozen(model, checkpoint["state_dict"])
        if average := checkpoint.get("ema_state_dict"):
            checkpoint["ema_state_dict"] = without_frozen(model, average, prefix="module.")
