"""What an exported file says about itself: how it was made, what goes in, what comes out."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias

from mmseg_m2f.json_files import parse_json

#: Of the entry in the file's own metadata.
KEY = "mmseg_m2f"

Output: TypeAlias = Literal["logits", "full"]
Task: TypeAlias = Literal["semantic", "panoptic", "instance"]

_STRUCTURE = {
    **dict.fromkeys(("output", "config"), str),
    **{key: [str] for key in ("tasks", "classes")},
    **dict.fromkeys(("precision?", "licence?"), str),
    **{key: [float] for key in ("mean?", "std?")},
    **dict.fromkeys(("to_rgb?", "reads_valid?", "ignores_padding?"), bool),
    **dict.fromkeys(("size_divisor?", "multiple?", "input_channels?", "max_per_image?"), int),
    **dict.fromkeys(("batch?", "opset?"), (int, None)),
    "palette?": [[int]],
    "category_ids?": [(int, str)],
    "pad_value?": float,
    "size?": ([int], None),
    "tolerances?": {str: float},
    "versions?": {str: str},
}


@dataclass(frozen=True)
class ExportRecord:
    """The metadata inside an exported file.

    Attributes:
        output: "logits", of the last layer before any post-processing, or "full": label maps, panoptic maps, objects.
        tasks: What the model predicts.
        config: Text of the resolved config.
        classes: Names of the K classes.
        palette: K RGB triples.
        category_ids: K numbers or texts of the classes in the data set's files.
        mean, std: Of the three channels after their order was changed, in grey levels 0...255.
        to_rgb: Whether the network sees RGB; images are given as BGR.
        size_divisor: Images are padded below and on the right to multiples of it.
        pad_value: Of padding, after normalisation.
        multiple: Height and width must be multiples of it.
        size: Height and width of the images, if the file takes one size only.
        batch: How many images the file takes at once, if it takes one number only.
        input_channels: Of the images.
        reads_valid: Whether there is an input `valid`, B H W: True for pixels of the image, False for padding.
        ignores_padding: Whether the network gives the same for padding as for pixels of the image, so that a file
            without the input `valid` takes padded images.
        max_per_image: Objects per image of a "full" file; those beyond the found ones have score 0.
        precision: "float32", "float16" or "int8".
        opset: Of ONNX files.
        tolerances: Which errors the file was accepted with.
        versions: Of the packages that made it.
        licence: Of the weights, as the config or the user says.
    """

    output: Output
    tasks: tuple[str, ...]
    config: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    category_ids: tuple[int | str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    to_rgb: bool = True
    size_divisor: int = 1
    pad_value: float = 0.0
    multiple: int = 1
    size: tuple[int, int] | None = None
    batch: int | None = None
    input_channels: int = 3
    reads_valid: bool = False
    ignores_padding: bool = False
    max_per_image: int = 100
    precision: str = "float32"
    opset: int | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    licence: str = "not stated"

    def to_json(self) -> str:
        """The text that is stored in the file."""
        return json.dumps(asdict(self), default=list)

    @classmethod
    def from_json(cls, text: str | None, *, file: str) -> "ExportRecord":
        """The record of a file, from its metadata.

        Raises:
            ValueError: There is none, or it was written by something else.
        """
        known = {each.name for each in fields(cls)}
        content = parse_json(
            text or "null",
            source=file,
            what=f"a file that tools/export.py wrote, whose metadata has the entry '{KEY}'",
            structure=_STRUCTURE,
            remedy="Export the checkpoint with tools/export.py, or run the file with its own runtime.",
        )
        entries: dict[str, Any] = {name: _hashable(value) for name, value in content.items() if name in known}
        return cls(**entries)


def _hashable(value: object) -> object:
    return tuple(_hashable(each) for each in value) if isinstance(value, list) else value
