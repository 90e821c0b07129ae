"""A training step once more, with a look at every layer: where is the first number that is not finite?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmseg_m2f.checkpoints.checking import non_finite_names
from mmseg_m2f.engine.non_finite.plain_batches import sample_metainfos
from mmseg_m2f.errors import NonFiniteError


@dataclass
class Diagnosis:
    """What a replayed step shows, from its input to its gradients; empty where all is finite."""

    images: list[str] = field(default_factory=list)  # where an input image is not finite: file, channel, y, x
    weights: list[str] = field(default_factory=list)
    layer: str | None = None  # the first whose output is not finite, its type, dtype and count
    losses: list[str] = field(default_factory=list)
    gradient: str | None = None  # the first on the way back
    parameters: list[str] = field(default_factory=list)  # whose gradients are not finite
    error: str | None = None  # what ended the forward pass
    dtype: str = "float32"
    below: str | None = None  # the first layer with -inf alone, which counts where nothing else explains a loss

    def __bool__(self) -> bool:
        return bool(self.images or self.weights or self.layer or self.losses or self.gradient or self.parameters)

    def lines(self) -> list[str]:
        """One line for each finding, the earliest in the step first."""
        lines = []
        if self.images:
            lines.append(f"The input holds it already: {'; '.join(self.images[:3])}.")
        if self.weights:
            lines.append(f"{len(self.weights)} weights hold it: {_listed(self.weights)}.")
        if self.layer:
            lines.append(f"First layer whose output is not finite: {self.layer}.")
        if self.losses:
            lines.append(f"Losses that are not finite: {_listed(self.losses, 6)}.")
        if self.error and not self.losses:
            lines.append(self.error)
        if self.gradient and not (self.losses or self.error):
            lines.append(f"First gradient on the way back that is not finite: {self.gradient}.")
        if self.parameters and not (self.losses or self.error):
            lines.append(
                f"{len(self.parameters)} parameters have gradients that are not finite: {_listed(self.parameters)}."
            )
        return lines

    def advice(self) -> str:
        """What to do about the earliest finding."""
        if self.images:
            return "Correct or remove the image, or the transform that makes such numbers."
        if self.weights:
            return "Go on from an earlier checkpoint: the weights were spoilt before this step."
        if self.dtype == "float16":
            return "float16 ends at 65504: train in bfloat16, or without --amp."
        if self.layer or self.losses or self.error:
            return "Lower the learning rate, clip the gradients (optim_wrapper.clip_grad), or look at the images."
        return (
            "The loss is finite, its gradient is not: look at roots, norms and quotients near zero in the layer "
            "named, or take the policy 'skip'."
        )


def diagnose(
    model: nn.Module,
    batch: object,
    *,
    context: Callable[[], AbstractContextManager],
    loss_scale: float = 1.0,
) -> Diagnosis:
    """Repeat a step without changing gradients or weights, and find the first number that is not finite.

    Buffers change as in any step; random generators have to be in the state that they had. Compiled parts and CUDA
    graphs run layer by layer.

    Args:
        model: Without a distributed wrapper, in training mode.
        batch: As the loader gave it.
        context: Of the forward pass: autocast, or nothing.
        loss_scale: The loss is multiplied by it before it goes back.
    """
    found = Diagnosis(images=_images(batch))
    found.weights = non_finite_names(dict(model.named_parameters()))
    with _watched(model, found), context():
        device = next(model.parameters()).device.type
        if torch.is_autocast_enabled(device):
            found.dtype = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        try:
            data = model.data_preprocessor(batch, True)  # type: ignore[operator]
            losses = model._run_forward(data, mode="loss")  # type: ignore[operator]
        except NonFiniteError as error:
            found.error = str(error)
            return found
        total, log = model.parse_losses(losses)  # type: ignore[operator]
        found.losses = [
            f"{name} = {float(value.detach())}" for name, value in log.items() if not torch.isfinite(value).all()
        ]
        if found.losses and found.layer is None:
            found.layer = found.below
        if not found.losses and total.requires_grad:
            _find_gradients(model, total * loss_scale, found)
    return found


def image_files(batch: object) -> list[str]:
    """The image files of a batch, or what else names its samples."""
    infos = sample_metainfos(batch)
    return [str(info.get("img_path") or info.get("img_id") or f"sample {i}") for i, info in enumerate(infos)]


def _find_gradients(model: nn.Module, loss: Tensor, found: Diagnosis) -> None:
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, [parameter for _, parameter in named], allow_unused=True)
    found.parameters = non_finite_names(dict(zip((name for name, _ in named), gradients, strict=True)))
    if found.parameters and found.gradient is None:
        found.gradient = f"that of {found.parameters[-1]}"


@contextmanager
def _watched(model: nn.Module, found: Diagnosis) -> Iterator[None]:
    """Look at the outputs of all layers, and at the gradients of these outputs, while the model runs."""
    graphs, compiled = getattr(model, "graphs", None), {}
    if graphs is not None:
        model.graphs = None  # type: ignore[assignment]
    handles = []
    for name, module in model.named_modules():
        if module._compiled_call_impl is not None:
            compiled[module] = module._compiled_call_impl
            module._compiled_call_impl = None
        if name.startswith("data_preprocessor"):
            continue  # `images` says what is wrong with the input
        handles.append(module.register_forward_hook(_watch(name, found), always_call=False))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, call in compiled.items():
            module._compiled_call_impl = call
        if graphs is not None:
            model.graphs = graphs


def _watch(name: str, found: Diagnosis) -> Callable[[nn.Module, object, object], None]:
    def look(module: nn.Module, inputs: object, output: object) -> None:
        title = f"{name or 'the model'} ({type(module).__name__}"
        for tensor in _floats(output):
            if found.layer is None and not torch.isfinite(tensor).all() and (found.below is None or _is_bad(tensor)):
                bad = int((~torch.isfinite(tensor)).sum())
                where = "finite" if all(torch.isfinite(each).all() for each in _floats(inputs)) else "not finite"
                dtype = str(tensor.dtype).removeprefix("torch.")
                said = f"{title}, {dtype}): {bad} of {tensor.numel()} numbers; its input is {where}"
                found.layer, found.below = (said, found.below) if _is_bad(tensor) else (None, said)
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: _note(gradient, f"that of the output of {title})", found))

    return look


def _note(gradient: Tensor, title: str, found: Diagnosis) -> None:
    if found.gradient is None and not torch.isfinite(gradient).all():
        found.gradient = title


def _is_bad(tensor: Tensor) -> bool:
    """Whether there is a NaN or +inf; -inf alone is how attention leaves places out."""
    return bool((tensor.isnan() | (tensor == float("inf"))).any())


def _floats(value: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _images(batch: object) -> list[str]:
    """Where the images of a batch are not finite."""
    inputs = batch.get("inputs", ()) if isinstance(batch, Mapping) else ()
    files = image_files(batch)
    found = []
    for index, image in enumerate(cast(Sequence[Tensor], inputs)):
        if isinstance(image, Tensor) and image.is_floating_point() and not torch.isfinite(image).all():
            places = (~torch.isfinite(image)).nonzero()
            channel, y, x = places[0].tolist()[-3:]
            name = files[index] if index < len(files) else f"sample {index}"
            found.append(f"{Path(name)}, {len(places)} numbers, the first in channel {channel} at y={y}, x={x}")
    return found


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
