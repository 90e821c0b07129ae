"""One recording of a network: its forward and backward pass on memory of its own, and what records it."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError
from mmseg_m2f.models.backbones.partial_maps import PartialMaps

_WARM_UPS = 3
_ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
#: Numbers in gradients that are copied together.
_GRADIENTS_WAITING = 2**22

pytree.register_pytree_node(
    PartialMaps,
    lambda x: ([x.maps, x.valid, x.edge_logits], x.patch_size),
    lambda parts, patch_size: PartialMaps(*parts, patch_size),  # type: ignore[call-arg]
)


@runtime_checkable
class Recorder(Protocol):
    """Records work on tensors so that it can be replayed on the same memory."""

    def start_over(self) -> None:
        """Use other memory from now on: nothing that was recorded is replayed any more."""

    def warm_up(self, run: Callable[[], object]) -> None:
        """Run as often as it takes until nothing is set up any more."""

    def record(self, run: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        """What replays `run`, and the tensors that it writes its results to."""


class CudaRecorder:
    """Records CUDA graphs; all share one pool of memory and one stream, on which the network also warms up."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._stream: Any = None

    def start_over(self) -> None:
        self._pool = None

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
        with (
            _growing_segments(),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            results = run()
        return graph.replay, results


@contextmanager
def _growing_segments() -> Iterator[None]:
    """Let the pool be one segment that grows: pieces of many segments are left over where no tensor fits.

    Does nothing where the environment configures the allocator, whose settings would be lost.
    """
    if any(name in os.environ for name in _ALLOCATOR_SETTINGS):
        yield
        return
    torch.cuda.memory._set_allocator_settings("expandable_segments:True")
    try:
        yield
    finally:
        torch.cuda.memory._set_allocator_settings("expandable_segments:False")


class Recording:
    """One forward pass of a network, and if its outputs need gradients the backward pass, on memory of its own.

    The network computes with stand-ins for the parameters: other tensors on the same memory. At the end of a backward
    pass autograd waits for the streams of all nodes it reached. The nodes of the parameters themselves live as long as
    anybody keeps a loss of an earlier step, and belong to that step's stream, for which a recording must not wait.

    Args:
        model: whose parameters the network reads.
        parameters: those that need gradients.
        gradients: where the backward passes of all recordings of a model write; added to. It is allocated while a
            backward pass is recorded, so that it takes the place of activations that are no longer needed: any replay
            may overwrite it.

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

        self._gradients: dict[nn.Parameter, Tensor] = {}  # of the warm-up
        recorder.warm_up(self._run_both)
        self._gradients = gradients
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
        torch._foreach_copy_(self.output_grads, list(grads))
        assert self._replay_backward is not None
        self._replay_backward()
        return [None if grad is None else grad.detach() for grad in self._grads]

    def rebuild(self, outputs: Sequence[Tensor]) -> object:
        """What the network returned, made of these tensors."""
        leaves = [None if index is None else outputs[index] for index in self._leaf_outputs]
        return pytree.tree_unflatten(leaves, self._structure)

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
