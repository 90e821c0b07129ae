"""Building implementations by their names."""

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import MMLogger
from torch import nn

from mmseg_m2f.benchmark.implementations.huggingface import HuggingFace
from mmseg_m2f.benchmark.implementations.interface import Implementation, Weights
from mmseg_m2f.benchmark.implementations.ours import Ours, config_of
from mmseg_m2f.benchmark.implementations.upstream import Upstream, upstream_config
from mmseg_m2f.benchmark.setting import Setting
from mmseg_m2f.compat import is_installed
from mmseg_m2f.config.load import load_config
from mmseg_m2f.errors import InvalidValueError

NAMES = ("ours", "mmseg", "huggingface")


def check_names(names: Sequence[str]) -> None:
    """Whether these can be compared: the first is ours, no two are the same, and all are installed.

    Raises:
        ValueError: they cannot.
        FileNotFoundError: a config, or the one that mmseg ships, is missing.
    """
    if not names or names[0] in NAMES[1:]:
        raise InvalidValueError(
            f"implementations: expected 'ours' or a config of ours first, got {' '.join(names) or 'none'}. The others "
            "are compared with the first."
        )
    if len(set(names)) < len(names):
        raise InvalidValueError(f"implementations: expected each once, got {' '.join(names)}.")
    for name in names:
        if name == "mmseg":
            upstream_config()
        elif name == "huggingface":
            if not is_installed("transformers"):
                raise InvalidValueError(
                    "implementations: huggingface needs transformers. Install it: pip install transformers."
                )
        else:
            load_config(config_of(name))


def build(name: str, setting: Setting, weights: Weights | None = None) -> Implementation:
    """An implementation of a name of `NAMES`, or of a config's path, in training mode.

    Args:
        weights: in our layout. They are given to mmseg's and Hugging Face's model, and to ours where the names and
            shapes are the same; otherwise a model of ours keeps its fresh weights. None for a fresh first one.
    """
    MMLogger.get_current_instance().setLevel(logging.ERROR)  # else it says how each parameter was initialised
    torch.manual_seed(0)
    if name in NAMES[1:]:
        weights = weights or build("ours", setting).model.state_dict()
        if name == "mmseg":
            return Upstream(weights, setting)
        return HuggingFace(weights, setting)
    ours = Ours(name, config_of(name), setting)
    own = ours.model.state_dict()
    if weights is None:
        shake(ours.model)
    elif _shapes(own) == _shapes(weights):
        ours.model.load_state_dict(dict(weights))
    return ours


def build_all(names: Sequence[str], setting: Setting) -> list[Implementation]:
    """All implementations, with the weights of the first wherever they fit."""
    first = build(names[0], setting)
    weights = first.model.state_dict()
    return [first, *(build(name, setting, weights) for name in names[1:])]


def shake(model: nn.Module) -> None:
    """Make what starts at a special value (statistics, sampling offsets) random, so that an error there shows."""
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}
