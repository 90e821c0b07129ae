"""Trying one config after the other, and going on after an interruption."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config

from mmseg_m2f import compat
from mmseg_m2f.benchmark.shipped.catalogue import Shipped, model_key
from mmseg_m2f.benchmark.shipped.trial import Limits, try_config
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import save_json
from mmseg_m2f.json_files import read_json

Outcomes = dict[str, dict[str, str]]


def count(configs: Sequence[Shipped], out: Path, limits: Limits, *, say: Callable[[str], None] = print) -> Outcomes:
    """Name of a config -> stage -> "" or the reason of the failure. What `outcomes.json` holds is not done again.

    Configs with equal models are tried once.

    Raises:
        ValueError: the folder holds a count under other limits.
    """
    file = out / "outcomes.json"
    setting = vars(limits)
    known = dict(limits=setting, models={}, configs={})
    if file.exists():
        stages = {str: {str: str}}
        structure = {"limits": {str: object}, "models": stages, "configs": stages}
        known = read_json(file, what="the outcomes of a count", structure=structure, remedy="Give another --out.")
    if known["limits"] != setting:
        raise InvalidValueError(
            f"{file}: expected a count under {setting}, got one under {known['limits']}. Give another --out."
        )
    import_libraries()
    models: Outcomes = known["models"]
    outcomes: Outcomes = known["configs"]
    for number, config in enumerate(configs, 1):
        if config.name in outcomes:
            continue
        key = _key(config)
        again = key in models
        if not again:
            models[key] = try_config(config.file, out / "logs" / config.name.replace("/", "_"), limits)
        outcomes[config.name] = models[key]
        save_json(dict(limits=setting, models=models, configs=outcomes), file)
        failed = [f"{stage}: {reason}" for stage, reason in models[key].items() if reason]
        text = "; ".join(failed) or "works"
        say(f"[{number}/{len(configs)}] {config.name}: {'as before, ' if again else ''}{text}")
    return {config.name: outcomes[config.name] for config in configs}


def import_libraries() -> None:
    """Import once what every trial needs: its processes are forks of this one."""
    compat.install()
    torch.set_num_threads(1)
    for name in ("mmseg.models", "mmdet.models", "mmdet.structures.mask"):
        import_module(name)


def _key(config: Shipped) -> str:
    """The model's, or the config's own name where it cannot be read; its trial tells why."""
    try:
        return model_key(Config.fromfile(config.file, import_custom_modules=False))
    except (OSError, ImportError, AttributeError, KeyError, TypeError, ValueError, SyntaxError):
        return config.name
