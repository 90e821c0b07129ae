"""Files whose pixels are stored in unusual ways."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def write_grey_png(path: Path, values: np.ndarray, bits: int) -> None:
    """A grey PNG of 1, 2, 4 or 8 bits, which Pillow writes for palettes alone. `values` are H W below 2**bits."""
    height, width = values.shape
    rows = b""
    for row in values:
        digits = "".join(f"{int(value):0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    )


def write_empty_png(path: Path, size: tuple[int, int]) -> None:
    """The header of a PNG of one bit, (height, width), without its pixels."""
    header = struct.pack(">IIBBBBB", size[1], size[0], 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_turned(path: Path, pixels: np.ndarray, orientation: int) -> None:
    """`pixels` as they are stored, with an EXIF tag that says how to turn them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif.tobytes())
