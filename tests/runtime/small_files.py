"""ONNX files written by hand, so that the runtime is tested without an export."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from mmseg_m2f.runtime import ExportRecord
from mmseg_m2f.runtime.export_record import KEY

RECORD = ExportRecord(output="logits", tasks=("semantic",), config="{}", classes=("dark", "bright"))


def write_file(path: Path, record: ExportRecord | None = RECORD, *, nodes: list | None = None, opset: int = 18) -> Path:
    """A file whose `scores` are its `images`."""
    kind = TensorProto.FLOAT if record is None or record.output == "logits" else TensorProto.UINT8
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["images"], ["scores"])],
        "graph",
        [helper.make_tensor_value_info("images", kind, ["B", 3, "H", "W"])],
        [helper.make_tensor_value_info("scores", kind, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    if record is not None:
        helper.set_model_props(model, {KEY: record.to_json()})
    onnx.save(model, str(path))
    return path
