"""Building implementations by their names."""

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import MMLogger
from torch import nn

from mmseg_m2f.benchmark.implementations.huggingface import HuggingFace
from mmseg_m2f.benchmark.implementations.interface import Implementation, Weights
from mmseg_m2f.benchmark.implementations.mmdet_dino import MmdetDino, dino_config
from mmseg_m2f.benchmark.implementations.ours import Ours, Task, config_of, task_of
from mmseg_m2f.benchmark.implementations.upstream import Upstream, upstream_config
from mmseg_m2f.benchmark.setting import Setting
from mmseg_m2f.compat import is_installed
from mmseg_m2f.config.load import load_config
from mmseg_m2f.errors import InvalidValueError

#: Mask2Former for label maps.
DEFAULT_NAMES = ("ours", "mmseg", "huggingface")
NAMES = (*DEFAULT_NAMES, "mmdet-dino")
_TASKS: dict[str, Task] = {"mmseg": "label maps", "huggingface": "label maps", "mmdet-dino": "objects"}
_EXAMPLES: dict[Task, str] = {"label maps": "ours", "objects": "mask-dino_r50_coco-instance-1024_50e"}


def check_names(names: Sequence[str]) -> None:
    """Whether these can be compared: the first is ours, no two are the same, all have one task and are installed.

    Raises:
        ValueError: they cannot.
        FileNotFoundError: a config, or one that mmseg or mmdet ships, is missing.
    """
    if not names or names[0] in NAMES[1:]:
        raise InvalidValueError(
            f"implementations: expected 'ours' or a config of ours first, got {' '.join(names) or 'none'}. The others "
            "are compared with the first."
        )
    if len(set(names)) < len(names):
        raise InvalidValueError(f"implementations: expected each once, got {' '.join(names)}.")
    first, *others = ((name, _task(name)) for name in names)
    for name, task in others:
        if task != first[1]:
            raise InvalidValueError(
                f"implementations: expected all to give the same, but {first[0]} gives {first[1]} and {name} {task}. "
                f"Leave {name} out, or give a first one of {task}, for instance {_EXAMPLES[task]}."
            )
    for name in names:
        if name == "mmseg":
            upstream_config()
        elif name == "mmdet-dino":
            dino_config()
        elif name == "huggingface" and not is_installed("transformers"):
            raise InvalidValueError(
                "implementations: huggingface needs transformers. Install it: pip install transformers."
            )


def build(name: str, setting: Setting, first: Ours | None = None) -> Implementation:
    """An implementation of a name of `NAMES`, or of a config's path, in training mode.

    Args:
        first: what it is built to match; None for the first itself. mmseg's and Hugging Face's model get its weights,
            and so do models of ours where the names and shapes are the same; other models of ours keep their fresh
            weights. mmdet's DINO gets its numbers of layers.
    """
    MMLogger.get_current_instance().setLevel(logging.ERROR)  # else it says how each parameter was initialised
    torch.manual_seed(0)
    if name in _TASKS:
        assert first is not None
        if name == "mmdet-dino":
            dino = MmdetDino(first, setting)
            shake(dino.model)
            return dino
        weights = first.model.state_dict()
        return Upstream(weights, setting) if name == "mmseg" else HuggingFace(weights, setting)
    ours = Ours(name, config_of(name), setting)
    if first is None:
        shake(ours.model)
    elif _shapes(ours.model.state_dict()) == _shapes(first.model.state_dict()):
        ours.model.load_state_dict(first.model.state_dict())
    return ours


def build_all(names: Sequence[str], setting: Setting) -> list[Implementation]:
    """All implementations, with the weights of the first wherever they fit."""
    first = build(names[0], setting)
    assert isinstance(first, Ours)
    return [first, *(build(name, setting, first) for name in names[1:])]


def shake(model: nn.Module) -> None:
    """Make what starts at a special value (statistics, offsets, closed branches) random: an error there shows."""
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():  # it closes a residual branch
            nn.init.uniform_(module.weight, 0.05, 0.1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


def _task(name: str) -> Task:
    if name in _TASKS:
        return _TASKS[name]
    config = config_of(name)
    return task_of(load_config(config), config)


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}
