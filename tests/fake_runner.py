"""What a function reads of a Runner and of a model, without building either."""

from unittest import mock

from mmengine.runner import Runner
from torch import nn


def fake_runner(**parts: object) -> Runner:
    """A Runner with these attributes."""
    runner = mock.MagicMock(spec=Runner)
    for name, part in parts.items():
        setattr(runner, name, part)
    return runner


class FakeModel(nn.Module):
    """A module with these attributes."""

    def __init__(self, **parts: object) -> None:
        super().__init__()
        self.__dict__.update(parts)
