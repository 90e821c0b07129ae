"""A training step in a file: weights, batch and random states before it. `tools/train.py --replay` repeats it."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.engine.non_finite.diagnosis import Diagnosis, diagnose, image_files
from mmseg_m2f.engine.non_finite.plain_batches import from_plain, to_plain
from mmseg_m2f.engine.resume.random_states import RandomStates, restore_random_states
from mmseg_m2f.errors import InvalidValueError, UnknownNameError
from mmseg_m2f.files import replace_file

_KIND = "training step with non-finite numbers"


def save_step(
    path: Path,
    *,
    model: nn.Module,
    batch: object,
    random: RandomStates,
    cfg: Config,
    about: Mapping[str, object],
) -> None:
    """Write a step to a file that holds tensors and plain values alone.

    Args:
        model: With the weights and buffers before the step.
        about: What the replay needs besides: `iteration`, `autocast` (a dtype or None), `loss_scale`, and what the
            message said.
    """
    content = dict(
        kind=_KIND,
        config=to_plain(cfg.to_dict()),
        state_dict={name: value.detach().cpu() for name, value in model.state_dict().items()},
        batch=to_plain(batch),
        random=random,
        **about,
    )
    buffer = BytesIO()
    torch.save(content, buffer)
    replace_file(path, buffer.getvalue(), durable=True)


def replay_step(path: str | os.PathLike[str], *, device: str | None = None) -> tuple[Diagnosis, list[str]]:
    """Repeat a stored step.

    Args:
        device: As torch names it; the GPU if there is one.

    Returns:
        What is not finite, and the lines to print.

    Raises:
        ValueError: The file holds no step.
        KeyError: A part of the model is not registered.
    """
    content = cast(Mapping[str, Any], check_checkpoint(path))
    if content.get("kind") != _KIND:
        raise InvalidValueError(
            f"--replay {path}: expected a file that a training wrote when a number was not finite "
            "(non_finite_iter_*.pth in its work folder), got another one."
        )
    cfg = Config(dict(content["config"]))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"):
        drop_initial_weights(cfg.model)
        model = _build(cfg, path)
    model.load_state_dict(content["state_dict"])
    model.to(device).train()
    batch = from_plain(content["batch"])
    restore_random_states(content["random"])
    dtype = content["autocast"]

    def context() -> AbstractContextManager:
        return nullcontext() if dtype is None else torch.autocast(device, getattr(torch, dtype))

    found = diagnose(model, batch, context=context, loss_scale=content["loss_scale"])
    lines = [f"Iteration {content['iteration']}, images: {', '.join(image_files(batch))}.", *found.lines()]
    lines.append(found.advice() if found else f"All numbers are finite on this machine ({device}). {_ELSEWHERE}")
    return found, lines


def _build(cfg: Config, path: str | os.PathLike[str]) -> nn.Module:
    """The model of a stored config. Nothing that a file names is imported, so own parts have to be known already."""
    try:
        return MODELS.build(cfg.model)
    except KeyError as error:
        raise UnknownNameError(
            f"--replay {path}: expected the parts of its model to be known, got {error.args[0]} Give the config too, "
            "whose custom_imports are imported: tools/train.py CONFIG --replay FILE."
        ) from error


_ELSEWHERE = "The training found: replay on the same kind of device, with the same versions, to see it."
