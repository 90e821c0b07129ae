import pytest
from mmengine import registry as root

from mmseg_m2f import registry

PAIRS = [
    (registry.MODELS, root.MODELS, "MaskHead"),
    (registry.TASK_UTILS, root.TASK_UTILS, "HungarianAssigner"),
    (registry.DATASETS, root.DATASETS, "CocoPanoptic"),
    (registry.TRANSFORMS, root.TRANSFORMS, "LoadPanoptic"),
    (registry.METRICS, root.METRICS, "PanopticQuality"),
    (registry.HOOKS, root.HOOKS, "Preflight"),
    (registry.OPTIM_WRAPPERS, root.OPTIM_WRAPPERS, None),
    (registry.OPTIM_WRAPPER_CONSTRUCTORS, root.OPTIM_WRAPPER_CONSTRUCTORS, "ParameterRule"),
]


@pytest.mark.parametrize(("ours", "theirs", "name"), PAIRS, ids=[pair[0].name for pair in PAIRS])
def test_registries__are_children_of_mmengine_s(ours: root.Registry, theirs: root.Registry, name: str | None) -> None:
    assert (ours.parent, ours.scope) == (theirs, "mmseg_m2f")
    if name is not None:
        assert theirs.get(f"mmseg_m2f.{name}") is ours.get(name)  # importing happens at the first look-up
