"""A small web page to try a model: a picture in, the picture with the results drawn over it out. Needs gradio."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.visualization import annotate


class Drawer:
    """What the page shows for a picture.

    Raises:
        ValueError: the model takes images of other channels than red, green and blue.
    """

    def __init__(self, predictor: Predictor) -> None:
        if predictor.num_channels is not None:
            raise InvalidValueError(
                f"The demo page shows RGB pictures; expected a model of such images, got one of "
                f"{predictor.num_channels} channels. Use tools/predict.py."
            )
        self.predictor = predictor

    def __call__(
        self, picture: UInt8[np.ndarray, "H W 3"] | None, opacity: float, score_threshold: float
    ) -> tuple[UInt8[np.ndarray, "H2 W2 3"] | None, str]:
        """The results drawn over a picture with their legend, and what was found in words; None without a picture."""
        if picture is None:
            return None, "Choose a picture first."
        result = self.predictor(np.ascontiguousarray(picture[..., ::-1]))
        classes, palette = self.predictor.classes, self.predictor.palette
        page = annotate(picture, result, classes, palette, opacity=opacity, score_threshold=score_threshold)
        found: list[str] = []
        if result.semantic is not None:
            found += _shares(result.semantic, classes)
        if result.instances is not None:
            sure = result.instances.labels[result.instances.scores >= score_threshold]
            found += [
                f"{classes[label]}: {count} found"
                for label, count in zip(*np.unique(sure, return_counts=True), strict=True)
            ]
        return np.asarray(page.convert("RGB")), "\n".join(found) or "Nothing found."


def build_page(predictor: Predictor, *, title: str, examples: Sequence[str] = ()) -> Any:  # noqa: ANN401 — gradio's Blocks
    """The page, not yet served: `.launch()` serves it.

    Args:
        examples: image files to click on.

    Raises:
        TypeError: gradio is not installed.
        ValueError: see `Drawer`.
    """
    gradio = _gradio()
    draw = Drawer(predictor)
    with gradio.Blocks(title=title) as page:
        gradio.Markdown(f"# {title}\n{len(predictor.classes)} classes: {', '.join(predictor.classes)}.")
        with gradio.Row():
            picture = gradio.Image(label="Picture", type="numpy", image_mode="RGB")
            drawn = gradio.Image(label="Result", type="numpy", interactive=False)
        with gradio.Row():
            opacity = gradio.Slider(0, 1, value=0.6, step=0.05, label="Opacity of the class colours")
            threshold = gradio.Slider(0, 1, value=0.5, step=0.05, label="Draw objects from this score on")
        button = gradio.Button("Segment", variant="primary")
        found = gradio.Textbox(label="Found", lines=6)
        inputs, outputs = [picture, opacity, threshold], [drawn, found]
        button.click(draw.__call__, inputs, outputs, api_name="segment")
        if examples:
            gradio.Examples([[example] for example in examples], [picture])
    return page


def _shares(labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Share of the picture of each class in it, the largest first."""
    present, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        f"{classes[present[i]]}: {counts[i] / labels.size:.1%} of the picture"
        for i in order
        if present[i] < len(classes)
    ]


def _gradio() -> ModuleType:
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise InvalidTypeError(
            'The demo page: expected the package gradio, which is not installed. Run `pip install "mmseg-m2f[demo]"`.'
        ) from error
    return cast(ModuleType, gradio)
