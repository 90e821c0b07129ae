"""Traced programs as files: ONNX, torch.export, OpenVINO. Names of files are those that the caller gives."""

import importlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from mmseg_m2f import compat
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.programs import TracedProgram
from mmseg_m2f.runtime import ExportRecord
from mmseg_m2f.runtime.export_record import KEY

#: The first version of ONNX with all operators that are needed.
FIRST_OPSET = 18
#: Files of one protocol buffer cannot be larger.
_MOST_BYTES = 2**31 - 2**20


def require(package: str) -> ModuleType:
    """A package of the extra `export`.

    Raises:
        ValueError: It is not installed.
    """
    if not compat.is_installed(package):
        raise InvalidValueError(
            f"tools/export.py: expected the package {package}, got an environment without it. Run "
            '`pip install "mmseg-m2f[export]"`.'
        )
    return importlib.import_module(package)


def check_opset(opset: int) -> None:
    """Refuse versions of ONNX that the exporter would silently replace, or that the installed onnx does not know.

    Raises:
        ValueError: The version is too old or too new, or onnx is missing.
    """
    if opset < FIRST_OPSET:
        raise InvalidValueError(
            f"--opset: expected {FIRST_OPSET} or newer, got {opset}: torch's exporter writes "
            f"{FIRST_OPSET} in its place. "
            f"Take --opset {FIRST_OPSET}; runtimes that stop at {opset} cannot run these models."
        )
    if opset > FIRST_OPSET and opset > (newest := require("onnx.defs").onnx_opset_version()):
        raise InvalidValueError(
            f"--opset: expected at most {newest}, the newest that the installed onnx knows, got {opset}."
        )


def write_onnx(traced: TracedProgram, path: Path, *, opset: int = FIRST_OPSET) -> None:
    """Write an ONNX file with the names of the traced program.

    Raises:
        ValueError: The version is too old, a package is missing, or the weights need more than 2 GB.
    """
    check_opset(opset)
    for package in ("onnx", "onnxscript"):
        require(package)
    size = sum(value.numel() * value.element_size() for value in traced.program.state_dict.values())
    if size > _MOST_BYTES:
        raise InvalidValueError(
            f"{path}: expected weights of less than 2 GB, which one ONNX file holds, got "
            f"{size / 2**30:.1f} GB. Export to .pt2."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter calls what torch deprecates
        exported = torch.onnx.export(traced.program, dynamo=True, opset_version=opset, verbose=False, optimize=False)
    assert exported is not None
    # torch's own call infers the shape of every node twice, which takes as long as the rest of the export; runtimes
    # fold what depends on shapes themselves.
    require("onnxscript.optimizer").optimize(exported.model, num_iterations=1, onnx_shape_inference=False)
    graph = exported.model.graph
    for values, names in ((graph.inputs, traced.inputs), (graph.outputs, traced.outputs)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    exported.save(str(path), external_data=False)


def finish_onnx(source: Path, target: Path, record: ExportRecord, *, outputs: Sequence[str]) -> None:
    """Write a file again with some of its outputs alone, and with the record in its metadata."""
    onnx = require("onnx")
    model = onnx.load(str(source))
    kept = [value for value in model.graph.output if value.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    _drop_unused(model)
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, record.to_json()
    for node in model.graph.node:  # traces of the source code, longer than the graph
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(model, str(target))


def write_program(traced: TracedProgram, path: Path, record: ExportRecord) -> None:
    """Write a `.pt2` file; torch loads it without the code of the model.

    Raises:
        ValueError: the format lacks an operator of the program.
    """
    extra = {
        f"{KEY}.json": record.to_json(),
        f"{KEY}.names.json": f"{','.join(traced.inputs)}|{','.join(traced.outputs)}",
    }
    content = io.BytesIO()
    try:
        torch.export.save(traced.program, content, extra_files=extra)
    except RuntimeError as error:
        raise InvalidValueError(
            f"{path.name}: torch.export cannot store this program: {error.__cause__ or error}. Export it for one size "
            "(--size H W), or to .onnx."
        ) from error
    path.write_bytes(content.getvalue())  # faults of the disk are Python's


def write_openvino(source: Path, target: Path, record: ExportRecord) -> None:
    """Write an ONNX file as OpenVINO's `.xml` with a `.bin` beside it, both with the names of `target`."""
    openvino = require("openvino")
    model = openvino.convert_model(str(source))
    model.set_rt_info(record.to_json(), [KEY])
    openvino.save_model(model, str(target), compress_to_fp16=False)


def _drop_unused(model: Any) -> None:  # noqa: ANN401
    """Remove what no output needs: nodes and weights."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    needed.update(name for inner in graph.node for name in inner.input)
    weights = [each for each in model.graph.initializer if each.name in needed]
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    del model.graph.value_info[:]
