"""The `meta` device as a stand-in for a card: reading a value raises there, and uploads can be seen."""

from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Watch(TorchDispatchMode):
    """Counts operators, and keeps those that bring a tensor of the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = 0
        self.uploads: list[str] = []

    def __enter__(self) -> "Watch":
        self.numbers = _Numbers(self.uploads)
        self.numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.numbers.__exit__(*error)

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        self.ops += 1
        result = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        # A number in a tensor without axes is an argument of the kernel.
        on_host = any(x.device.type == "cpu" and x.dim() > 0 for x in inputs)
        if on_host and any(x.device.type == "meta" for x in outputs):
            self.uploads.append(str(func))
        return result


class _Numbers(TorchFunctionMode):
    """Sees tensors made of numbers of the host, for which no operator is dispatched."""

    def __init__(self, uploads: list[str]) -> None:
        super().__init__()
        self.uploads = uploads

    def __torch_function__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))  # type: ignore[operator]
        name = getattr(func, "__name__", "")
        if name in ("tensor", "new_tensor", "as_tensor", "asarray") and result.device.type == "meta":
            self.uploads.append(name)
        return result
