"""Child registries of mmengine's root under the scope `mmseg_m2f`.

mmengine imports this module when a config uses the scope, and each registry then imports its `locations`
the first time something is looked up: no `custom_imports` is needed.
"""

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import TASK_UTILS as ROOT_TASK_UTILS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import VISUALIZERS as ROOT_VISUALIZERS
from mmengine.registry import Registry

SCOPE = "mmseg_m2f"

MODELS = Registry("model", parent=ROOT_MODELS, scope=SCOPE, locations=["mmseg_m2f.models"])
TASK_UTILS = Registry("task util", parent=ROOT_TASK_UTILS, scope=SCOPE, locations=["mmseg_m2f.models"])
DATASETS = Registry("dataset", parent=ROOT_DATASETS, scope=SCOPE, locations=["mmseg_m2f.datasets"])
TRANSFORMS = Registry("transform", parent=ROOT_TRANSFORMS, scope=SCOPE, locations=["mmseg_m2f.datasets"])
VISUALIZERS = Registry("visualizer", parent=ROOT_VISUALIZERS, scope=SCOPE, locations=["mmseg_m2f.models"])
METRICS = Registry("metric", parent=ROOT_METRICS, scope=SCOPE, locations=["mmseg_m2f.evaluation"])
HOOKS = Registry("hook", parent=ROOT_HOOKS, scope=SCOPE, locations=["mmseg_m2f.engine"])
OPTIM_WRAPPERS = Registry("optimizer wrapper", parent=ROOT_OPTIM_WRAPPERS, scope=SCOPE, locations=["mmseg_m2f.engine"])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=ROOT_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=["mmseg_m2f.engine"],
)
