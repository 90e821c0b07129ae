"""A trained model as one folder that other machines read without this run: weights, config, classes, figures, card.

The folder has the shape of a repository of the Hugging Face Hub: weights as safetensors, `config.json`, `README.md`.
Nothing in it is executed when it is read.
"""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from mmseg_m2f.checkpoints.published import CONFIG, SUMS, WEIGHTS, was_written_by_publish
from mmseg_m2f.engine.trained_model import TrainedModel
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.model_export import plain_values
from mmseg_m2f.export.writers import require
from mmseg_m2f.files import folder_of_unfinished
from mmseg_m2f.visualization.markdown import escape_markdown

_CARD = """---
library_name: mmseg_m2f
pipeline_tag: image-segmentation
license: {licence}
---

# {name}

{kind} with {count} classes, trained with [mmseg_m2f](https://pypi.org/project/mmseg-m2f).

```python
from mmseg_m2f.inference import Predictor

predict = Predictor("PATH/OF/THIS/FOLDER")
result = predict("image.png")
```

`load_from = "PATH/OF/THIS/FOLDER"` in a config starts a training from these weights, and
`python tools/export.py PATH/OF/THIS/FOLDER --out model.onnx` writes a file for other runtimes.

## Figures

{figures}

## Classes

{classes}
"""


def publish(
    trained: TrainedModel,
    cfg: Config,
    folder: str | os.PathLike[str],
    *,
    metrics: Mapping[str, float] | None = None,
    licence: str = "unknown",
) -> list[str]:
    """Write the folder and give the names of its files.

    Args:
        folder: A new or empty one, or one that was published before: its files are replaced, further ones stay.
        metrics: What the model reached, for the card; see `metrics.json` of `tools/test.py --out`.
        licence: Of the weights, as the Hub names it.

    Raises:
        ValueError: safetensors is missing, or the folder holds files of something else.
    """
    _check_folder(Path(folder))
    save = getattr(require("safetensors.torch"), "save")  # noqa: B009  (it has no types)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in trained.model.state_dict().items()}
    config = dict(
        model_type="mmseg_m2f",
        version=importlib.metadata.version("mmseg-m2f"),
        config=repr(plain_values(cfg.to_dict())),
        classes=list(trained.classes),
        palette=[list(map(int, colour)) for colour in trained.palette],
        category_ids=list(trained.category_ids),
        metrics=dict(metrics or {}),
        licence=licence,
    )
    card = _CARD.format(
        licence=licence,
        name=escape_markdown(Path(cfg.filename or "model").stem),
        kind=type(trained.model).__name__,
        count=len(trained.classes),
        figures="\n".join(f"- {escape_markdown(name)}: {value:.4f}" for name, value in (metrics or {}).items())
        or "None were given.",
        classes=", ".join(map(escape_markdown, trained.classes)),
    )
    with folder_of_unfinished(folder) as unfinished:
        (unfinished / WEIGHTS).write_bytes(save(weights, metadata=dict(format="pt")))  # faults of the disk are Python's
        (unfinished / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        names = sorted(path.name for path in unfinished.iterdir())
        sums = {name: hashlib.sha256((unfinished / name).read_bytes()).hexdigest() for name in names}
        (unfinished / SUMS).write_text("".join(f"{value}  {name}\n" for name, value in sums.items()), encoding="utf-8")
    return [*names, SUMS]


def _check_folder(folder: Path) -> None:
    """Refuse a folder whose files something else wrote: those of equal names would be lost."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise InvalidValueError(
            f"{folder}: expected a new or empty folder, got a file, {nearest}. Give another folder."
        )
    names = sorted(path.name for path in folder.iterdir()) if nearest == folder else []
    if names and not was_written_by_publish(folder):
        raise InvalidValueError(
            f"{folder}: expected a new or empty folder, or one that tools/publish.py wrote, got one with "
            f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}. Give another folder, "
            "because files of equal names would be replaced."
        )
