"""`metafile.yml` of each folder of configs and `model-index.yml`, which `mim` reads: written from the configs.

After a new leaf or a change of one: `python -m tests.configs.metafiles`. It keeps the published metrics, which
stand in the metafiles and in the README beside them; all else follows from the leaves.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from tests.configs.resolved import FOLDER, leaves

ROOT = FOLDER.parent
INDEX = ROOT / "model-index.yml"
#: Part of a leaf's name -> the data set as papers call it.
DATA = {
    "ade20k": "ADE20K",
    "cityscapes": "Cityscapes",
    "mapillary": "Mapillary Vistas",
    "cocostuff164k": "COCO-Stuff 164k",
    "cocostuff10k": "COCO-Stuff 10k",
    "coco": "COCO",
    "pascal-context": "PASCAL-Context 59",
    "camvid": "CamVid",
    "dsb2018": "DSB2018",
    "shapes": "generated shapes",
}
NOT_RUN, PUBLISHED, MEASURED = "not run", "published, not run here", "measured here"


def folders() -> list[Path]:
    """The folders of methods."""
    return sorted({path.parent for path in leaves()})


def read(path: Path) -> dict[str, Any]:
    """A YAML file; nothing where there is none."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def section(readme: str, title: str) -> str:
    """The part of a README below a heading of level two that starts with `title`."""
    found = re.search(rf"^## {title}.*?(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def metafile(folder: Path) -> dict[str, Any]:
    """What `metafile.yml` of a folder has to hold: the stored metrics, all else from the README and the leaves."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    stored = {model["Name"]: model for model in read(folder / "metafile.yml").get("Models", ())}
    collection: dict[str, Any] = dict(
        Name=readme.splitlines()[0].removeprefix("# "),
        Metadata=dict(License="Apache-2.0"),
        README=(folder / "README.md").relative_to(ROOT).as_posix(),
    )
    if paper := re.search(r"^\[([^]]+)\]\((https://arxiv\.org/abs/[^)]+)\)$", readme, re.MULTILINE):
        collection["Paper"] = dict(Title=paper[1], URL=paper[2])
    heads = (ROOT / "docs/heads.md").read_text(encoding="utf-8")
    measured = [section(readme, "Measured here"), section(readme, "Variants"), heads]
    models = [
        _model(
            path, collection["Name"], _published(stored.get(path.stem, {})), any(path.stem in text for text in measured)
        )
        for path in leaves()
        if path.parent == folder
    ]
    return dict(Collections=[collection], Models=models)


def _published(model: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {result["Task"]: result["Metrics"] for result in model.get("Results", ()) if result.get("Metrics")}


def _model(path: Path, collection: str, metrics: dict[str, dict[str, float]], measured: bool) -> dict[str, Any]:
    config = Config.fromfile(path)
    data = next(name for part, name in DATA.items() if part in path.stem)
    results = [dict(Task=task, Dataset=data, Metrics=metrics.get(task, {})) for task in _tasks(config)]
    return {
        "Name": path.stem,
        "In Collection": collection,
        "Config": path.relative_to(ROOT).as_posix(),
        "Metadata": {
            "Training Data": data,
            "Iterations": config.max_iters,
            "Figures": PUBLISHED if metrics else MEASURED if measured and "_debug" not in path.stem else NOT_RUN,
        },
        "Results": results,
    }


def _tasks(config: Config) -> list[str]:
    if config.model.type != "mmseg_m2f.MaskDetector":
        return ["Semantic Segmentation"]
    settings = config.model.test_cfg
    evaluators = config.val_evaluator if isinstance(config.val_evaluator, list) else [config.val_evaluator]
    if evaluators[0].get("metric") == ["bbox"]:
        return ["Object Detection"]
    return ["Panoptic Segmentation"] if settings.panoptic else ["Instance Segmentation"]


def index() -> dict[str, list[str]]:
    """What `model-index.yml` has to hold."""
    return dict(Import=[f"configs/{folder.name}/metafile.yml" for folder in folders()])


def dump(content: dict[str, Any]) -> str:
    """As the files are written."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def main() -> None:
    """Write all of them."""
    for folder in folders():
        (folder / "metafile.yml").write_text(dump(metafile(folder)), encoding="utf-8")
    INDEX.write_text(dump(index()), encoding="utf-8")


if __name__ == "__main__":
    main()
