"""The network of a model as CUDA graphs: the host starts a whole forward or backward pass by one call.

A graph replays recorded kernels on the same memory, so a recording holds for one shape of images and one state of the
model. `GraphedNetwork` makes a recording when a shape comes for the second time, keeps the last few, and runs
everything else as usual. What lies outside the network (targets, matching, losses, post-processing, optimizer) is not
recorded.

- Outputs and gradients of parameters lie in memory that the next replay overwrites, in either direction. Gradients are
  handed over without copying; those that are still there before the next forward pass, as where they are accumulated,
  are copied first.
- All recordings share their memory. So between a forward pass and its backward pass nothing else may be replayed, and
  there is one backward pass for each forward pass; it raises otherwise.
- Weights may change in place (optimizer, moving averages, checkpoints). Weights that move, as by `model.half()`,
  discard all recordings; other modes or frozen layers make further ones.
- Under autocast, weights are cast inside the graph, as its cache would outlive the recording.
- A recording runs the network three times beforehand. Statistics of norms and the random generator are put back.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.graph_recording import CudaRecorder, Recorder, Recording
from mmseg_m2f.models.recording_cache import RecordingCache

_LOGGER = logging.getLogger("mmseg_m2f")
#: Modules that compute with the host, by class name, and what they do.
_UNFIT = {
    "NMF2D": "it draws its bases on the host",
    "SteadyNMF": "it draws its bases on the host",
    "DetrMaskHead": "it computes masks only when they are asked for",
}

Result = TypeVar("Result")


@runtime_checkable
class HasState(Protocol):
    """A module whose forward pass depends on something else than tensors, its mode and its arguments."""

    def graph_state(self) -> Hashable:
        """That; a recording holds for one value of it."""


class GraphedNetwork:
    """Runs a model's network through recordings where it can, else as usual.

    Args:
        most: recordings kept for training, and as many again for inference.
        recorder: for tests.
    """

    def __init__(self, *, most: int = 4, recorder: Recorder | None = None) -> None:
        if most < 1:
            raise InvalidValueError(f"model.cuda_graphs: expected most of at least 1, got {most}.")
        self._most, self._given = most, recorder
        self._recorder = recorder or CudaRecorder()
        self._caches = {with_grad: RecordingCache(most) for with_grad in (True, False)}
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self._parts: _Parts | None = None
        self._addresses: list[int] = []
        self._said: set[str] = set()
        self.replays = 0

    def __deepcopy__(self, _: dict) -> "GraphedNetwork":
        """A copy of the model, as for a moving average, has other weights: it makes its own recordings."""
        return GraphedNetwork(most=self._most, recorder=self._given)

    def __reduce__(self) -> tuple:
        return _restored, (self._most,)

    def __call__(
        self,
        model: nn.Module,
        network: Callable[[Tensor, Tensor | None], Result],
        images: Float[Tensor, "B C H W"],
        valid: Bool[Tensor, "B H W"] | None,
        *,
        kind: Hashable,
    ) -> Result:
        """What `network(images, valid)` gives.

        The tensors of a recording are overwritten at the next call; copy what has to stay.

        Args:
            kind: tells networks of the same model apart.

        Raises:
            RuntimeError: the network cannot be recorded, as it waits for the device or uploads something.
        """
        if self._parts is None or self._parts.model is not model:
            self._parts = _Parts.of(model)
        if not self._can_record(self._parts, images):
            return network(images, valid)
        with_grad = torch.is_grad_enabled()
        parameters = [p for p in self._parts.parameters if p.requires_grad] if with_grad else []
        addresses = [x.data_ptr() for x in self._parts.tensors]
        if addresses != self._addresses:
            self._addresses = addresses
            self._gradients.clear()
            for cache in self._caches.values():
                cache.clear()
        key = (kind, self._parts.state(), _circumstances(images, valid))
        cache = self._caches[with_grad]
        recording = cache.find(key)
        if recording is None:
            if not cache.wants(key):
                return network(images, valid)
            with _unchanged(model, images.device):
                recording = self._record(model, network, images, valid, parameters)
            cache.keep(key, recording)
        self.replays += 1
        self._keep_gradients()
        if not any(recording.needs_grad):
            recording.replay_forward(images, valid)
            return cast(Result, recording.rebuild(recording.outputs))
        return cast(Result, recording.rebuild(_Replay.apply(self, recording, images, valid, *parameters)))

    def _record(
        self,
        model: nn.Module,
        network: Callable[[Tensor, Tensor | None], object],
        images: Tensor,
        valid: Tensor | None,
        parameters: Sequence[nn.Parameter],
    ) -> Recording:
        if not any(cache.recordings for cache in self._caches.values()):
            # Gradients alone cannot hold the memory that recordings shared; CUDA refuses to record into it.
            self._gradients.clear()
            self._recorder.start_over()
        try:
            return Recording(model, network, images, valid, parameters, self._recorder, self._gradients)
        except RuntimeError as error:
            raise RuntimeError(
                f"model.cuda_graphs: the network could not be recorded for images of shape {tuple(images.shape)}: "
                f"{str(error).splitlines()[0]} Something in it waits for the device or uploads. Set "
                "model.cuda_graphs=False, and report the cause above if all parts are of mmseg_m2f."
            ) from error

    def _keep_gradients(self) -> None:
        """Copy gradients that lie where a replay may write: they are being accumulated."""
        with torch.inference_mode(False), torch.no_grad():  # copies made in inference mode could not be added to
            for parameter, memory in self._gradients.items():
                if parameter.grad is not None and parameter.grad.data_ptr() == memory.data_ptr():
                    parameter.grad = parameter.grad.clone()

    def _can_record(self, parts: "_Parts", images: Tensor) -> bool:
        if images.requires_grad:
            return False
        if self._given is None and images.device.type != "cuda":
            self._say(f"expected images on a CUDA device, got {images.device.type}: the network runs as usual")
            return False
        unfit = parts.unfit or next(
            (("SyncBatchNorm", "it waits for other processes") for norm in parts.synchronised if norm.training), None
        )
        if unfit is not None:
            self._say(f"{unfit[0]} cannot be part of a CUDA graph ({unfit[1]}): the network runs as usual")
        return unfit is None

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            _LOGGER.warning("model.cuda_graphs: %s.", message)


def make_graphs(options: bool | Mapping[str, Any], *, compile: bool | Mapping[str, Any]) -> GraphedNetwork | None:
    """What `model.cuda_graphs` asks for: False is none, True the defaults, else arguments of `GraphedNetwork`.

    Raises:
        TypeError: an unknown argument.
        ValueError: `compile` makes CUDA graphs, too.
    """
    if options is False:
        return None
    mode = compile.get("mode") if isinstance(compile, Mapping) else None
    if mode in ("reduce-overhead", "max-autotune"):
        raise InvalidValueError(
            f"model.cuda_graphs and model.compile.mode={mode!r} both make CUDA graphs. Set model.compile=True, or "
            "model.cuda_graphs=False."
        )
    return GraphedNetwork(**({} if options is True else options))


class _Replay(torch.autograd.Function):
    """A recording as one node of autograd, whose inputs are the parameters."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        graphs: GraphedNetwork,
        recording: Recording,
        images: Tensor,
        valid: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        recording.replay_forward(images, valid)
        ctx.graphs, ctx.replay, ctx.recording = graphs, graphs.replays, recording  # type: ignore[attr-defined]
        outputs = tuple(output.detach() for output in recording.outputs)
        ctx.mark_non_differentiable(
            *(output for output, needed in zip(outputs, recording.needs_grad, strict=True) if not needed)
        )
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        graphs, recording = ctx.graphs, ctx.recording  # type: ignore[attr-defined]
        if ctx.replay != graphs.replays:  # type: ignore[attr-defined]
            again = ctx.replay is None  # type: ignore[attr-defined]
            reason = "it has been called before" if again else "the network has run again in between"
            raise RuntimeError(
                "model.cuda_graphs: expected one backward pass, right after its forward pass, but "
                f"{reason} and has overwritten what it needs. Call backward once, on the sum of the losses and before "
                "the next forward pass, or set model.cuda_graphs=False."
            )
        ctx.replay = None  # type: ignore[attr-defined]
        needed = [grad for grad, needs in zip(grads, recording.needs_grad, strict=True) if needs]
        return None, None, None, None, *recording.replay_backward(needed)


@dataclass(frozen=True)
class _Parts:
    """What is asked of a model at every call, listed once: modules exchanged afterwards are not seen.

    Attributes:
        tensors: parameters and buffers.
        unfit: class name of a module that cannot be recorded, and why.
    """

    model: nn.Module
    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    tensors: list[Tensor]
    stateful: list[HasState]
    synchronised: list[nn.Module]
    unfit: tuple[str, str] | None

    @classmethod
    def of(cls, model: nn.Module) -> "_Parts":
        modules, parameters = list(model.modules()), list(model.parameters())
        names = [type(module).__name__ for module in modules]
        return cls(
            model,
            modules,
            parameters,
            [*parameters, *model.buffers()],
            [module for module in modules if isinstance(module, HasState)],
            [module for module in modules if isinstance(module, nn.SyncBatchNorm)],
            next(((name, _UNFIT[name]) for name in names if name in _UNFIT), None),
        )

    def state(self) -> Hashable:
        """What a recording depends on besides the weights and the images."""
        return (
            tuple(module.training for module in self.modules),
            tuple(parameter.requires_grad for parameter in self.parameters),
            tuple(module.graph_state() for module in self.stateful),
        )


def _circumstances(images: Tensor, valid: Tensor | None) -> Hashable:
    """What a recording depends on besides the model."""
    device = images.device.type
    return (
        images.shape,
        images.dtype,
        valid is not None,
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
    )


@contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts buffers and random generators back to what they were."""
    buffers = list(model.buffers())
    earlier = [buffer.clone() for buffer in buffers]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, value in zip(buffers, earlier, strict=True):
            buffer.copy_(value)


def _restored(most: int) -> GraphedNetwork:
    return GraphedNetwork(most=most)
