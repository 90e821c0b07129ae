"""Fingerprints of the published configs as mmengine resolves them: what each run is made of, in `resolved.json`.

After a change that is meant: `python -m tests.configs.resolved --update`. It prints the keys that changed in each leaf;
`python tools/config.py LEAF --diff LEAF_OF_ANOTHER_CHECKOUT` shows the values.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

FOLDER = Path(__file__).parents[2] / "configs"
STORED = Path(__file__).with_name("resolved.json")
#: What the Runner, the tools and options read. Other variables only help to write these.
KEYS = (
    *("model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader"),
    *("val_evaluator", "test_evaluator", "tta_model", "tta_pipeline"),
    *("optim_wrapper", "param_scheduler", "train_cfg", "val_cfg", "test_cfg", "auto_scale_lr", "sync_bn"),
    *("default_hooks", "custom_hooks", "log_processor", "log_level", "visualizer", "custom_imports"),
    *("load_from", "resume", "randomness", "env_cfg", "default_scope", "model_wrapper_cfg"),
    *("find_unused_parameters", "launcher", "work_dir"),
    *("num_classes", "thing_classes", "crop_size", "data_root", "max_iters", "dataset_metainfo", "backbone"),
)


def leaves() -> list[Path]:
    """Every published config."""
    return sorted(FOLDER.glob("[!_]*/*.py"))


def fingerprint(path: Path) -> dict[str, str]:
    """For each key of `KEYS` that a config has, a digest of its value: the same for equal JSON, tuples as lists."""
    resolved = Config.fromfile(path).to_dict()
    return {key: _digest(resolved[key]) for key in KEYS if key in resolved}


def stored() -> dict[str, dict[str, str]]:
    """The fingerprints of `resolved.json`, by folder and name of the leaf."""
    return json.loads(STORED.read_text(encoding="utf-8"))


def changed_keys(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The keys whose values differ, also those that only one of the two has."""
    return [key for key in KEYS if before.get(key) != after.get(key)]


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def _report(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if name not in after or name not in before:
            yield f"{name}: {'new' if name in after else 'gone'}"
        elif keys := changed_keys(before[name], after[name]):
            yield f"{name}: {', '.join(keys)}"


def main() -> None:
    """Compare with `resolved.json`, or write it anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write resolved.json anew")
    update = parser.parse_args().update
    after = {path.relative_to(FOLDER).with_suffix("").as_posix(): fingerprint(path) for path in leaves()}
    changes = list(_report(stored() if STORED.exists() else {}, after))
    print("\n".join(changes) or "nothing changed")
    if update:
        lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in after.items()]
        STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    elif changes:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
