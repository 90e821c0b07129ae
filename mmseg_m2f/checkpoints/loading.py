"""Filling a model with the weights of a checkpoint, all of them or none that anybody would use."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmseg_m2f.checkpoints.checking import non_finite_names
from mmseg_m2f.errors import InvalidValueError, NonFiniteError


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights into the model by name; those that the model does not have are passed over.

    Args:
        source: What to call the checkpoint in a message.

    Raises:
        ValueError: Weights of the model are missing, or have other shapes. The model is then of no use.
        NonFiniteError: A weight is NaN or infinite.
    """
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    check_finite(model, weights, source=source)
    try:
        missing = [name for name in model.load_state_dict(weights, strict=False).missing_keys if _matters(name)]
    except RuntimeError as error:
        raise InvalidValueError(
            f"Checkpoint {source} was made by another model: {_size_mismatch(error)}. Expected the shapes of the "
            "config's model; take the checkpoint's own config, or set num_classes to its class count."
        ) from error
    if missing and all(name.startswith("backbone.") for name in missing):
        raise InvalidValueError(
            f"Checkpoint {source} lacks {len(missing)} weights of the backbone ({', '.join(missing[:3])} ...), for "
            "example because its frozen encoder was published apart; expected all weights of the model. Start a "
            "training from it, pretrained=CHECKPOINT with model.backbone.pretrained=True or checkpoint_path=ENCODER, "
            "and take the checkpoint that this training writes."
        )
    if missing:
        raise InvalidValueError(
            f"Checkpoint {source} lacks {len(missing)} of the model's {len(model.state_dict())} weights "
            f"({', '.join(missing[:3])} ...); expected all of them. Take the checkpoint's own config."
        )


def check_finite(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Raise NonFiniteError where weights are NaN or infinite, unless the new model has such numbers there too."""
    own = model.state_dict()
    names = [
        name
        for name in non_finite_names(weights)
        if name not in own
        or own[name].shape != weights[name].shape
        or not torch.equal(torch.isfinite(own[name]).cpu(), torch.isfinite(weights[name]).cpu())
    ]
    if names:
        raise NonFiniteError(
            f"Checkpoint {source}: {len(names)} of its {len(weights)} weights hold NaN or infinite numbers "
            f"({', '.join(names[:3])}{' ...' if names[3:] else ''}); expected finite ones: such a model predicts "
            "nothing. The training that wrote it had diverged. Take an earlier checkpoint, or train again with a lower "
            "learning rate."
        )


def _matters(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _size_mismatch(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
    return "; ".join(lines[:2]).rstrip(".") or str(error)
