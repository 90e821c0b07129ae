"""mmseg's visualizer, which needs no name."""

from mmseg.visualization import SegLocalVisualizer

from mmseg_m2f.models.segmentors.visualizer_name import unused_name
from mmseg_m2f.registry import VISUALIZERS


@VISUALIZERS.register_module()
class SemanticVisualizer(SegLocalVisualizer):
    """mmseg's visualizer of label maps. Built without a name, as a config writes it, it is a new one.

    mmengine keeps one visualizer for each name in a process. A name in a config would let the second run of a process
    write its curves into the folder of the first. The Runner names visualizers after runs.
    """

    @classmethod
    def get_instance(cls, name: str | None = None, **kwargs: object) -> "SemanticVisualizer":
        """The visualizer of a name, made from the arguments of `SegLocalVisualizer` at the first call."""
        return super().get_instance(name or unused_name(), **kwargs)
