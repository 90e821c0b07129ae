"""Experiment trackers beside the files of the work folder: TensorBoard, Weights & Biases, MLflow."""

from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmseg_m2f import compat
from mmseg_m2f.config.ingredients import find_ingredient
from mmseg_m2f.config.nodes import short_type
from mmseg_m2f.errors import InvalidTypeError, InvalidValueError

_PACKAGES = dict(TensorboardVisBackend="tensorboard", WandbVisBackend="wandb", MLflowVisBackend="mlflow")
_FOR_DATABASES = ("sqlalchemy", "alembic")  # of MLflow; its slim package comes without


def add_trackers(cfg: Config, names: object) -> None:
    """Let the visualizer also write to trackers; one that is there already takes the new settings.

    Args:
        names: of ingredients in `_base_/trackers`, or paths to such files, which define `vis_backend`.

    Raises:
        FileNotFoundError, ValueError: There is no such ingredient, or it defines no `vis_backend`.
    """
    given = [names] if isinstance(names, str) else names
    if not isinstance(given, (list, tuple)) or not all(isinstance(name, str) for name in given):
        raise InvalidValueError(
            f"tracker={names!r}: expected the name of a file in _base_/trackers, such as tensorboard, or several names."
        )
    visualizer = cfg.get("visualizer")
    if not isinstance(visualizer, Mapping):
        raise InvalidValueError(
            f"tracker={names}: expected a config with a visualizer, which writes to trackers, got none. Set "
            "visualizer=dict(type='mmengine.Visualizer')."
        )
    backends = list(visualizer.get("vis_backends") or [ConfigDict(type="mmengine.LocalVisBackend")])
    for name in given:
        file = find_ingredient("trackers", name, beside=cfg.filename, option="tracker")
        backend = Config.fromfile(file).get("vis_backend")
        if not isinstance(backend, Mapping) or "type" not in backend:
            raise InvalidValueError(
                f"tracker={name}: {file} defines no vis_backend = dict(type=...). Choose a file of _base_/trackers."
            )
        if short_type(backend) == "MLflowVisBackend" and cfg.filename:
            # MLflow draws a name, the same for equal seeds.
            backend = ConfigDict(backend, run_name=backend.get("run_name") or Path(cfg.filename).stem)
        backends = [each for each in backends if short_type(each) != short_type(backend)] + [backend]
    cfg.visualizer.vis_backends = backends


def check_trackers(cfg: Config) -> None:
    """Check that the packages of a config's trackers are installed, before anything is built.

    Raises:
        TypeError: one is not; the message says how to install it.
    """
    for backend in (cfg.get("visualizer") or {}).get("vis_backends") or []:
        needed = [_PACKAGES[short_type(backend)]] if short_type(backend) in _PACKAGES else []
        if str(backend.get("tracking_uri") or "").startswith("sqlite:"):
            needed += _FOR_DATABASES
        for package in needed:
            if not compat.is_installed(package):
                raise InvalidTypeError(
                    f"visualizer.vis_backends, {backend['type']}: expected the package {package}, which is not "
                    'installed. Run `pip install "mmseg-m2f[trackers]"`, or leave the tracker out.'
                )
