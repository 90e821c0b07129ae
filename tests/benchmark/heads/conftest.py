import base64
import json
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from mmseg_m2f.benchmark.heads.running import Run


def write_result(folder: Path, name: str, seed: int, score: float, **changes: object) -> Run:
    """A finished run whose pictures are plain: input grey, truth green, prediction red."""
    run = Run(name, f"configs/{name}.py", seed, folder / name / f"seed-{seed}")
    files = dict(input=(128, 128, 128), truth=(0, 255, 0), prediction=(255, 0, 0))
    (run.folder / "pictures").mkdir(parents=True)
    for which, colour in files.items():
        Image.new("RGB", (32, 24), colour).save(run.folder / f"pictures/{which}.png")
    kinds = dict(semantic=dict(truth="pictures/truth.png", prediction="pictures/prediction.png"))
    result = dict(
        batch=8,
        processes=1,
        data=dict(type="GeneratedShapes", images=2, classes=8),
        metrics={"mIoU": score, "aAcc": 0.9},
        scores={"mIoU": score},
        history=[dict(iteration=at, scores={"mIoU": score * at / 20}) for at in (10, 20)],
        costs=dict(
            parameters=2_500_000,
            multiply_adds=3_000_000_000,
            image_size=[96, 96],
            latency_s=0.01 + seed,
            step_s=0.2,
            step_bytes=50e6,
            device="CPU",
        ),
        pictures=[dict(index=0, name="scene <0>", input="pictures/input.png", kinds=kinds)],
    )
    run.result.write_text(json.dumps(result | changes))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two heads: one with two seeds, one that reports percent."""
    return [
        write_result(tmp_path, "a", 0, 0.6),
        write_result(tmp_path, "a", 2, 0.8),
        write_result(tmp_path, "b", 0, 0.9, metrics={"mIoU": 90.0}),
    ]


class Page(HTMLParser):
    """Images, headings and cells of a page; complains about tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[tuple[str, Image.Image]] = []
        self.texts: dict[str, list[str]] = {}
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")]
        if tag == "img":
            data = base64.b64decode(found["src"].partition(",")[2])
            self.images.append((found["alt"], Image.open(BytesIO(data)).convert("RGB")))
        elif tag not in ("meta", "wbr"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data


SMALL = {
    "train_dataloader.batch_size": 2,
    "train_dataloader.dataset.length": 4,
    **{f"{loop}_dataloader.num_workers": 0 for loop in ("val", "test")},
    **{f"{loop}_dataloader.persistent_workers": False for loop in ("val", "test")},
    **{f"{loop}_dataloader.dataset.length": 2 for loop in ("val", "test")},
}
LEAVES = [
    "configs/mask2former/mask2former_r18_shapes_debug.py",
    "configs/context_cluster/semantic-fpn_coc_tiny_shapes_debug.py",
]
