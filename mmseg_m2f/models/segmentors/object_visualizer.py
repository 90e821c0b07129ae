"""mmdet's visualizer, which needs no name."""

from mmdet.visualization import DetLocalVisualizer

from mmseg_m2f.models.segmentors.visualizer_name import unused_name
from mmseg_m2f.registry import VISUALIZERS


@VISUALIZERS.register_module()
class ObjectVisualizer(DetLocalVisualizer):
    """mmdet's visualizer of objects and panoptic maps. Built without a name, as a config writes it, it is a new one.

    See `SemanticVisualizer`.
    """

    @classmethod
    def get_instance(cls, name: str | None = None, **kwargs: object) -> "ObjectVisualizer":
        """The visualizer of a name, made from the arguments of `DetLocalVisualizer` at the first call."""
        return super().get_instance(name or unused_name(), **kwargs)
