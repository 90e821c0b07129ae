"""The script that is written beside a full ONNX file: it needs onnxruntime and numpy alone."""

#: `@MODEL@` stands for the name of the file.
SCRIPT = '''"""Results for an image by @MODEL@: needs onnxruntime and numpy alone.

    python THIS_FILE.py IMAGE OUT.npz

IMAGE is a .npy array H W C (uint8, BGR), a binary .ppm file, or any image if Pillow is installed, in the size that the
model was trained for. OUT.npz has `labels` H W, `panoptic` H W (class + 1000 * instance number, the number of classes
where nothing is found), `object_scores`, `object_labels`, `object_boxes` (x1 y1 x2 y2, pixels) and `object_masks`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

MODEL = Path(__file__).with_name("@MODEL@")


def read_image(path):
    """A file as H W 3, uint8, BGR."""
    if path.endswith(".npy"):
        return np.load(path)
    if path.endswith(".ppm"):
        content = Path(path).read_bytes()
        kind, width, height, top = content.split(None, 4)[:4]
        if (kind, top) != (b"P6", b"255"):
            raise SystemExit(f"{path}: expected a binary PPM of 8 bits (P6, 255), got {kind}, {top}.")
        size = int(height) * int(width) * 3
        return np.frombuffer(content[-size:], np.uint8).reshape(int(height), int(width), 3)[..., ::-1]
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))[..., ::-1]


def predict(session, record, image):
    """What the model predicts for an image, by name."""
    channels, multiple, size = record["input_channels"], record["multiple"], record["size"]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
        raise SystemExit(f"Expected an image H W {channels} of uint8, got {image.shape} of {image.dtype}.")
    height, width = image.shape[:2]
    if (size and [height, width] != size) or height % multiple or width % multiple:
        wanted = f"of {size[0]} x {size[1]}" if size else f"that are multiples of {multiple}"
        raise SystemExit(f"Expected a height and width {wanted}, got {height} x {width}. Resize or pad the image.")
    values = session.run(None, {"images": np.ascontiguousarray(image.transpose(2, 0, 1)[None])})
    found = {output.name: value[0] for output, value in zip(session.get_outputs(), values)}
    if "object_scores" in found:
        kept = found["object_scores"] > 0
        found.update({name: value[kept] for name, value in found.items() if name.startswith("object_")})
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    session = onnxruntime.InferenceSession(str(MODEL), providers=onnxruntime.get_available_providers())
    record = json.loads(session.get_modelmeta().custom_metadata_map["mmseg_m2f"])
    found = predict(session, record, read_image(sys.argv[1]))
    np.savez_compressed(sys.argv[2], **found, classes=np.array(record["classes"]))
    print({name: value.shape for name, value in found.items()})
'''
