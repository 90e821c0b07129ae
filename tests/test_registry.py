import pytest
from mmengine import registry as root

from mmseg_m2f import registry

PAIRS = [
    (registry.MODELS, root.MODELS, "MaskHead"),
    (registry.TASK_UTILS, root.TASK_UTILS, "HungarianAssigner"),
    (registry.DATASETS, root.DATASETS, "CocoPanoptic"),
    (registry.TRANSFORMS, root.TRANSFORMS, "LoadPanoptic"),
    (registry.VISUALIZERS, root.VISUALIZERS, "SemanticVisualizer"),
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


#: Names that mmseg or mmdet register, too; configs write them with the scope `mmseg_m2f.`.
SHARED = {"FrozenBN", "HungarianAssigner"}


@pytest.mark.parametrize("ours", [pair[0] for pair in PAIRS], ids=[pair[0].name for pair in PAIRS])
def test_registries__no_name_hides_one_of_mmseg_or_mmdet(ours: root.Registry) -> None:
    import mmdet.registry
    import mmdet.utils
    import mmseg.registry
    import mmseg.utils

    mmseg.utils.register_all_modules(init_default_scope=False)
    mmdet.utils.register_all_modules(init_default_scope=False)
    ours.import_from_location()
    attribute = next(name for name, value in vars(registry).items() if value is ours)
    for library in (mmseg.registry, mmdet.registry, root):
        theirs = getattr(library, attribute)
        both = set(ours.module_dict) & set(theirs.module_dict)
        assert both <= SHARED
        assert all(theirs.get(name) is not ours.get(name) for name in both)  # each finds its own without a scope
