"""The runtimes: onnxruntime, OpenVINO and torch.export's programs, each as arrays in, arrays out."""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmseg_m2f import compat
from mmseg_m2f.errors import InvalidValueError, MissingFileError, ResourceError
from mmseg_m2f.runtime.export_record import KEY


@runtime_checkable
class Session(Protocol):
    """A file that is ready to run; made by `open_session`."""

    metadata: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Outputs by their names.

        Raises:
            RuntimeError: The runtime fails.
        """
        ...


def open_session(path: Path, *, device: str = "cpu", threads: int | None = None) -> Session:
    """Load a file into the runtime of its suffix.

    Args:
        device: "cpu", or "cuda" where onnxruntime or torch have it.
        threads: Of the runtime; its own choice unless given.

    Raises:
        FileNotFoundError: The weights of an OpenVINO file are missing.
        ValueError: The runtime is not installed, has no such device, or does not accept the file.
    """
    kinds: dict[str, tuple[Callable[[Path, str, int | None], Session], str]] = {
        ".onnx": (_OnnxSession, "onnxruntime"),
        ".xml": (_OpenVinoSession, "openvino"),
        ".pt2": (_ProgramSession, "torch"),
    }
    kind, package = kinds[path.suffix.lower()]
    if not compat.is_installed(package):
        raise InvalidValueError(
            f"{path}: expected {package} to run it, got an environment without it. "
            'Run `pip install "mmseg-m2f[export]"`.'
        )
    if device.startswith("cuda") and not _has_cuda(package):
        raise InvalidValueError(
            f"{path}: expected {package} with CUDA for device '{device}', got one without it. Install "
            'onnxruntime-gpu or a torch with CUDA, or take device="cpu".'
        )
    if package == "openvino" and not (weights := path.with_suffix(".bin")).is_file():
        raise MissingFileError(
            f"{path}: expected its weights beside it, got no file {weights}. Copy both, or export it again."
        )
    try:
        return kind(path, device, threads)
    except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InvalidValueError(
            f"{path}: {package} does not accept the file ({_reason(error)}). Expected a complete "
            "file of tools/export.py; export it again."
        ) from error


@contextmanager
def _failures_explained(path: Path, package: str, given: Mapping[str, NDArray]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # those of onnxruntime have no base class of their own
        shapes = ", ".join(f"{name} {array.shape} of {array.dtype}" for name, array in given.items())
        raise ResourceError(
            f"{path}: expected {package} to run with {shapes}, got a failure: {_reason(error)}. Give images of another "
            "size or fewer at once, or export the file again with the versions that are installed here."
        ) from error


def _reason(error: Exception) -> str:
    """What an error says, in one line, without the places in OpenVINO's source code."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(lines).rstrip(".") or type(error).__name__


def _has_cuda(package: str) -> bool:
    if package == "onnxruntime":
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    import torch

    return package == "torch" and torch.cuda.is_available()


class _OnnxSession:
    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        import onnxruntime

        self._path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = [*(["CUDAExecutionProvider"] if device.startswith("cuda") else []), "CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise ValueError(str(error)) from error
        self.metadata = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.inputs = tuple(each.name for each in self._session.get_inputs())
        self.outputs = tuple(each.name for each in self._session.get_outputs())

    def __call__(self, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        given = {name: arrays[name] for name in self.inputs}
        with _failures_explained(self._path, "onnxruntime", given):
            return dict(zip(self.outputs, self._session.run(None, given), strict=True))


class _OpenVinoSession:
    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        import openvino

        self._path = path
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        model = openvino.Core().read_model(str(path))
        self._compiled = openvino.compile_model(model, "CPU", options)
        self.metadata = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        self.inputs = tuple(each.get_any_name() for each in model.inputs)
        self.outputs = tuple(each.get_any_name() for each in model.outputs)

    def __call__(self, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        given = {name: arrays[name] for name in self.inputs}
        with _failures_explained(self._path, "openvino", given):
            found = self._compiled(given)
            return {name: np.asarray(found[index]) for index, name in enumerate(self.outputs)}


class _ProgramSession:
    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        import torch

        extra = {f"{KEY}.json": "", f"{KEY}.names.json": ""}
        program = torch.export.load(path, extra_files=extra)
        self._module = program.module(check_guards=False).to(device)
        self._device = device
        self.metadata = extra[f"{KEY}.json"] or None
        names = extra[f"{KEY}.names.json"].split("|")
        self.inputs, self.outputs = (tuple(part.split(",")) for part in names)

    def __call__(self, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        import torch

        with torch.no_grad():
            found = self._module(*(torch.from_numpy(arrays[name]).to(self._device) for name in self.inputs))
        return {name: found[name].cpu().numpy() for name in self.outputs}
