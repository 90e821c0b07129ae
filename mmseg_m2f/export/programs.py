"""Tracing a wrapped model with `torch.export`: one program for all batches and sizes, or for one size."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.rewrites import exportable_code

Lowering: TypeAlias = Literal["gridsample", "gather"]

#: Of the example of dynamic programs: odd, not square, more than one image, so that no size equals another by chance.
_EXAMPLE = (2, 100, 150)


class Shape(NamedTuple):
    """What images a program takes.

    Attributes:
        batch: Images at once, None for any number.
        size: Height and width, None for any.
        multiple: What height and width are multiples of.
        channels: Of the images.
    """

    batch: int | None = None
    size: tuple[int, int] | None = None
    multiple: int = 1
    channels: int = 3

    def example(self) -> tuple[int, int, int]:
        """Number of images, height, width for tracing."""
        batch, height, width = _EXAMPLE
        height, width = self.size or (self._up(height), self._up(width))
        return self.batch or batch, height, width

    def cases(self) -> list[tuple[int, int, int]]:
        """Numbers of images, heights and widths for checking: not square, no multiples of 32, one image and several."""
        sizes = [(2, 100, 150), (1, 64, 64), (3, 131, 77), (1, 224, 160), (2, 96, 192)]
        return [
            (self.batch or batch, *(self.size or (self._up(height), self._up(width)))) for batch, height, width in sizes
        ]

    def _up(self, length: int) -> int:
        return -(-length // self.multiple) * self.multiple


@dataclass(frozen=True)
class TracedProgram:
    """A program and the names of its inputs and outputs, in order."""

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def module(self) -> nn.Module:
        """The program as a module, which takes long to build."""
        return self.program.module(check_guards=False)

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the program itself, by torch."""
        found = self.module(*(inputs[name] for name in self.inputs))
        return {name: found[name] for name in self.outputs}


@torch.no_grad()
def trace(
    wrapper: nn.Module,
    shape: Shape,
    *,
    dtype: torch.dtype = torch.float32,
    with_valid: bool = False,
    lowering: Lowering = "gridsample",
) -> TracedProgram:
    """The program of a wrapper, which takes `images` and, if asked, `valid`, and gives a dict of tensors.

    Args:
        dtype: Of the images.
        lowering: Bilinear reading at points as one operator `GridSample`, or as gathers and products.

    Raises:
        ValueError: The model computes something from values or sizes that no program can hold.
    """
    batch, height, width = shape.example()
    images = torch.zeros(batch, shape.channels, height, width, dtype=dtype)
    inputs: dict[str, Tensor] = dict(images=images)
    if with_valid:
        inputs["valid"] = torch.ones(batch, height, width, dtype=torch.bool)
    # torch's cache of operators checks all sizes of what it finds, which costs more than it saves
    uncached = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    with exportable_code(lowering), uncached:
        try:
            program = torch.export.export(
                wrapper, tuple(inputs.values()), dynamic_shapes=_dynamic_shapes(shape, with_valid=with_valid)
            )
        except (RuntimeError, torch._dynamo.exc.UserError) as error:
            lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
            raise InvalidValueError(
                f"torch.export: expected a model whose operators do not depend on values or fixed sizes, got: "
                f"{' '.join(lines[:2])} Leave --dynamic out and give --size, or replace the part that asks."
            ) from error
        outputs = tuple(wrapper(*inputs.values()))
    return TracedProgram(program, tuple(inputs), outputs)


def _dynamic_shapes(shape: Shape, *, with_valid: bool) -> tuple[Any, ...]:
    axes: dict[str, Any] = {}
    if shape.batch is None:
        axes["batch"] = Dim.DYNAMIC
    if shape.size is None:
        # The sizes of padded patches are multiples; those without patches are free.
        for name in ("height", "width"):
            axes[name] = shape.multiple * Dim(f"patches_{name}", min=1) if shape.multiple > 1 else Dim.DYNAMIC
    images = {axis: axes[name] for axis, name in ((0, "batch"), (2, "height"), (3, "width")) if name in axes}
    valid = {axis: axes[name] for axis, name in ((0, "batch"), (1, "height"), (2, "width")) if name in axes}
    return (images, valid) if with_valid else (images,)
