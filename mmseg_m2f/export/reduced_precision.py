"""ONNX files in float16 and int8, by onnxruntime's own tools.

In float16 everything that adds up or divides many numbers, and all places where maps are read, stays float32: softmax,
norms, sums, resizing, coordinates. In int8 convolutions alone are quantised, each channel with its own scale; the
ranges of their inputs are measured on images.
"""

import tempfile
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.writers import require
from mmseg_m2f.runtime.export_record import KEY

#: Operators that stay float32 in float16 files.
_IN_FLOAT32 = (
    "Softmax",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "ReduceSum",
    "ReduceMean",
    "ReduceL2",
    "CumSum",
    "Resize",
    "GridSample",
    "Range",
    "Pow",
    "Sqrt",
    "Reciprocal",
    "Exp",
    "Sin",
    "Cos",
    "Floor",
    "TopK",
)
_PRODUCTS = ("MatMul", "Gemm", "Conv")


def to_float16(path: Path) -> None:
    """Rewrite an ONNX file in place with float16 weights and products; inputs and outputs stay float32."""
    onnx = require("onnx")
    require("onnxruntime")
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load(str(path))
    kept = _ways_to_places(model.graph)
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=sorted({*DEFAULT_OP_BLOCK_LIST, *_IN_FLOAT32}),
        node_block_list=kept,
    )
    onnx.save(converted, str(path))


def to_int8(path: Path, batches: Iterable[Mapping[str, NDArray]]) -> None:
    """Rewrite an ONNX file in place with int8 convolutions.

    Args:
        batches: Inputs of the file that the ranges of numbers are measured on.

    Raises:
        ValueError: There are none.
    """
    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise InvalidValueError(
            "--calibration: expected images that have the size of the file after the test pipeline, got none. Give "
            "images of that size, or leave --size out."
        )
    measured = chain([first], remaining)
    onnx = require("onnx")
    require("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def get_next(self) -> Mapping[str, NDArray] | None:
            return next(measured, None)

    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder) / "quantised.onnx"
        quantize_static(
            str(path),
            str(quantised),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options=dict(ActivationSymmetric=False, WeightSymmetric=True),
        )
        model = onnx.load(str(quantised))
    record = next(entry.value for entry in onnx.load(str(path)).metadata_props if entry.key == KEY)
    used = {node.domain for node in model.graph.node}
    imports = [each for each in model.opset_import if each.domain in ("", "ai.onnx") or each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, record
    onnx.save(model, str(path))


def _ways_to_places(graph: Any) -> list[str]:  # noqa: ANN401
    """Names of the nodes between products and the places where `GridSample` and `GatherElements` read."""
    makers = {output: node for node in graph.node for output in node.output}
    waiting = [node.input[1] for node in graph.node if node.op_type in ("GridSample", "GatherElements", "GatherND")]
    kept: set[str] = set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in kept or node.op_type in _PRODUCTS:
            continue
        kept.add(node.name)
        waiting.extend(node.input)
    return sorted(kept)
