"""Names of visualizers that were given none."""

from itertools import count

from mmengine.visualization import Visualizer


def unused_name() -> str:
    """A name that no visualizer of this process has."""
    names = (f"visualizer-{number}" for number in count(1))
    return next(name for name in names if not Visualizer.check_instance_created(name))
