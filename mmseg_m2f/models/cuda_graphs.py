"""The network of a model as CUDA graphs: the host starts a whole forward or backward pass by one call.

A graph replays recorded kernels on the same memory, so a recording holds for one shape of images and one state of the
model. `GraphedNetwork` makes a recording when a shape comes for the second time, keeps the last few, and runs
everything else as usual. What lies outside the network (targets, matching, losses, post-processing, optimizer) is not
recorded.

- Outputs lie in memory that the next replay overwrites. Gradients of parameters are handed over without copying; where
  gradients are accumulated, those of earlier steps are copied first.
- All recordings share their memory. So between a forward pass and its backward pass nothing else may be replayed; it
  raises.
- Weights may change in place (optimizer, moving averages, checkpoints). Weights that move, as by `model.half()`,
  discard all recordings; other modes or frozen layers make further ones.
- Under autocast, weights are cast inside the graph, as its cache would outlive the recording.
- A recording runs the network three times beforehand. Statistics of norms and the random generator are put back.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.func import functional_call
from torch.utils import _pytree as pytree

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError
from mmseg_m2f.models.backbones.partial_maps import PartialMaps

_LOGGER = logging.getLogger("mmseg_m2f")
_WARM_UPS = 3
#: After so many other calls a recording may make room for that of another shape.
_PATIENCE = 64
#: Numbers in gradients that are copied together.
_GRADIENTS_WAITING = 2**22
#: Modules that compute with the host, by class name, and what they do.
_UNFIT = {
    "NMF2D": "it draws its bases on the host",
    "SteadyNMF": "it draws its bases on the host",
    "DetrMaskHead": "it computes masks only when they are asked for",
}

Result = TypeVar("Result")

pytree.register_pytree_node(
    PartialMaps,
    lambda x: ([x.maps, x.valid, x.edge_logits], x.patch_size),
    lambda parts, patch_size: PartialMaps(*parts, patch_size),  # type: ignore[call-arg]
)


@runtime_checkable
class Recorder(Protocol):
    """Records work on tensors so that it can be replayed on the same memory."""

    def warm_up(self, run: Callable[[], object]) -> None:
        """Run as often as it takes until nothing is set up any more."""

    def record(self, run: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        """What replays `run`, and the tensors that it writes its results to."""


class CudaRecorder:
    """Records CUDA graphs; all share one pool of memory and one stream, on which the network also warms up."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._stream: Any = None

    def warm_up(self, run: Callable[[], object]) -> None:
        self._stream = self._stream or torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.synchronize()

    def record(self, run: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as the one that pins memory of batches, may go on meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            results = run()
        return graph.replay, results


@runtime_checkable
class HasState(Protocol):
    """A module whose forward pass depends on something else than tensors, its mode and its arguments."""

    def graph_state(self) -> Hashable:
        """That; a recording holds for one value of it."""


class RecordingCache:
    """Which keys to record: those that come again, as many as there is room for.

    Args:
        most: recordings kept. Another key gets the place of the one not used for longest, if that was not used in the
            last 64 calls.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.recordings: OrderedDict[Hashable, Recording] = OrderedDict()
        self._last_use: dict[Hashable, int] = {}
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._calls = 0

    def find(self, key: Hashable) -> "Recording | None":
        """The recording of a key, if there is one."""
        self._calls += 1
        recording = self.recordings.get(key)
        if recording is not None:
            self.recordings.move_to_end(key)
            self._last_use[key] = self._calls
        return recording

    def wants(self, key: Hashable) -> bool:
        """Whether to record a key that has no recording, which makes room for it; asked once per call."""
        if key not in self._seen:
            self._seen[key] = None
            while len(self._seen) > 16 * self.most:
                self._seen.popitem(last=False)
            return False
        if len(self.recordings) >= self.most:
            oldest = next(iter(self.recordings))
            if self._calls - self._last_use[oldest] <= _PATIENCE:
                return False
            del self.recordings[oldest]
        return True

    def keep(self, key: Hashable, recording: "Recording") -> None:
        """Add a recording."""
        self.recordings[key] = recording
        self._last_use[key] = self._calls

    def clear(self) -> None:
        """Forget everything."""
        self.recordings.clear()
        self._seen.clear()


class Recording:
    """One forward pass of a network, and if its outputs need gradients the backward pass, on memory of its own.

    The network computes with stand-ins for the parameters: other tensors on the same memory. At the end of a backward
    pass autograd waits for the streams of all nodes it reached. The nodes of the parameters themselves live as long as
    anybody keeps a loss of an earlier step, and belong to that step's stream, for which a recording must not wait.

    Args:
        model: whose parameters the network reads.
        parameters: those that need gradients.
        gradients: where the backward passes of all recordings of a model write; added to. This memory is no graph's, as
            another replay would overwrite gradients that are being accumulated.

    Raises:
        TypeError: the network gives something else than tensors.
        ValueError: the network reads a parameter by another way than as an attribute of its module.
    """

    def __init__(
        self,
        model: nn.Module,
        network: Callable[[Tensor, Tensor | None], object],
        images: Float[Tensor, "B C H W"],
        valid: Bool[Tensor, "B H W"] | None,
        parameters: Sequence[nn.Parameter],
        recorder: Recorder,
        gradients: dict[nn.Parameter, Tensor],
    ) -> None:
        self._network, self._parameters = _Network(model, network), parameters
        stand_ins = {id(parameter): parameter.detach().requires_grad_() for parameter in parameters}
        names = {name: stand_ins[id(p)] for name, p in self._network.named_parameters() if id(p) in stand_ins}
        self._stand_ins, self._named_stand_ins = list(stand_ins.values()), names
        self._images, self._valid = images.clone(), None if valid is None else valid.clone()
        self._autocast = torch.is_autocast_enabled(images.device.type), torch.get_autocast_dtype(images.device.type)
        self._live: list[Tensor] = []
        self.needs_grad: list[bool] = []
        self.output_grads: list[Tensor] = []
        self._replay_backward: Callable[[], None] | None = None
        self._grads: list[Tensor | None] = []

        self._gradients = gradients
        recorder.warm_up(self._run_both)
        self._replay_forward, self.outputs = recorder.record(self._run_forward)
        if any(self.needs_grad):
            self._replay_backward, _ = recorder.record(self._run_backward)
        self._live = []

    def replay_forward(self, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None) -> None:
        """Write the outputs for these images into `outputs`."""
        self._images.copy_(images)
        if valid is not None:
            assert self._valid is not None
            self._valid.copy_(valid)
        self._replay_forward()

    def replay_backward(self, grads: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of the parameters, from those of the outputs that need one."""
        self._keep_earlier_gradients()
        torch._foreach_copy_(self.output_grads, list(grads))
        assert self._replay_backward is not None
        self._replay_backward()
        return [None if grad is None else grad.detach() for grad in self._grads]

    def rebuild(self, outputs: Sequence[Tensor]) -> object:
        """What the network returned, made of these tensors."""
        leaves = [None if index is None else outputs[index] for index in self._leaf_outputs]
        return pytree.tree_unflatten(leaves, self._structure)

    def _keep_earlier_gradients(self) -> None:
        """Copy gradients that still lie where this replay writes: they are being accumulated."""
        for parameter, grad in zip(self._parameters, self._grads, strict=True):
            earlier = parameter.grad
            if earlier is not None and grad is not None and earlier.data_ptr() == grad.data_ptr():
                parameter.grad = earlier.clone()

    def _run_forward(self) -> list[Tensor]:
        enabled, dtype = self._autocast
        with torch.autocast(self._images.device.type, dtype, enabled=enabled, cache_enabled=False):
            result = functional_call(self._network, self._named_stand_ins, (self._images, self._valid))
        leaves, self._structure = pytree.tree_flatten(result)
        unique: dict[int, Tensor] = {}
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                unique[id(leaf)] = leaf
            elif leaf is not None:
                raise InvalidTypeError(
                    f"model.cuda_graphs: expected a network that gives tensors alone, got {type(leaf).__name__} as "
                    "well. Set model.cuda_graphs=False."
                )
        numbers = {name: number for number, name in enumerate(unique)}
        self._leaf_outputs = [None if leaf is None else numbers[id(leaf)] for leaf in leaves]
        self._live = list(unique.values())
        self.needs_grad = [tensor.requires_grad for tensor in self._live]
        return [tensor.detach() for tensor in self._live]

    def _run_backward(self) -> list[Tensor]:
        outputs = [tensor for tensor in self._live if tensor.requires_grad]
        if not self.output_grads:
            self.output_grads = [torch.zeros_like(output) for output in outputs]
            self._check_stand_ins(outputs)
        grads = _GradientWriter(self._gradient_of)
        handles = [
            stand_in.register_post_accumulate_grad_hook(partial(grads.take, parameter))
            for stand_in, parameter in zip(self._stand_ins, self._parameters, strict=True)
        ]
        torch.autograd.backward(outputs, self.output_grads, inputs=self._stand_ins)
        for handle in handles:
            handle.remove()
        written = grads.finish()
        self._grads = [written.get(parameter) for parameter in self._parameters]
        return list(written.values())

    def _gradient_of(self, parameter: nn.Parameter) -> Tensor:
        """Memory for the gradient of a parameter, in its layout, so that autograd takes it over as it is."""
        if parameter not in self._gradients:
            self._gradients[parameter] = torch.empty_like(parameter)
        return self._gradients[parameter]

    def _check_stand_ins(self, outputs: Sequence[Tensor]) -> None:
        """Raise where a gradient would reach a parameter past its stand-in."""
        grads = torch.autograd.grad(
            outputs, list(self._parameters), self.output_grads, allow_unused=True, retain_graph=True
        )
        shape = next((grad.shape for grad in grads if grad is not None), None)
        if shape is not None:
            raise InvalidValueError(
                "model.cuda_graphs: expected parameters that are read as attributes of their modules, got one of shape "
                f"{tuple(shape)} that is kept elsewhere. Set model.cuda_graphs=False."
            )

    def _run_both(self) -> None:
        self._run_forward()
        if any(self.needs_grad):
            self._run_backward()
        self._live = []


class _GradientWriter:
    """Moves gradients to where they stay, a few at a time, while the backward pass goes on and reuses their memory.

    Args:
        memory_of: where the gradient of a parameter stays.
    """

    def __init__(self, memory_of: Callable[[nn.Parameter], Tensor]) -> None:
        self._memory_of = memory_of
        self._written: dict[nn.Parameter, Tensor] = {}
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def take(self, parameter: nn.Parameter, stand_in: Tensor) -> None:
        """Take the gradient over from a stand-in."""
        assert stand_in.grad is not None
        self._written[parameter] = self._memory_of(parameter)
        self._waiting.append((self._written[parameter], stand_in.grad))
        stand_in.grad = None
        if sum(grad.numel() for _, grad in self._waiting) >= _GRADIENTS_WAITING:
            self._write()

    def finish(self) -> dict[nn.Parameter, Tensor]:
        """Write what is left; the gradients of all parameters that have one."""
        self._write()
        return self._written

    def _write(self) -> None:
        if self._waiting:
            with torch.no_grad():
                torch._foreach_copy_([kept for kept, _ in self._waiting], [grad for _, grad in self._waiting])
        self._waiting = []


class _Network(nn.Module):
    """A network of a model as a module, which `functional_call` gives other parameters."""

    def __init__(self, model: nn.Module, network: Callable[[Tensor, Tensor | None], object]) -> None:
        super().__init__()
        self.model, self.network = model, network

    def forward(self, images: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None) -> object:
        return self.network(images, valid)


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
        try:
            return Recording(model, network, images, valid, parameters, self._recorder, self._gradients)
        except RuntimeError as error:
            raise RuntimeError(
                f"model.cuda_graphs: the network could not be recorded for images of shape {tuple(images.shape)}: "
                f"{str(error).splitlines()[0]} Something in it waits for the device or uploads. Set "
                "model.cuda_graphs=False, and report the cause above if all parts are of mmseg_m2f."
            ) from error

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
            raise RuntimeError(
                "model.cuda_graphs: expected the backward pass right after its forward pass, but the network has run "
                "again in between and overwritten what it needs. Call backward first, or set model.cuda_graphs=False."
            )
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
